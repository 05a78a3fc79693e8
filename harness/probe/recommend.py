"""Which limits to recommend for a goal, from what the starts have shown; each with its reason and its cost.

Goals: `balanced`: a history not below what the engine's own prefill budget allows, then the most chats that survive;
`history`: the longest one; `chats`: the most at once; `latency`: as many as hold the SLO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from harness.engines.base import EngineFacts
from harness.probe.curve import BudgetCurve
from harness.probe.evidence import ALIKE, Evidence, effective_prefill
from harness.probe.loads import ROWS_CAP, SHORT
from harness.probe.setting import CHUNK, Bracket, Goal, Prior, ProbeGoal, Setting

MARGIN = 0.005  # of the budget, left free so that the same flags start again when a little less memory is free
UNSURE = 0.9  # of a cache that was only estimated
SURE_OF_ROWS = 0.7  # of the chats that held where somewhat more died
OWN_DEFAULT = 128  # requests that TGI takes at once where nothing is said (launcher/src/main.rs)
SURE_OF_CARRIED = 0.99  # of the tokens that were carried where more of them killed it
NEAR_FLOOR = 0.012  # of a budget: as closely as it is worth knowing where a history was to end
WORTH_A_FRACTION = 0.015  # of a budget, before another memory fraction is tried
NEARLY_FULL = 0.9
CHANCE = 0.03  # share by which free memory differs between starts without a reason
LOW_PREFILL = 1024  # keeps a GPU busy and frees nearly all activation memory
LEAST_SAFE_PREFILL = 256
MIDDLE_PREFILL = 2048
CONTEXT = "the model's context"
PIECE = "the prefill budget, which must hold a whole prompt"
WORTH_A_CHANGE = 0.05  # of the budget, before `balanced` departs from it in a start that is made anyway
WORTH_ANOTHER_START = 0.25  # of the budget, before `balanced` departs from the engine's own prefill budget


@dataclass(frozen=True)
class Flag:
    """One recommended limit: why this value, and what it costs. brief: the reason in a few words, for a comment."""

    name: str
    value: int | float
    reason: str
    cost: str = ""
    brief: str = ""


@dataclass(frozen=True)
class Recommendation:
    """A setting to prove, and what it means. history: the longest prompt of one chat that leaves the answer free.

    capacity: tokens in flight that the setting can have at most; None where only the permits bound them.
    """

    setting: Setting
    flags: tuple[Flag, ...]
    history: int
    answer: int
    capacity: int | None
    bound_by: str


def answer_room(answer_tokens: int, version: tuple[int, int, int]) -> int:
    """Tokens to keep for an answer: from 3.1.1 on TGI generates in pieces of 1024 and never shortens the last one
    (router/src/infer/mod.rs:164), so a longer answer needs room for whole pieces.
    """
    if answer_tokens <= CHUNK or version < (3, 1, 1):
        return answer_tokens
    return math.ceil(answer_tokens / CHUNK) * CHUNK


def recommend(evidence: Evidence, wish: ProbeGoal, knowledge: Prior, fast_rows: int | None = None) -> Recommendation:
    """What to set next, as good as the evidence allows. fast_rows: most chats at once that held the SLO."""
    started = evidence.started
    assert started is not None
    answer = answer_room(wish.answer_tokens, knowledge.version)
    if started.kind == "flash" and started.usable is not None:
        return _flash(evidence, started, wish, knowledge, answer, fast_rows)
    return _padded(evidence, started, wish, knowledge, answer, fast_rows)


def first_prefill(goal: Goal) -> int | None:
    """The prefill budget of the first start; None leaves it to the engine, because `balanced` is defined by it."""
    return None if goal == "balanced" else LOW_PREFILL


def _flash(
    evidence: Evidence, started: EngineFacts, wish: ProbeGoal, knowledge: Prior, answer: int, fast_rows: int | None
) -> Recommendation:
    last = evidence.last_up
    assert last is not None
    prefill = effective_prefill(last) or 4096
    if not started.chunking:
        prefill = unchunked_prefill(evidence, wish, knowledge, answer)
    if evidence.deadly_prefill is not None:
        prefill = min(prefill, max(LEAST_SAFE_PREFILL, evidence.deadly_prefill // 2))
    fraction = last.setting.cuda_memory_fraction
    usable = _usable(evidence, started, prefill, fraction)
    total, bound_by = _longest_total(evidence, started, knowledge, usable)
    if not started.chunking and total - answer > prefill:
        total, bound_by = prefill + answer, PIECE
    chats = _permits(evidence, usable, answer, wish, fast_rows)
    carried = evidence.tokens.largest_ok or usable // 2
    if evidence.dies_when_full:  # then nothing but the number of chats keeps the last blocks free
        fraction = None
        usable = max(usable, max((tokens for _, tokens in evidence.caches()), default=usable))
        most = int(evidence.share_that_held * usable)
        total = min(most, context_length(evidence, knowledge) or most)
        chats = min(chats, max(1, most // total))
        bound_by = "the last blocks of the KV cache, of which the engine died"
    elif evidence.tokens.smallest_failed is not None and usable > carried:
        if evidence.ignores_fraction:  # then the permits must bound what is in flight
            fraction = None
            total = (
                min(total, carried) if evidence.share_that_held > NEARLY_FULL else min(total, prefill + answer, carried)
            )
            chats = min(chats, max(1, carried // total))
        elif fraction is None:
            fraction = _smaller_fraction(evidence, usable, knowledge)
            usable = min(usable, int(carried * SURE_OF_CARRIED))
            # What the fraction leaves is a guess until a start has told; the next one goes to its edge.
            total = min(total, int(usable * UNSURE))
            chats = _permits(evidence, usable, answer, wish, fast_rows)
    if (
        fraction is not None
        and evidence.tokens.smallest_failed is not None
        and (better := _fraction_between(evidence, prefill, carried)) is not None
    ):
        fraction, usable = better, int(carried * SURE_OF_CARRIED)
        total = int(min(carried * SURE_OF_CARRIED, context_length(evidence, knowledge) or usable) * (1 - MARGIN))
        chats = _permits(evidence, usable, answer, wish, fast_rows)
    answer = min(answer, max(1, total - 1))
    history = max(1, total - answer)
    prefill = _safe_prefill(prefill, total, history, usable)
    setting = Setting(
        max_input_tokens=history + (answer - min(answer, CHUNK)),
        max_total_tokens=total,
        max_batch_prefill_tokens=prefill,
        max_concurrent_requests=chats,
        cuda_memory_fraction=fraction,
        purpose="verify",
        prefix_caching=False
        if _may_block_itself(evidence, usable, history + answer - min(answer, CHUNK), total)
        else None,
    )
    flags = _flash_flags(setting, started, bound_by, usable, wish, evidence)
    return Recommendation(setting, flags, history, answer, usable, bound_by)


def unchunked_prefill(evidence: Evidence, wish: ProbeGoal, knowledge: Prior, answer: int) -> int:
    """The prefill budget for an engine that reads a prompt in one piece, so that it bounds the history: as large as the
    goal allows, by all that the starts told of T(P).
    """
    ran = effective_prefill(evidence.last_up) or 4096  # type: ignore[arg-type]
    first = next((each for each in evidence.outcomes if each.came_up), None)
    own = effective_prefill(first) if first is not None else None
    if wish.goal in ("chats", "latency") or own is None:
        return ran
    curve = flash_curve(evidence, knowledge)
    context = context_length(evidence, knowledge)
    most = min(int(curve.at(own)), context - answer if context is not None else int(curve.at(own)))
    failed = evidence.prefill.smallest_failed
    if failed is not None:
        held = max((each for each, _ in evidence.caches() if each < failed), default=failed // 2)
        most = min(most, max(held, (held + failed) // 2))
    floor = (1 - wish.history_share) * curve.at(own) if wish.goal == "balanced" else 0.0
    if context is not None and own > context - answer:
        return min(own, max(1, context - answer))
    fitting = min(own, max(1, int(curve.at(own) * (1 - MARGIN)) - answer))
    return curve.longest(fitting, most, floor, answer, MARGIN)


def flash_curve(evidence: Evidence, knowledge: Prior) -> BudgetCurve:
    """T(P) as the starts told it."""
    share = knowledge.prefill_share
    return BudgetCurve.through(evidence.caches(), None if share is None else -share)


def _may_block_itself(evidence: Evidence, usable: int, prompt: int, total: int) -> bool:
    """Whether a cached prompt can keep the next long one that begins like it out of the cache for ever: its lookup pins
    the whole cached leaf, whose blocks it then waits for (backends/v3/src/radix.rs).
    """
    return evidence.has_prefix_cache and (prompt + total > usable or evidence.blocks_itself)


def _usable(evidence: Evidence, started: EngineFacts, prefill: int, fraction: float | None) -> int:
    """The smallest that any start with this prefill budget found: what differed once will differ again."""
    budgets = evidence.budgets(prefill, fraction)
    if not budgets and not started.chunking and fraction is None:
        return int(flash_curve(evidence, Prior()).at(prefill))
    budgets = budgets or [started.budget or 0]  # a smaller prefill leaves no less
    return min(replace(started, budget=budget).usable or 0 for budget in budgets)


def spread(evidence: Evidence, prefill: int | None, fraction: float | None) -> float:
    """How much the budget differed between equal starts, as a share."""
    budgets = evidence.budgets(prefill, fraction)
    return (max(budgets) - min(budgets)) / max(budgets) if budgets else 0.0


def _longest_total(evidence: Evidence, started: EngineFacts, knowledge: Prior, usable: int) -> tuple[int, str]:
    last = evidence.last_up
    assert last is not None
    differed = spread(evidence, effective_prefill(last), last.setting.cuda_memory_fraction)
    # Small differences are chance, and the next may be larger; a large one was somebody who came or went.
    margin = max(MARGIN, differed) if differed <= CHANCE else MARGIN
    # One slot of the last token is never written, so input + answer may be one more than the slots.
    room = usable + 1 - started.speculate - max(1, math.ceil(margin * usable))
    if evidence.single.smallest_failed is not None:
        held = evidence.single.largest_ok or int(evidence.single.smallest_failed * 0.9)
        room = min(room, max(held, int(evidence.single.smallest_failed * 0.9)) - started.block_size)
    context = context_length(evidence, knowledge)
    if context is not None and context <= room:
        return context, CONTEXT
    return max(2, room), "KV memory"


def context_length(evidence: Evidence, knowledge: Prior) -> int | None:
    """The model's own maximum: from the catalogue, else from an engine that chose less than its memory allows."""
    if knowledge.context is not None:
        return knowledge.context
    for each in evidence.outcomes:
        seen = each.started
        if (
            each.came_up
            and seen is not None
            and each.setting.max_total_tokens is None
            and seen.max_total_tokens is not None
            and seen.chunking
            and seen.budget is not None
            and seen.max_total_tokens < seen.budget
        ):
            return seen.max_total_tokens
    return None


