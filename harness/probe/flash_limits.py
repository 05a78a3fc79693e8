"""Limits for a flash engine: its log tells the token budget T, which falls as the prefill budget P grows."""

from __future__ import annotations

import math
from dataclasses import replace

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
from harness.probe.reasons import flash_flags
from harness.probe.recommendation import CONTEXT, MARGIN, PIECE, UNSURE, Recommendation, context_length, short_chats
from harness.probe.setting import CHUNK, Prior, ProbeGoal, Setting, effective_prefill

SURE_OF_CARRIED = 0.99  # of the tokens that were carried where more of them killed it
WORTH_A_FRACTION = 0.015  # of a budget, before another memory fraction is tried
NEARLY_FULL = 0.9
CHANCE = 0.03  # share by which free memory differs between starts without a reason
LEAST_SAFE_PREFILL = 256


def flash_limits(
    evidence: Evidence, started: EngineFacts, wish: ProbeGoal, knowledge: Prior, answer: int, fast_rows: int | None
) -> Recommendation:
    last = evidence.last_up
    assert last is not None
    prefill = effective_prefill(last) or 4096
    if not started.chunking:
        prefill = unchunked_prefill(evidence, wish, knowledge, answer)
    if (deadly := deadly_prefill(evidence)) is not None:
        prefill = min(prefill, max(LEAST_SAFE_PREFILL, deadly // 2))
    fraction = last.setting.cuda_memory_fraction
    usable = _usable(evidence, started, prefill, fraction)
    total, bound_by = _longest_total(evidence, started, knowledge, usable)
    if not started.chunking and total - answer > prefill:
        total, bound_by = prefill + answer, PIECE
    chats = short_chats(evidence, usable, answer, wish, fast_rows)
    carried = evidence.tokens.largest_ok or usable // 2
    if dies_when_full(evidence):  # then nothing but the number of chats keeps the last blocks free
        fraction = None
        usable = max(usable, max((tokens for _, tokens in caches(evidence)), default=usable))
        most = int(share_that_held(evidence) * usable)
        total = min(most, context_length(evidence, knowledge) or most)
        chats = min(chats, max(1, most // total))
        bound_by = "the last blocks of the KV cache, of which the engine died"
    elif evidence.tokens.smallest_failed is not None and usable > carried:
        if ignores_fraction(evidence):  # then the permits must bound what is in flight
            fraction = None
            total = (
                min(total, carried)
                if share_that_held(evidence) > NEARLY_FULL
                else min(total, prefill + answer, carried)
            )
            chats = min(chats, max(1, carried // total))
        elif fraction is None:
            fraction = _smaller_fraction(evidence, usable, knowledge)
            usable = min(usable, int(carried * SURE_OF_CARRIED))
            # What the fraction leaves is a guess until a start has told; the next one goes to its edge.
            total = min(total, int(usable * UNSURE))
            chats = short_chats(evidence, usable, answer, wish, fast_rows)
    if (
        fraction is not None
        and evidence.tokens.smallest_failed is not None
        and (better := _fraction_between(evidence, prefill, carried)) is not None
    ):
        fraction, usable = better, int(carried * SURE_OF_CARRIED)
        total = int(min(carried * SURE_OF_CARRIED, context_length(evidence, knowledge) or usable) * (1 - MARGIN))
        chats = short_chats(evidence, usable, answer, wish, fast_rows)
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
    flags = flash_flags(setting, started, bound_by, usable, wish, evidence)
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
        held = max((each for each, _ in caches(evidence) if each < failed), default=failed // 2)
        most = min(most, max(held, (held + failed) // 2))
    floor = (1 - wish.history_share) * curve.at(own) if wish.goal == "balanced" else 0.0
    if context is not None and own > context - answer:
        return min(own, max(1, context - answer))
    fitting = min(own, max(1, int(curve.at(own) * (1 - MARGIN)) - answer))
    return curve.longest(fitting, most, floor, answer, MARGIN)


def flash_curve(evidence: Evidence, knowledge: Prior) -> BudgetCurve:
    """T(P) as the starts told it."""
    share = knowledge.prefill_share
    return BudgetCurve.through(caches(evidence), None if share is None else -share)


def _may_block_itself(evidence: Evidence, usable: int, prompt: int, total: int) -> bool:
    """Whether a cached prompt can keep the next long one that begins like it out of the cache for ever: its lookup pins
    the whole cached leaf, whose blocks it then waits for (backends/v3/src/radix.rs).
    """
    return has_prefix_cache(evidence) and (prompt + total > usable or blocks_itself(evidence))


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
