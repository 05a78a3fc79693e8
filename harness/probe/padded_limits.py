"""Limits for an engine that checks no memory: its budget is what survived under load."""

from __future__ import annotations

import math
from collections.abc import Callable

from harness.engines.base import EngineFacts
from harness.probe.curve import GUESSED_SLOPE, BudgetCurve
from harness.probe.evidence import Evidence
from harness.probe.loads import ROWS_CAP, SHORT
from harness.probe.padded_evidence import (
    at_length,
    budget_points,
    few_chats,
    ignores_batch_size,
    left_beside,
    pads_batch,
    proofs,
    rows_carried,
)
from harness.probe.padded_law import PaddedLaw
from harness.probe.padded_rows import lone_chat_died, padded_law, rows_at
from harness.probe.reasons import padded_flags
from harness.probe.recommendation import (
    CONTEXT,
    DEFAULT_PREFILL,
    MARGIN,
    OWN_DEFAULT,
    PIECE,
    UNSURE,
    Recommendation,
    context_length,
    own_prefill,
    short_chats,
)
from harness.probe.row_cost import ALIKE
from harness.probe.setting import Goal, Prior, ProbeGoal, Setting

SAME = 0.001  # of a load's tokens, by which one that held may weigh more than one that died
LESS = 0.985  # of a prompt with which one chat alone died in a proof


