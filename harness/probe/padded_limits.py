"""Limits for an engine that checks no memory, so that its budget is what survived under load."""

from __future__ import annotations

import math

from harness.engines.base import EngineFacts
from harness.probe.curve import BudgetCurve
from harness.probe.evidence import Evidence
from harness.probe.padded_evidence import (
    ALIKE,
    at_length,
    budget_points,
    full_length_rows,
    ignores_batch_size,
    pads_batch,
    prefills_up,
)
from harness.probe.reasons import padded_flags
from harness.probe.recommendation import (
    CONTEXT,
    MARGIN,
    OWN_DEFAULT,
    PIECE,
    UNSURE,
    Recommendation,
    context_length,
    short_chats,
)
from harness.probe.setting import Prior, ProbeGoal, Setting, effective_prefill

NEAR_FLOOR = 0.012  # of a budget: as closely as it is worth knowing where a history was to end


def padded_limits(
    evidence: Evidence, started: EngineFacts, wish: ProbeGoal, knowledge: Prior, answer: int, fast_rows: int | None
) -> Recommendation:
    history = padded_history(evidence, wish, knowledge, answer)
    bound = at_length(evidence, history)
    context = context_length(evidence, knowledge) or default_total(evidence)
    capacity = padded_capacity(evidence, knowledge, history, answer)
    total = min(each for each in (history + answer, context, capacity) if each)
    history = max(1, min(history, total - answer if total > answer else total // 2))
    chats = padded_permits(evidence, capacity, total, answer, wish, fast_rows)
    # A long prompt makes its batch as long: so many chats may run, and where the engine heeds it the others may wait.
    batch = chats if pads_batch(evidence) and not ignores_batch_size(evidence) else None
    setting = Setting(
        max_input_tokens=history,
        max_total_tokens=total,
        max_batch_prefill_tokens=history,
        max_batch_total_tokens=max(capacity, total),
        max_concurrent_requests=max(chats, OWN_DEFAULT) if batch else chats,
        max_batch_size=batch,
        purpose="verify",
    )
    bound_by = CONTEXT if context and total == context else "the memory of one prefill" if bound.largest_ok else PIECE
    return Recommendation(
        setting, padded_flags(setting, evidence, bound_by), history, answer, setting.max_batch_total_tokens, bound_by
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
        held = max((each for each in prefills_up(evidence) if each < failed), default=failed // 2)
        most = max(held, min(int(failed * 0.99), (held + failed) // 2))
    floor = (1 - wish.history_share) * curve.at(own) if wish.goal == "balanced" else 0.0
    fitting = min(own, max(1, int(curve.at(own)) - answer))
    best = curve.longest(fitting, most, floor, answer, MARGIN)
    # A length that was tried will do where the budget there is the wanted one as closely as it can be known.
    tried = [
        length
        for length, tokens in budget_points(evidence)
        if length <= most
        and length + answer <= tokens
        and tokens >= floor * (1 - NEAR_FLOOR)
        and (length >= best or tokens <= floor * (1 + NEAR_FLOOR) or tokens - length - answer <= NEAR_FLOOR * length)
    ]
    # One just below the best is as good, and its budget is known; what was found there does not hold above it.
    near = [length for length, _ in budget_points(evidence) if best * (1 - ALIKE) <= length <= best]
    return max(tried, default=max(near, default=best))


def padded_curve(evidence: Evidence, knowledge: Prior) -> BudgetCurve:
    """T over the longest prompt, as the loads of the starts so far found it."""
    share = knowledge.prefill_share
    return BudgetCurve.through(budget_points(evidence), None if share is None else -share)


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
    bracket = at_length(evidence, history)
    if pads_batch(evidence) and (rows := full_length_rows(evidence, history)) is not None:
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
    if pads_batch(evidence):
        chats = full_length_rows(evidence, total - answer) or max(1, capacity // total)
        return min(chats, fast_rows) if wish.goal == "latency" and fast_rows else chats
    return short_chats(evidence, capacity, answer, wish, fast_rows)
