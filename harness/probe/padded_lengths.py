"""Where a batch is as long as its longest prompt: which start tells most of how the budget falls with the length."""

from __future__ import annotations

from collections.abc import Callable

from harness.probe.padded_limits import own_length, padded_curve, padded_history
from harness.probe.padded_rows import FINE, SHARP, measured, padded_budgets
from harness.probe.row_cost import ALIKE
from harness.probe.state import SearchState

SURELY_UP = 1.05  # times a prompt, which must be left beside it where the budget falls fastest, to try it
FARTHER = 8  # times the longest prompt that came up: how far beyond it the first one to measure may be
TRIES = 2  # starts for one measurement
NEARLY = 0.95  # of the budget, which two chats of a length may take to measure it
HALF = 0.4  # of a history, that a load of two tells something about
LAW = 3  # measured lengths, that tell a parabola


def next_measurement(state: SearchState, history: int) -> int | None:
    """The longest prompt of the next start; None where the lengths that are known tell the history and how many chats
    of it fit.
    """
    evidence = state.evidence
    explored = [each for each in evidence.outcomes if each.setting.purpose == "explore" and each.loads]
    up = max(evidence.prefills_up, default=history)
    if not explored:
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
        return gap is not None and (gap <= closely or tried(length))

    if (by_share or may_cost) and 2 * own < NEARLY * curve.at(own) and not known(own):
        return own
    budgets = [each for each in padded_budgets(evidence) if each.is_sharp]
    sharp = sorted(each.length for each in budgets if each.gap <= closely or tried(each.longest))
    further = min(history, padded_history(evidence, asked, prior, answer, curve.steepest))
    if left >= 2 * (history + answer):
        if known(history):
            return None
        return history if curve.steepest.at(history) >= history * SURELY_UP else further
    # One chat: no load of two tells the budget beside it, so that it must follow from shorter ones.
    if not sharp or sharp[-1] < HALF * history:
        return further
    if len(sharp) < 2:
        return min(own, sharp[0] // 2)
    if len(sharp) >= LAW or further >= history * (1 - ALIKE):
        return None
    return sharp[0] // 2 if 2 * sharp[0] > sharp[-1] else (sharp[0] + sharp[-1]) // 2