def padded_limits(
    evidence: Evidence, started: EngineFacts, asked: ProbeGoal, prior: Prior, answer: int, fast_rows: int | None
) -> Recommendation:
    history = padded_history(evidence, asked, prior, answer)
    bound = at_length(evidence, history)
    context = context_length(evidence, prior) or default_total(evidence)
    capacity = padded_capacity(evidence, asked, prior, history, answer)
    total = min(each for each in (history + answer, context, capacity) if each)
    history = max(1, min(history, total - answer if total > answer else total // 2))
    chats = padded_concurrency(evidence, prior, capacity, total, answer, asked, fast_rows)
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


def own_length(evidence: Evidence, prior: Prior, answer: int, goal: Goal = "history") -> tuple[int, int]:
    """The longest prompt that the engine's own prefill budget allows, or the one that this goal began with, and the
    longest that its context does.
    """
    first = next(each for each in evidence.outcomes if each.came_up)
    told = first.started.max_total_tokens if first.started else None
    own = own_prefill(evidence, goal) or told or DEFAULT_PREFILL
    context = context_length(evidence, prior) or default_total(evidence) or own + answer
    most = max(1, context - answer if context > answer else context // 2)
    return min(own, most), most


def padded_history(
    evidence: Evidence, asked: ProbeGoal, prior: Prior, answer: int, curve: BudgetCurve | PaddedLaw | None = None
) -> int:
    """The longest prompt that the goal allows, by all budgets that were found at lengths tried so far, or by a curve
    through them.
    """
    own, most = own_length(evidence, prior, answer, asked.goal)
    curve = curve or padded_curve(evidence, prior)
    if not curve.points:
        return own
    budget = _budget_at(evidence, asked, curve, answer)
    if asked.goal in ("chats", "latency"):
        return longest_within(budget, own, 0.0, answer)
    failed = evidence.prefill.smallest_failed
    if failed is not None and failed <= most:
        held = max((each for each in evidence.prefills_up if each < failed), default=failed // 2)
        last = asked.max_starts - evidence.starts <= proofs(evidence)  # it is for the proof
        if pads_batch(evidence):
            most = max(held, _surely_longest(evidence, answer)) if last else int(failed * 0.99)
        elif last:
            most = held
        else:
            most = max(held, min(int(failed * 0.99), _below_failure(evidence, asked, curve, answer, held, failed)))
    if pads_batch(evidence) and (died := lone_chat_died(evidence)) is not None:
        most = min(most, int(LESS * died))
    floor = (1 - asked.history_share) * budget(own) if asked.goal == "balanced" else 0.0
    if pads_batch(evidence):
        law = padded_law(evidence)
        most = most if law.slope is not None else min(most, int(law.likely_longest(answer)))
        return longest_within(budget, most, min(floor, budget(1)), answer, MARGIN / 2)
    best = longest_within(budget, most, min(floor, budget(1)), answer)
    # One just below it is as good, and its budget is known; what was found there does not hold above it.
    near = [length for length, _ in budget_points(evidence) if best * (1 - ALIKE) <= length <= best]
    return max(near, default=best)


def _surely_longest(evidence: Evidence, answer: int) -> int:
    """The longest prompt that every law admits which agrees with what was found; less where a proof failed by them."""
    wrong = evidence.last is not None and evidence.last.setting.purpose == "verify"
    return int(padded_law(evidence).longest(answer)[0] * (UNSURE if wrong else 1))


def _below_failure(
    evidence: Evidence, asked: ProbeGoal, curve: BudgetCurve | PaddedLaw, answer: int, held: int, failed: int
) -> int:
    """A prompt to try between one that held and one that failed: where two lengths have told how the budget falls, what
    it would be if it fell with the square alone, which is the fastest; else one in the middle, which tells it.
    """
    middle = (held + failed) // 2
    if len(curve.points) < 2:
        return middle
    steep = longest_within(_budget_at(evidence, asked, curve.steepest, answer), failed, 0.0, answer)
    return steep if held * (1 + ALIKE) < steep < failed * (1 - ALIKE) else middle


def longest_within(budget: Callable[[int], float], most: int, floor: float, answer: int, margin: float = MARGIN) -> int:
    """The longest prompt with which the budget is at least `floor` and holds the prompt and its answer, and a margin as
    a share of it.
    """
    low, high = 1, max(1, most)
    while low < high:
        middle = (low + high + 1) // 2
        if (left := budget(middle)) >= floor and middle + answer <= left * (1 - margin):
            low = middle
        else:
            high = middle - 1
    return low


def _budget_at(
    evidence: Evidence, asked: ProbeGoal, curve: BudgetCurve | PaddedLaw, answer: int
) -> Callable[[int], float]:
    """The budget over the longest prompt. One chat alone bounds the history where nothing but that is asked for; else
    as many chats as are let in take their part of the memory first.
    """
    cost = evidence.row_cost.likely
    if asked.goal == "history":
        return lambda length: curve.at(length) - cost
    return lambda length: shared(curve.at(length), cost, answer)


def shared(memory: float, cost: float, answer: int) -> float:
    """The budget that is left of so many tokens where each chat of those that it lets in costs some."""
    return max(memory / (1 + cost / (answer + SHORT)), memory - cost * ROWS_CAP)


def padded_curve(evidence: Evidence, prior: Prior) -> BudgetCurve | PaddedLaw:
    """Tokens that are left beside the longest prompt, as the loads of the starts so far found them."""
    share = prior.prefill_share
    if pads_batch(evidence):
        return padded_law(evidence, GUESSED_SLOPE if share is None else -share)
    return few_curve(evidence, prior)


def few_curve(evidence: Evidence, prior: Prior, cost: float | None = None) -> BudgetCurve:
    """The same by few chats and what they cost by themselves, if need be as is likely."""
    share = prior.prefill_share
    return BudgetCurve.through(budget_points(evidence, cost), None if share is None else -share)


def default_total(evidence: Evidence) -> int | None:
    """The total that a padded engine chose itself, beyond which nothing is known of the model's context."""
    totals = [
        each.started.max_total_tokens
        for each in evidence.outcomes
        if each.came_up and each.setting.max_total_tokens is None and each.started and each.started.max_total_tokens
    ]
    return max(totals, default=None)


def padded_capacity(evidence: Evidence, asked: ProbeGoal, prior: Prior, history: int, answer: int) -> int:
    """Tokens in flight that survived every load with prompts of this length, less a margin for memory that differs from
    start to start. Where no load was sent, what the memory model expects, and without one the engine's own default.
    """
    if pads_batch(evidence) and (rows := rows_at(evidence, history, history + answer)) is not None:
        return rows * (history + answer)
    if not evidence.fill_points:
        return int((prior.budget or 16000) * 0.8)
    if evidence.row_cost.least > 0:
        capacity = int(budget_between(evidence, prior, history, answer)[0])
        alone = int(alone_between(evidence, prior, history)[0])
        # The longest history of all leaves room for one chat of that length at least, and for others what that leaves.
        return max(2, capacity if asked.goal != "history" else max(capacity, min(alone, history + answer)))
    few = few_chats(evidence, history)
    if few.largest_ok is None:
        guess = padded_curve(evidence, prior).at(history)
        by_few = min(int(guess * UNSURE), few.smallest_failed or int(guess))
    elif few.smallest_failed is None:
        by_few = few.largest_ok
    else:
        by_few = math.floor(few.largest_ok * (1 - MARGIN / 2))
    return max(2, by_few)


def budget_between(evidence: Evidence, prior: Prior, history: int, answer: int) -> tuple[float, float]:
    """The least and the most that the budget can be where each of the chats that it lets in costs something."""
    return _between_costs(evidence, prior, history, lambda left, cost: shared(left, cost, answer))


def alone_between(evidence: Evidence, prior: Prior, history: int) -> tuple[float, float]:
    """The same of one chat by itself."""
    return _between_costs(evidence, prior, history, lambda left, cost: left - cost)


def _between_costs(
    evidence: Evidence, prior: Prior, history: int, figure: Callable[[float, float], float]
) -> tuple[float, float]:
    """The least and the most that a figure can be, of the memory that is left beside a prompt and of what a chat costs,
    whatever that is.
    """
    bounds = []
    for cost in evidence.row_cost.possible:
        curve = few_curve(evidence, prior, cost)
        held, died = left_beside(evidence, history, cost, curve, MARGIN / 2)
        expected = curve.at(history)
        low = held if held and died < math.inf else max(held, expected * (1 - MARGIN))
        low, high = min(low, died), max(low, min(died, expected))
        bounds.append((held / died, figure(low, cost), figure(high, cost)))
    # Loads that contradict each other, if a chat costs so much, say that it does not.
    likely = max(1.0, min(apart for apart, _, _ in bounds)) + SAME
    possible = [(low, high) for apart, low, high in bounds if apart <= likely]
    return min(low for low, _ in possible), max(high for _, high in possible)


def padded_concurrency(
    evidence: Evidence, prior: Prior, capacity: int, total: int, answer: int, asked: ProbeGoal, fast_rows: int | None
) -> int:
    """Chats at once with so many tokens in flight. Where a long prompt makes the whole batch as long, only their number
    bounds the memory; where each chat costs something, no more than can have a whole answer.
    """
    if pads_batch(evidence):
        chats = rows_at(evidence, total - answer, total) or max(1, capacity // total)
        return min(chats, fast_rows) if asked.goal == "latency" and fast_rows else chats
    chats = short_chats(evidence, capacity, answer, asked, fast_rows)
    cost, carried = evidence.row_cost, rows_carried(evidence, total - answer, capacity)
    if cost.least <= 0:
        if asked.goal != "history" or carried.smallest_failed is None:
            return chats
        return min(chats, max(1, carried.largest_ok or 1))
    most = min(ROWS_CAP, capacity // (answer + SHORT), fast_rows if asked.goal == "latency" and fast_rows else ROWS_CAP)
    if asked.goal == "history" and capacity <= total:  # one whole chat; the others get what it leaves
        left, _ = _between_costs(
            evidence, prior, total - answer, lambda left, cost: (left - capacity) / max(cost, 1e-9)
        )
        most = min(most, int(left))
        if cost.most is None:  # nothing tells yet how much dearer than that a chat is
            died = [each.rows for each in evidence.fill_points if each.crowd and each.died]
            most = min(most, carried.largest_ok or min(died, default=2) // 2)
    return max(1, most)