def _smaller_fraction(evidence: Evidence, usable: int, knowledge: Prior) -> float:
    """A memory fraction with which the budget falls below what was carried before the engine died.

    The budget falls by memory * wiggle room / KV bytes per unit of the fraction (utils/import_utils.py:13 of the
    server); where sizes are unknown, KV memory is taken for 40 % of the GPU.
    """
    wanted = 0.97 * (evidence.tokens.largest_ok or usable / 2)
    if knowledge.kv_bytes and knowledge.memory_bytes:
        slope = 0.9 * knowledge.memory_bytes / knowledge.kv_bytes
    else:
        slope = usable / 0.4
    return max(0.2, math.floor((1 - (usable - wanted) / slope) * 1000) / 1000)


def _fraction_between(evidence: Evidence, prefill: int, carried: int) -> float | None:
    """The memory fraction whose cache is just what was carried, by the caches of two fractions; None where the last one
    is close enough.
    """
    known = sorted(
        {
            (each.setting.cuda_memory_fraction or 1.0, each.started.usable)
            for each in evidence.outcomes
            if each.came_up and each.started and each.started.usable and effective_prefill(each) == prefill
        }
    )
    if len(known) < 2 or known[0][1] == known[-1][1]:
        return None
    (low, fewer), (high, more) = known[0], known[-1]
    wanted = SURE_OF_CARRIED * carried
    fraction = math.floor((low + (wanted - (fewer or 0)) / ((more or 0) - (fewer or 0)) * (high - low)) * 1000) / 1000
    nearest = min(known, key=lambda each: abs((each[1] or 0) - wanted))
    return fraction if abs((nearest[1] or 0) - wanted) > WORTH_A_FRACTION * wanted else None


