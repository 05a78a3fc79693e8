"""An engine whose batches are as long as their longest prompt: how much memory is left beside a prompt, and how many
chats of full length that holds.

What is kept is the number of chats times the length of the longest, so a single long prompt on top of short chats
weighs as much as if all were as long. Each start raises that product in small steps until it dies, which tells the
budget at one length; what that leaves possible at others is in padded_law.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.probe.curve import GUESSED_SLOPE
from harness.probe.evidence import Evidence
from harness.probe.fills import padded_steps
from harness.probe.padded_law import Bound, PaddedLaw, corners_of
from harness.probe.recommendation import MARGIN
from harness.probe.row_cost import ALIKE
from harness.probe.setting import Outcome, Setting, effective_prefill

SHARP = 0.0045  # share between what held and what died, up to which a budget is known well enough to count chats by it
NEAR = 0.03  # share by which a length may differ from one whose budget is known
BEYOND = 1.25  # times the length of which a start died, up to which it tells of one that it was laid out for
FINE = 0.003  # the same where a history ends at which the budget has fallen by a share
CLOSE = 0.0005  # of a budget that is known at nearly this length, left free beside how closely it is known
PROVED_LESS = 50  # which part of a number of chats that died in a proof is taken off, one at least


@dataclass(frozen=True)
class PaddedBudget:
    """What one start found. longest: prompt that it was laid out for. length: of the prompt that padded the batch when
    it died. read: of the one that was read on top. low and high: tokens of so long chats that held and that died.
    """

    longest: int
    length: int
    read: int
    low: int
    high: int

    @property
    def gap(self) -> float:
        return (self.high - self.low) / self.high

    @property
    def is_sharp(self) -> bool:
        return self.gap <= SHARP

    @property
    def middle(self) -> int:
        return (self.low + self.high) // 2


def padded_budgets(evidence: Evidence) -> list[PaddedBudget]:
    """One for each start that died of a long prompt on top of short ones; of two at one length the closer."""
    found: list[PaddedBudget] = []
    for outcome in evidence.outcomes:
        budget = _budget_of(outcome)
        if budget is None:
            continue
        same = [each for each in found if abs(each.length - budget.length) <= ALIKE * budget.length]
        if any(each.high - each.low < budget.high - budget.low for each in same):
            continue
        found = [*(each for each in found if each not in same), budget]
    return found


def _budget_of(outcome: Outcome) -> PaddedBudget | None:
    if outcome.setting.purpose == "verify":
        return None
    steps = [step for result in outcome.loads for step in padded_steps(result)]
    died = min((step for step in steps if not step.held), key=lambda step: step.size, default=None)
    if died is None:
        return None
    alone = [result.load.longest for result in outcome.loads if result.load.kind == "longest"]
    held = [*alone, *(step.size for step in steps if step.held)]
    low = max((size for size in held if size < died.size), default=0)
    longest = outcome.setting.max_input_tokens or effective_prefill(outcome) or died.length
    return PaddedBudget(longest, died.length, died.read, low, died.size)


def padded_law(evidence: Evidence, slope: float = GUESSED_SLOPE) -> PaddedLaw:
    """What may be left beside a prompt of any length, by all that held and died. slope: of the budget, where no more
    than one start has told of it.
    """
    budgets = padded_budgets(evidence)
    points = tuple((each.length, each.middle) for each in budgets)
    return PaddedLaw(corners_of(padded_bounds(evidence)), points, slope if len(points) < 2 else None)


def padded_bounds(evidence: Evidence) -> tuple[Bound, ...]:
    """What is left beside prompts, by all that held and died; what held in the order of the starts."""
    bounds = [Bound(length, least=tokens) for length, tokens in _held(evidence)]
    for each in padded_budgets(evidence):
        # A prompt that is shorter than those beside it may be padded to them when it is read, or when it joins them.
        bounds.append(Bound(each.length, most=each.high + each.length - each.read))
    if (failed := evidence.prefill.smallest_failed) is not None:
        bounds.append(Bound(failed, most=failed))
    for died in _died(evidence):
        if died.most_at_once == 1 and died.max_input_tokens and died.max_total_tokens:
            bounds.append(Bound(died.max_input_tokens, most=died.max_total_tokens))
    return tuple(bounds)


def _held(evidence: Evidence) -> list[tuple[int, int]]:
    """(length of a prompt that was read, tokens that held beside it), of one chat alone and of several, but for those
    that another says too which is not older.
    """
    kept: list[tuple[int, int]] = []
    for outcome in reversed(evidence.outcomes):
        alone = [each.load for each in outcome.loads if each.load.kind == "longest" and each.verdict == "held"]
        steps = [step for result in outcome.loads for step in padded_steps(result) if step.held]
        found = {(load.longest, load.longest) for load in alone} | {(step.read, step.size) for step in steps}
        for length, tokens in sorted(found, reverse=True):
            if not any(longer >= length * (1 - ALIKE) and more >= tokens for longer, more in kept):
                kept.append((length, tokens))
    return kept[::-1]


def measured(evidence: Evidence, length: int) -> float | None:
    """How closely the budget is known at this length, by hardly another or by some on both sides; None where not."""
    sharp = [each for each in padded_budgets(evidence) if each.is_sharp]
    near = [
        each.gap
        for each in sharp
        if each.length * (1 - NEAR) <= length <= min(each.longest, BEYOND * each.length) * (1 + NEAR)
    ]
    if near:
        return min(near)
    below = [each.gap for each in sharp if each.length <= length]
    above = [each.gap for each in sharp if each.length >= length]
    return max(min(below), min(above)) if below and above and len(sharp) > 2 else None


def rows_at(evidence: Evidence, length: int, total: int) -> int | None:
    """Chats of so many tokens in all, with a prompt of this length, that fit beside each other while the last of them
    is read; None where nothing is known.
    """
    law = padded_law(evidence)
    if not law.points:
        return None
    gap = measured(evidence, length)
    left = law.at(length) * (1 - (MARGIN if gap is None else gap / 2 + CLOSE))
    died = [each.most_at_once for each in _died(evidence) if (each.max_total_tokens or 0) <= total * (1 + ALIKE)]
    fewer = [rows - max(1, rows // PROVED_LESS) for rows in died]
    return max(1, min([int(left // total), *fewer]))


def lone_chat_died(evidence: Evidence) -> int | None:
    """The shortest of the longest prompts with which one chat alone died in a proof."""
    return min((each.max_input_tokens or 1 for each in _died(evidence) if each.most_at_once == 1), default=None)


def _died(evidence: Evidence) -> list[Setting]:
    """Recommendations of which an engine died."""
    return [each.setting for each in evidence.outcomes if each.setting.purpose == "verify" and each.died_under_load]
