"""Where a batch is as long as its longest prompt: which start tells most of how the budget falls with the length."""

from __future__ import annotations

import math
from collections.abc import Callable

from harness.probe.padded_law import Bound, PaddedLaw, corners_of
from harness.probe.padded_limits import own_length, padded_curve, padded_history
from harness.probe.padded_rows import FINE, NEAR, SHARP, measured, padded_bounds, padded_budgets, padded_law
from harness.probe.row_cost import ALIKE
from harness.probe.stairs import PAIR
from harness.probe.state import SearchState

SURELY_UP = 1.05  # times a prompt, which must be left beside it where the budget falls fastest, to try it
FARTHER = 8  # times the longest prompt that came up: how far beyond it the first one to measure may be
TRIES = 2  # starts for one measurement
NEARLY = 0.95  # of the budget, which two chats of a length may take to measure it
KNOWN = 1.03  # times the shortest that the longest history may be, as far as it need be known
BENT = 0.02  # share of the budget at a length, by which laws through what is known nearby may differ
TOLD = 2 * SHARP  # share between what held and what died, up to which trying a length again tells nothing more
MIDDLE = 1 / 3  # power of what is unsure, left after a prompt in the middle: where that comes up, a budget is told too


def next_measurement(state: SearchState, history: int) -> int | None:
    """The longest prompt of the next start; None where the lengths that are known tell the history and how many chats
    of it fit.
    """
    evidence = state.evidence
    explored = [each for each in evidence.outcomes if each.setting.purpose == "explore" and each.loads]
    up = max(evidence.prefills_up, default=history)
    if not explored and evidence.prefill.smallest_failed is None:
        return min(history, int(FARTHER * up))
    sizes = [each.setting.max_input_tokens or 0 for each in explored]

    def tried(length: int) -> bool:
        return sum(abs(each - length) <= ALIKE * length for each in sizes) >= TRIES

    wanted = _wanted(state, history, tried)
    return None if wanted is None or tried(wanted) else wanted


def _wanted(state: SearchState, history: int, tried: Callable[[int], bool]) -> int | None:
    evidence, asked, prior, answer = state.evidence, state.asked, state.prior, state.answer
    own, most = own_length(evidence, prior, answer)
    curve = padded_curve(evidence, prior)
    left = curve.at(history)
    by_share = asked.goal == "balanced" and own < history < most * (1 - ALIKE) and history + answer < left * (1 - ALIKE)
    shorter = [each.high for each in padded_budgets(evidence) if each.length < history]
    may_cost = asked.goal == "balanced" and own < history and left < (1 - asked.history_share) * max(shorter, default=0)
    closely = FINE if by_share else SHARP

    def known(length: int) -> bool:
        gap = measured(evidence, length)
        least, largest = padded_law(evidence).span(length)
        return gap is not None and ((gap <= closely and largest - least <= BENT * largest) or tried(length))

    if (by_share or may_cost) and 2 * own < NEARLY * curve.at(own) and not known(own):
        return own
    further = min(history, padded_history(evidence, asked, prior, answer, curve.steepest))
    if left >= 2 * (history + answer):
        if known(history):
            return None
        return history if curve.steepest.at(history) >= history * SURELY_UP else further
    return _to_tell_the_longest(state, most)


def _to_tell_the_longest(state: SearchState, most: int) -> int | None:
    """Where one chat is all that fits, no load of two tells the budget beside it: how far it reaches follows from
    shorter ones, and from prompts that are too long for the warm-up. The next one is the length whose budget would tell
    most, or lies in the middle of what may come up where that tells more; None where the history is known.
    """
    bounds, budgets = padded_bounds(state.evidence), padded_budgets(state.evidence)
    law = PaddedLaw(corners_of(bounds))
    low, high = _within(law, state.answer, most)
    if high <= low * KNOWN:
        return None
    up, down = (min(each, most) for each in law.longest())
    best, unsure = math.sqrt(up * down), (high / low) ** MIDDLE
    rows, shortest = PAIR, min(each.length for each in budgets)
    while (length := sum(law.longest(rows=rows)) / 2) > shortest:
        new = not any(abs(length - each.length) <= NEAR * length for each in budgets if each.gap <= TOLD)
        if new and length <= low and (then := _unsure_with(bounds, length, state.answer, most)) < unsure:
            best, unsure = min(low, length * (1 + NEAR)), then
        rows += math.ceil(rows / 2)
    return int(best)


def _unsure_with(bounds: tuple[Bound, ...], length: float, answer: int, most: int) -> float:
    """How many times the shortest the longest history could still be at worst, if the budget at this length were known
    as closely as a start tells it.
    """
    ratios = []
    least, largest = PaddedLaw(corners_of(bounds)).span(length)
    for left in (least, (least + largest) / 2, largest):
        told = Bound(int(length), left * (1 - SHARP / 2), left * (1 + SHARP / 2))
        low, high = _within(PaddedLaw(corners_of((*bounds, told))), answer, most)
        ratios.append(high / low)
    return max(ratios)


def _within(law: PaddedLaw, answer: int, most: int) -> tuple[float, float]:
    """The longest prompt at least and at most, up to so many tokens; one where its answer leaves room for none."""
    low, high = law.longest(answer)
    return max(1.0, min(low, most)), max(1.0, min(high, most))
