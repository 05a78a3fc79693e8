"""Limits for a flash engine: its log tells the token budget T, which falls as the prefill budget P grows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from harness.engines.base import EngineFacts
from harness.probe.curve import BudgetCurve
from harness.probe.evidence import Evidence
from harness.probe.flash_evidence import (
    blocks_itself,
    budgets_at,
    caches,
    deadly_prefill,
    dies_when_full,
    has_prefix_cache,
    ignores_fraction,
    share_that_held,
)
from harness.probe.memory_fraction import caches_at, caches_by_fraction, fraction_for, prefill_cost, settled_fraction
from harness.probe.reasons import flash_flags
from harness.probe.recommendation import (
    CONTEXT,
    MARGIN,
    PIECE,
    UNSURE,
    Recommendation,
    context_length,
    first_prefill,
    own_prefill,
    short_chats,
)
from harness.probe.setting import CHUNK, Prior, ProbeGoal, Setting, effective_prefill

SURE_OF_CARRIED = 0.9995  # of the tokens that were carried where more of them killed it
LAST_BLOCKS = "the last blocks of the KV cache, of which the engine died"
DEADLY = "the tokens in flight of which the engine died"
COSTLY = 0.6  # tokens of KV cache for each that a prefill reads, more than most take: the next start should come up
CHANCE = 0.03  # share by which free memory differs between starts without a reason
LEAST_SAFE_PREFILL = 256


@dataclass(frozen=True)
class _Room:
    """What one start can hold: tokens of its cache, of one chat, chats at once, the memory fraction that this needs."""

    usable: int
    total: int
    chats: int
    fraction: float | None
    bound_by: str

    @property
    def capacity(self) -> int:
        """Tokens that can be in flight."""
        return min(self.usable, self.chats * self.total)


def flash_limits(
    evidence: Evidence, started: EngineFacts, asked: ProbeGoal, prior: Prior, answer: int, fast_rows: int | None
) -> Recommendation:
    last = evidence.last_up
    assert last is not None
    prefill = effective_prefill(last) or 4096
    if not started.chunking:
        prefill = unchunked_prefill(evidence, asked, prior, answer)
    if (deadly := deadly_prefill(evidence)) is not None:
        prefill = min(prefill, max(LEAST_SAFE_PREFILL, deadly // 2))
    if not started.chunking and evidence.tokens.smallest_failed is not None and evidence.tokens.largest_ok:
        prefill = min(prefill, max(1, int(evidence.tokens.largest_ok * SURE_OF_CARRIED * (1 - MARGIN)) - answer))
    fraction = last.setting.cuda_memory_fraction
    usable = _usable(evidence, started, prefill, fraction)
    total, bound_by = _longest_total(evidence, started, prior, usable)
    if not started.chunking and total - answer > prefill:
        total, bound_by = prefill + answer, PIECE
    room = _Room(usable, total, short_chats(evidence, usable, answer, asked, fast_rows), fraction, bound_by)
    room = _below_death(room, evidence, started, asked, prior, prefill, answer, fast_rows)
    usable, total = room.usable, room.total
    answer = min(answer, max(1, total - 1))
    history = max(1, total - answer)
    prefill = safe_prefill(prefill, total, history, usable)
    setting = Setting(
        max_input_tokens=history + (answer - min(answer, CHUNK)),
        max_total_tokens=total,
        max_batch_prefill_tokens=prefill,
        max_concurrent_requests=room.chats,
        cuda_memory_fraction=room.fraction,
        purpose="verify",
        prefix_caching=False
        if _is_better_without_prefix_cache(evidence, started, usable, history + answer - min(answer, CHUNK), total)
        else None,
    )
    flags = flash_flags(setting, started, room.bound_by, usable, asked, evidence)
    return Recommendation(setting, flags, history, answer, room.capacity, room.bound_by)


def _below_death(
    room: _Room,
    evidence: Evidence,
    started: EngineFacts,
    asked: ProbeGoal,
    prior: Prior,
    prefill: int,
    answer: int,
    fast_rows: int | None,
) -> _Room:
    """With what was in flight kept below what killed it: by a smaller cache, else by the number of chats."""
    if evidence.tokens.smallest_failed is None:
        return room
    context = context_length(evidence, prior)
    if dies_when_full(evidence):  # then nothing but the number of chats keeps the last blocks free
        whole = max((tokens for each, tokens in caches(evidence) if each >= prefill), default=room.usable)
        most = int(share_that_held(evidence) * max(room.usable, whole))
        total = min(most, context or most)
        return _Room(max(room.usable, whole), total, min(room.chats, max(1, most // total)), None, LAST_BLOCKS)
    carried = evidence.tokens.largest_ok or evidence.tokens.smallest_failed // 2
    whole = _usable(evidence, started, prefill, None)
    if room.fraction is None and whole <= carried:
        return room
    if ignores_fraction(evidence):
        total = min(carried, context or carried)
        if asked.goal in ("chats", "latency"):
            total = min(total, prefill + answer)
        return _Room(whole, total, min(room.chats, max(1, carried // total)), None, DEADLY)
    measured = caches_by_fraction(evidence, prefill)
    fraction = settled_fraction(measured, carried)
    known = caches_at(evidence, prefill, prior, COSTLY)
    sure = len(set(measured.values())) > 1 or len(set(known.values())) > 2
    if fraction is None:
        fraction = fraction_for(known, carried * SURE_OF_CARRIED, prior)
    if fraction in measured:
        total, bound_by = _longest_total(evidence, started, prior, measured[fraction])
        usable = measured[fraction]
    else:  # what a fraction leaves is a guess until two have told; the next start goes to its edge
        usable = int(carried * SURE_OF_CARRIED)
        total, bound_by = int(usable * (1 - MARGIN if sure else UNSURE)), DEADLY
        if context is not None and context <= total:
            total, bound_by = context, CONTEXT
    if not started.chunking:
        total = min(total, prefill + answer)
    chats = short_chats(evidence, usable, answer, asked, fast_rows)
    return _Room(usable, total, chats, None if fraction == 1.0 else fraction, bound_by)


def unchunked_prefill(evidence: Evidence, asked: ProbeGoal, prior: Prior, answer: int) -> int:
    """The prefill budget for an engine that reads a prompt in one piece, so that it bounds the history: as large as the
    goal allows, by all that the starts told of T(P).
    """
    ran = effective_prefill(evidence.last_up) or 4096  # type: ignore[arg-type]
    own = own_prefill(evidence, asked.goal)
    if asked.goal in ("chats", "latency"):
        return min(ran, first_prefill(asked.goal) or ran)  # less than ran where another goal's starts went further
    if own is None:
        return ran
    curve = flash_curve(evidence, prior, COSTLY if asked.goal == "history" else None)
    context = context_length(evidence, prior)
    most = min(int(curve.at(own)), context - answer if context is not None else int(curve.at(own)))
    budget = curve.at(own)
    if evidence.tokens.smallest_failed is not None and evidence.tokens.largest_ok:
        budget = min(budget, evidence.tokens.largest_ok)  # of a larger cache nothing can be used
    floor = (1 - asked.history_share) * budget if asked.goal == "balanced" else 0.0
    if context is not None and own > context - answer:
        return min(own, max(1, context - answer))
    fitting = min(own, max(1, int(curve.at(own) * (1 - MARGIN)) - answer))
    failed = evidence.prefill.smallest_failed
    found = curve.longest(fitting, most if failed is None else min(most, failed - 1), floor, answer, MARGIN)
    failures = sum(each.failure is not None and each.failure.stage == "warm-up" for each in evidence.outcomes)
    if failed is None or (failures == 1 and len(curve.points) > 1 and found < failed - 1):
        return found
    held = max((each for each, _ in caches(evidence) if each < failed), default=failed // 2)
    return curve.longest(fitting, min(most, max(held, (held + failed) // 2)), floor, answer, MARGIN)


def flash_curve(evidence: Evidence, prior: Prior, guess: float | None = None) -> BudgetCurve:
    """T(P) as the starts told it. guess: tokens of cache that a prefill token takes where only one start told, and the
    model does not.
    """
    share = guess if prior.prefill_share is None else prior.prefill_share
    if any(each.setting.cuda_memory_fraction is not None for each in evidence.outcomes):
        share = prefill_cost(evidence, prior, COSTLY)
    return BudgetCurve.through(caches(evidence), None if share is None else -share)


def _is_better_without_prefix_cache(
    evidence: Evidence, started: EngineFacts, usable: int, prompt: int, total: int
) -> bool:
    """Whether a cached prompt can keep the next long one that begins like it out of the cache for ever: its lookup pins
    the whole cached leaf, whose blocks it then waits for (backends/v3/src/radix.rs). Or whether prompts are taken for
    cached that never were computed: without chunking one that does not fit into the running prefill is put back, and
    found in the cache the next time (backends/v3/src/queue.rs:344).
    """
    return has_prefix_cache(evidence) and (not started.chunking or prompt + total > usable or blocks_itself(evidence))


def _usable(evidence: Evidence, started: EngineFacts, prefill: int, fraction: float | None) -> int:
    """The smallest that any start with this prefill budget found: what differed once will differ again."""
    budgets = budgets_at(evidence, prefill, fraction)
    if not budgets and not started.chunking and fraction is None:
        return int(flash_curve(evidence, Prior()).at(prefill))
    budgets = budgets or [started.budget or 0]  # a smaller prefill leaves no less
    return min(replace(started, budget=budget).usable or 0 for budget in budgets)


def spread(evidence: Evidence, prefill: int | None, fraction: float | None) -> float:
    """How much the budget differed between equal starts, as a share."""
    budgets = budgets_at(evidence, prefill, fraction)
    return (max(budgets) - min(budgets)) / max(budgets) if budgets else 0.0


def _longest_total(evidence: Evidence, started: EngineFacts, prior: Prior, usable: int) -> tuple[int, str]:
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
    context = context_length(evidence, prior)
    if context is not None and context <= room:
        return context, CONTEXT
    return max(2, room), "KV memory"


def safe_prefill(prefill: int, total: int, history: int, usable: int) -> int:
    """TGI's warm-up lays ceil(prefill / input) chats of full length beside each other before it measures
    (backends/v3/src/client/grpc_client.rs:109); that must fit too.
    """
    if math.ceil(prefill / history) * (total - 1) > usable:
        prefill = min(prefill, history)
    return min(prefill, usable)