def _safe_prefill(prefill: int, total: int, history: int, usable: int) -> int:
    """TGI's warm-up lays ceil(prefill / input) chats of full length beside each other before it measures
    (backends/v3/src/client/grpc_client.rs:109); that must fit too.
    """
    if math.ceil(prefill / history) * (total - 1) > usable:
        prefill = min(prefill, history)
    return min(prefill, usable)


def _permits(evidence: Evidence, usable: int, answer: int, wish: ProbeGoal, fast_rows: int | None) -> int:
    """As many chats as could be in flight at once if each had a short prompt, less where so many did not survive."""
    fitting = max(1, usable // (answer + SHORT))
    survived_rows = evidence.rows.largest_ok or 0
    chats = min(ROWS_CAP, max(fitting, min(OWN_DEFAULT, survived_rows)))
    if evidence.rows.smallest_failed is not None:
        survived = evidence.rows.largest_ok or evidence.rows.smallest_failed // 2
        # Well below what held alone, because other loads come on top; not below half of what may survive.
        chats = min(chats, survived, max(int(survived * SURE_OF_ROWS), evidence.rows.smallest_failed // 2 + 1))
    if wish.goal == "latency" and fast_rows is not None:
        chats = min(chats, fast_rows)
    return max(1, chats)


def _padded(
    evidence: Evidence, started: EngineFacts, wish: ProbeGoal, knowledge: Prior, answer: int, fast_rows: int | None
) -> Recommendation:
    history = padded_history(evidence, wish, knowledge, answer)
    bound = evidence.at_length(history)
    context = context_length(evidence, knowledge) or default_total(evidence)
    capacity = padded_capacity(evidence, knowledge, history, answer)
    total = min(each for each in (history + answer, context, capacity) if each)
    history = max(1, min(history, total - answer if total > answer else total // 2))
    chats = padded_permits(evidence, capacity, total, answer, wish, fast_rows)
    setting = Setting(
        max_input_tokens=history,
        max_total_tokens=total,
        max_batch_prefill_tokens=history,
        max_batch_total_tokens=max(capacity, total),
        max_concurrent_requests=chats,
        purpose="verify",
    )
    bound_by = CONTEXT if context and total == context else "the memory of one prefill" if bound.largest_ok else PIECE
    return Recommendation(
        setting, _padded_flags(setting, evidence, bound_by), history, answer, setting.max_batch_total_tokens, bound_by
    )


def padded_history(evidence: Evidence, wish: ProbeGoal, knowledge: Prior, answer: int) -> int:
    """The longest prompt that the goal allows, by all budgets that were found at lengths tried so far."""
    first = next(each for each in evidence.outcomes if each.came_up)
    told = first.started.max_total_tokens if first.started else None
    own = effective_prefill(first) or told or 4096
    context = context_length(evidence, knowledge) or default_total(evidence) or own + answer
    most = max(1, context - answer if context > answer else context // 2)
    own = min(own, most)
    curve = padded_curve(evidence, knowledge)
    if wish.goal in ("chats", "latency") or not curve.points:
        return own
    failed = evidence.prefill.smallest_failed
    if failed is not None and failed <= most:
        held = max((each for each in evidence.prefills_up if each < failed), default=failed // 2)
        most = max(held, min(int(failed * 0.99), (held + failed) // 2))
    floor = (1 - wish.history_share) * curve.at(own) if wish.goal == "balanced" else 0.0
    fitting = min(own, max(1, int(curve.at(own)) - answer))
    best = curve.longest(fitting, most, floor, answer, MARGIN)
    # A length that was tried will do where the budget there is the wanted one as closely as it can be known.
    tried = [
        length
        for length, tokens in evidence.budget_points()
        if length <= most
        and length + answer <= tokens
        and tokens >= floor * (1 - NEAR_FLOOR)
        and (length >= best or tokens <= floor * (1 + NEAR_FLOOR) or tokens - length - answer <= NEAR_FLOOR * length)
    ]
    # One just below the best is as good, and its budget is known; what was found there does not hold above it.
    near = [length for length, _ in evidence.budget_points() if best * (1 - ALIKE) <= length <= best]
    return max(tried, default=max(near, default=best))


def padded_curve(evidence: Evidence, knowledge: Prior) -> BudgetCurve:
    """T over the longest prompt, as the loads of the starts so far found it."""
    share = knowledge.prefill_share
    return BudgetCurve.through(evidence.budget_points(), None if share is None else -share)


def default_total(evidence: Evidence) -> int | None:
    """The total that a padded engine chose itself, beyond which nothing is known of the model's context."""
    totals = [
        each.started.max_total_tokens
        for each in evidence.outcomes
        if each.came_up and each.setting.max_total_tokens is None and each.started and each.started.max_total_tokens
    ]
    return max(totals, default=None)


def padded_capacity(evidence: Evidence, knowledge: Prior, history: int, answer: int) -> int:
    """Tokens in flight that survived every load with prompts of this length, less a margin for memory that differs from
    start to start. Where no load was sent, what the memory model expects, and without one the engine's own default.
    """
    if not evidence.fill_points:
        return int((knowledge.budget or 16000) * 0.8)
    bracket = evidence.at_length(history)
    if evidence.padded_law and (rows := evidence.full_length_rows(history)) is not None:
        return rows * (history + answer)
    if bracket.largest_ok is None:
        guess = padded_curve(evidence, knowledge).at(history)
        return max(2, min(int(guess * UNSURE), bracket.smallest_failed or int(guess)))
    if bracket.smallest_failed is None:
        return bracket.largest_ok
    return max(2, math.floor(bracket.largest_ok * (1 - MARGIN / 2)))


def padded_permits(
    evidence: Evidence, capacity: int, total: int, answer: int, wish: ProbeGoal, fast_rows: int | None
) -> int:
    """Chats at once with so many tokens in flight. Where a long prompt makes the whole batch as long, only their number
    bounds the memory.
    """
    if evidence.padded_law:
        chats = evidence.full_length_rows(total - answer) or max(1, capacity // total)
        return min(chats, fast_rows) if wish.goal == "latency" and fast_rows else chats
    return _permits(evidence, capacity, answer, wish, fast_rows)


def _flash_flags(
    setting: Setting, started: EngineFacts, bound_by: str, usable: int, wish: ProbeGoal, evidence: Evidence
) -> tuple[Flag, ...]:
    total, prefill = setting.max_total_tokens or 0, setting.max_batch_prefill_tokens or 0
    flags = [
        Flag("max_total_tokens", total, _total_reason(total, usable, bound_by), brief=f"bounded by {bound_by}"),
        Flag(
            "max_input_tokens",
            setting.max_input_tokens or 0,
            f"the longest prompt that still leaves {wish.answer_tokens:,} tokens for the answer",
            "longer prompts are refused at once (422) instead of being cut short",
            f"leaves {wish.answer_tokens:,} tokens for the answer",
        ),
        Flag(
            "max_batch_prefill_tokens",
            prefill,
            _prefill_reason(prefill, started, own_choice=evidence.last_up_own_prefill),
            "its activation memory is taken from the KV cache; running chats pause while so many tokens are read in",
            "the engine's own choice" if evidence.last_up_own_prefill else f"for goal {wish.goal}",
        ),
        _permits_flag(setting.max_concurrent_requests or 0, wish, evidence.rows),
    ]
    if setting.prefix_caching is False:
        flags.append(
            Flag(
                "prefix_caching",
                0,
                "with the prefix cache on, a long chat that begins like one before it can wait for ever: its lookup"
                " pins the blocks that it needs, and two chats of this length do not fit",
                "a beginning that chats share is read again for each; with half the history it could stay on",
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
        return "this model reads a prompt in one piece, so it must hold the longest one"
    if own_choice:
        return "the engine's own choice: it keeps the GPU busy while prompts are read in pieces"
    return "small pieces: nearly all activation memory goes to the KV cache, and running chats pause only briefly"


def _permits_flag(chats: int, wish: ProbeGoal, rows: Bracket) -> Flag:
    reason = (
        f"so many chats with short prompts and {wish.answer_tokens:,} answer tokens fill the KV cache; with longer"
        " prompts the rest wait in a queue of bounded length"
    )
    if rows.smallest_failed is not None and rows.largest_ok is not None:
        reason = (
            f"{rows.smallest_failed:,} short chats at once killed the engine and {rows.largest_ok:,} did not; the rest"
            " is kept for what comes on top of them"
        )
    if wish.goal == "latency":
        reason = "most chats at once that held the SLO when measured"
    refused = f"request number {chats + 1:,} is refused at once (429)"
    return Flag("max_concurrent_requests", chats, reason, refused, f"for goal {wish.goal}; beyond it 429")


def _padded_flags(setting: Setting, evidence: Evidence, bound_by: str) -> tuple[Flag, ...]:
    chats = setting.max_concurrent_requests or 0
    many = (
        "a long prompt makes its whole batch as long: so many chats of full length fit"
        if evidence.padded_law
        else "so many short chats survived at once"
    )
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
            "this model reads a prompt in one piece, so it must hold the longest one",
        ),
        Flag(
            "max_batch_total_tokens",
            setting.max_batch_total_tokens or 0,
            "most tokens in flight that survived; the engine does not check memory for this model, so this flag is"
            " all that protects it",
            "chats beyond it wait",
        ),
        Flag(
            "max_concurrent_requests",
            chats,
            many,
            f"request number {chats + 1:,} is refused at once (429)",
        ),
    )
