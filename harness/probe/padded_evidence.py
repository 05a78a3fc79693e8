"""What loads have shown of an engine that checks no memory: budgets over the longest prompt, and what a chat costs."""

from __future__ import annotations

from harness.probe.evidence import Evidence
from harness.probe.fills import FillPoint
from harness.probe.setting import Bracket, Outcome, effective_prefill

SAME_SIZE = 0.002  # share by which two loads of one size may differ
ALIKE = 0.01  # share by which prompt lengths may differ to count as the same
KNOWN = 0.02  # share between what held and what died, below which a budget is known


def pads_batch(evidence: Evidence) -> bool:
    """Whether a long prompt makes its whole batch as long: a batch died that was small by its sum of tokens."""
    return evidence.area.smallest_failed is not None


def ignores_batch_size(evidence: Evidence) -> bool:
    """Whether more chats ran beside each other than the batch was to have."""
    return any(ignored_batch_size(each) for each in evidence.outcomes)


def ignored_batch_size(outcome: Outcome) -> bool:
    """The same of one start."""
    most = outcome.setting.max_batch_size
    return most is not None and any((each.beside or 0) > most for each in outcome.loads)


def at_length(evidence: Evidence, length: int, *, crowded: bool = True) -> Bracket:
    """Budgets that held and that died with a longest prompt of this length. What held with a longer one, or died
    with a shorter one, counts too: an engine that is allowed a length may be sent any shorter one.

    crowded: loads of as many chats as would be let in count too, each of which may cost something by itself.
    """
    points = [each for each in evidence.fill_points if crowded or not each.crowd]
    failed = [each for each in points if each.died and each.longest <= length * (1 + ALIKE)]
    worst = min(failed, key=lambda each: each.died or 0, default=None)
    held = [
        each.held
        for each in points
        if each.held and _is_as_bad(each, worst, length) and (worst is None or each.size < worst.size * (1 - SAME_SIZE))
    ]
    return Bracket.of(held, [(worst.died or 0, worst.how or "")] if worst else [])


def dies_of_crowds(evidence: Evidence) -> bool:
    """Whether as many chats as would be let in killed it at a size at which few of them held."""
    held = max((each.held or 0 for each in evidence.fill_points if not each.crowd), default=0)
    return any(
        each.died is not None and each.crowd and each.died <= held * (1 + KNOWN) for each in evidence.fill_points
    )


def chats_may_cost(evidence: Evidence) -> bool:
    """Whether many chats killed it, at a size at which few of them held or at whatever size."""
    return evidence.rows.smallest_failed is not None or dies_of_crowds(evidence)


def full_length_rows(evidence: Evidence, length: int) -> int | None:
    """Chats of this length, all equally long, that held at once: one where two died; None where nobody tried."""
    held = [each for each in evidence.fill_points if each.held and each.longest >= length * (1 - ALIKE)]
    died = [
        each.rows
        for each in evidence.fill_points
        if each.died and each.longest <= length * (1 + ALIKE) and not each.crowd
    ]
    most = max((each.rows for each in held if each.rows < min(died, default=each.rows + 1)), default=None)
    return 1 if most is None and 2 in died else most


def budget_points(evidence: Evidence) -> list[tuple[int, int]]:
    """(longest prompt, budget) in the order of the starts, for each length that one of them was laid out for; with
    as many chats as would be let in where these kill first, else with few.
    """
    crowded = chats_may_cost(evidence)
    seen = [each for each in evidence.fill_points if crowded or not each.crowd]
    points = []
    for length in dict.fromkeys(each.longest for each in seen if each.length > 1):
        bracket = at_length(evidence, length, crowded=crowded)
        low, high = bracket.largest_ok, bracket.smallest_failed
        here = any(each.died and each.longest == length for each in seen)
        if low is not None and high is not None and here:
            points.append((length, low if (bracket.gap or 0) < KNOWN else (low + high) // 2))
        elif high is not None and here:
            points.append((length, max(length, int(high * 0.95))))
        elif low is not None and (high is None or high * (1 - KNOWN) <= low):
            points.append((length, low))
    return points


def queues(evidence: Evidence) -> bool:
    """Whether an engine carried far less at once than it was sent, twice, and lived: it knows a budget, though it
    tells none. Of many chats, or of such with a short prompt, some may have ended before the last were read.
    """
    short = [
        result
        for each in evidence.outcomes
        for result in each.loads
        if result.load.kind == "fill"
        and each.setting.purpose != "verify"
        and result.load.chats is None
        and result.load.rows > 1
        and result.load.closing >= result.load.longest
        and result.verdict == "held"
        and result.carried is not None
        and result.carried < 0.6 * result.load.size
    ]
    return len(short) > 1


def prefills_up(evidence: Evidence) -> list[int]:
    """Prefill budgets with which the engine came up."""
    return [prefill for each in evidence.outcomes if each.came_up and (prefill := effective_prefill(each)) is not None]


def _is_as_bad(held: FillPoint, worst: FillPoint | None, length: int) -> bool:
    """Whether what held says anything of what killed: few chats prove nothing for many that each cost something, nor a
    long prompt for several shorter ones in one prefill.
    """
    if worst is not None and worst.crowd:
        return held.crowd and held.rows >= worst.rows and held.length >= length * (1 - ALIKE)
    if worst is not None and 1 < worst.length < worst.longest * (1 - ALIKE):
        return not held.crowd and abs(held.length - worst.length) <= ALIKE * worst.length
    return not held.crowd and held.length >= length * (1 - ALIKE)
