"""Why each recommended limit has its value, and what it costs, in words."""

from __future__ import annotations

from harness.engines.base import EngineFacts
from harness.probe.evidence import Evidence
from harness.probe.flash_evidence import last_up_own_prefill
from harness.probe.loads import SHORT
from harness.probe.padded_evidence import pads_batch
from harness.probe.recommendation import Flag
from harness.probe.setting import ProbeGoal, Setting

_READ_AGAIN = "a beginning that chats share is read again for each"
_PINNED = (
    "with the prefix cache on, a long chat that begins like one before it can wait for ever: its lookup pins the blocks"
    " that it needs, and two chats of this length do not fit",
    f"{_READ_AGAIN}; with half the history it could stay on",
)
_NEVER_COMPUTED = (
    "with the prefix cache on and chunked prefill off, a prompt that has to wait for the next prefill is then taken for"
    " cached, although it was never computed, and its answer is wrong",
    _READ_AGAIN,
)
_ALL_THAT_PROTECTS = (
    "most tokens in flight that survived; the engine does not check memory for this model, so this flag is all that"
    " protects it"
)
_ROOM_FOR_BATCH = (
    "room for a full batch of the longest chats as the engine counts them; the size of the batch is what protects it"
)
_WHOLE_PROMPT = "chunked prefill is off for this model, so it must hold the longest prompt"


def flash_flags(
    setting: Setting, started: EngineFacts, bound_by: str, usable: int, asked: ProbeGoal, evidence: Evidence
) -> tuple[Flag, ...]:
    total, prefill = setting.max_total_tokens or 0, setting.max_batch_prefill_tokens or 0
    flags = [
        Flag("max_total_tokens", total, _total_reason(total, usable, bound_by), brief=f"bounded by {bound_by}"),
        Flag(
            "max_input_tokens",
            setting.max_input_tokens or 0,
            f"the longest prompt that still leaves {asked.answer_tokens:,} tokens for the answer",
            "longer prompts are refused at once (422) instead of being cut short",
            f"leaves {asked.answer_tokens:,} tokens for the answer",
        ),
        Flag(
            "max_batch_prefill_tokens",
            prefill,
            _prefill_reason(prefill, started, own_choice=last_up_own_prefill(evidence)),
            "its activation memory is taken from the KV cache; running chats pause while so many tokens are read in",
            "the engine's own choice" if last_up_own_prefill(evidence) else f"for goal {asked.goal}",
        ),
        _concurrency_flag(setting, usable, asked, evidence),
    ]
    if setting.prefix_caching is False:
        flags.append(
            Flag(
                "prefix_caching",
                0,
                *(_PINNED if started.chunking else _NEVER_COMPUTED),
            )
        )
    if setting.cuda_memory_fraction is not None:
        flags.append(
            Flag(
                "cuda_memory_fraction",
                setting.cuda_memory_fraction,
                "with the engine's own memory budget it died under load",
                "a smaller KV cache",
            )
        )
    return tuple(flags)


def _total_reason(total: int, usable: int, bound_by: str) -> str:
    if bound_by == "KV memory":
        return (
            f"{usable:,} tokens of KV cache can be handed out; {usable - total + 1:,} are left free so that the same"
            " flags start again when a little less memory is free"
        )
    return f"bounded by {bound_by}"


def _prefill_reason(prefill: int, started: EngineFacts, *, own_choice: bool) -> str:
    if not started.chunking:
        return _WHOLE_PROMPT
    if own_choice:
        return "the engine's own choice, with chunked prefill: it keeps the GPU busy"
    return "small pieces: nearly all activation memory goes to the KV cache, and running chats pause only briefly"


def _concurrency_flag(setting: Setting, usable: int, asked: ProbeGoal, evidence: Evidence) -> Flag:
    chats, rows = setting.max_concurrent_requests or 0, evidence.rows
    short = f"short prompts and {asked.answer_tokens:,} answer tokens"
    reason = (
        f"so many chats with {short} fill the KV cache; with longer prompts the rest wait in a queue of bounded length"
    )
    if chats * (asked.answer_tokens + SHORT) > usable:
        reason = (
            f"so many is what the engine lets in by itself, and they survived; of chats with {short} fewer fit at once"
        )
    if evidence.tokens.smallest_failed is not None and chats * (setting.max_total_tokens or 0) <= usable:
        reason = "so many chats of full length stay below the tokens in flight that killed the engine"
    if rows.smallest_failed is not None and rows.largest_ok is not None:
        reason = (
            f"{rows.smallest_failed:,} short chats at once killed the engine and {rows.largest_ok:,} did not; the rest"
            " is kept for what comes on top of them"
        )
    if asked.goal == "latency":
        reason = "most chats at once that held the SLO when measured"
    refused = f"request number {chats + 1:,} is refused at once (429)"
    return Flag("max_concurrent_requests", chats, reason, refused, f"for goal {asked.goal}; beyond it 429")


def padded_flags(setting: Setting, evidence: Evidence, bound_by: str) -> tuple[Flag, ...]:
    chats = setting.max_concurrent_requests or 0
    batch = setting.max_batch_size
    many = "so many short chats survived at once"
    if pads_batch(evidence):
        many = "a long prompt makes its whole batch as long: so many chats of full length fit"
    if batch is not None:
        many = "more than the batch holds wait; so many is what the engine would let in by itself"
    return (
        Flag(
            "max_input_tokens",
            setting.max_input_tokens or 0,
            f"bounded by {bound_by}",
            "longer prompts are refused (422)",
        ),
        Flag("max_total_tokens", setting.max_total_tokens or 0, "the longest prompt and its answer"),
        Flag(
            "max_batch_prefill_tokens",
            setting.max_batch_prefill_tokens or 0,
            _WHOLE_PROMPT,
        ),
        Flag(
            "max_batch_total_tokens",
            setting.max_batch_total_tokens or 0,
            _ALL_THAT_PROTECTS if batch is None else _ROOM_FOR_BATCH,
            "chats beyond it wait",
        ),
        Flag(
            "max_concurrent_requests",
            chats,
            many,
            f"request number {chats + 1:,} is refused at once (429)",
        ),
        *(
            [
                Flag(
                    "max_batch_size",
                    batch,
                    "a long prompt makes its whole batch as long, which the token budget does not count: so many chats"
                    " of full length fit",
                    "the others wait until one has ended",
                )
            ]
            if batch is not None
            else []
        ),
        Flag(
            "waiting_served_ratio",
            0,
            "a prompt that waits joins the running chats at once, as in the proof; by default it waits until enough"
            " others wait with it, and what that lets in was not proved",
            "running chats pause for each prompt that joins; with many short prompts that is slower",
        ),
    )
