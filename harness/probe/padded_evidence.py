"""What loads have shown of an engine that checks no memory: budgets over the longest prompt, and a chat's own cost.

The law that they are read by: what is in flight, so many tokens more for each chat, and what reading the prompts takes
are together at most the memory. Few chats tell what is left beside a prompt, many tell what a chat costs.
"""

from __future__ import annotations

import math

from harness.probe.curve import BudgetCurve
from harness.probe.evidence import Evidence
from harness.probe.fills import FillPoint
from harness.probe.loads import PARTS
from harness.probe.row_cost import ALIKE, TOLD_BY, read_at_once
from harness.probe.setting import Bracket, Outcome

KNOWN = 0.02  # share between what held and what died, below which a budget is known
AS_MANY = 0.9  # of the chats that died, with which a load that held can be compared
NEARLY = 0.9  # of a prompt, that is as bad where much else is in flight
LIKELY = 0.97  # of what killed, where nothing just below it was tried


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


def few_chats(evidence: Evidence, length: int) -> Bracket:
    """Tokens in few chats that held and that died with a longest prompt of this length. What held with a longer one,
    or died with a shorter one, counts too: an engine that is allowed a length may be sent any shorter one.

    Several shorter prompts in one prefill count by themselves: memory need not grow steadily with the length.
    """
    points = [each for each in evidence.fill_points if not each.crowd and each.length > 1]
    failed = [each for each in points if each.died and each.longest <= length * (1 + ALIKE)]
    worst = min(failed, key=lambda each: each.died or 0, default=None)
    below = float("inf") if worst is None else worst.died or 0
    held: dict[float, int] = {}
    for each in points:
        if not each.held or each.held >= below or each.longest < length * (1 - ALIKE):
            continue
        kind = parts(each)
        if each.length >= length * (1 - ALIKE) if kind == 1 else each.longest <= length * (1 + ALIKE):
            held[kind] = max(each.held, held.get(kind, 0))
    largest = held.get(1, 0)
    if worst is not None and parts(worst) in held and abs(worst.longest - length) <= ALIKE * length:
        largest = held[parts(worst)]
    return Bracket(largest or None, *((None, None) if worst is None else (worst.died, worst.how)))


def left_beside(evidence: Evidence, length: int, cost: float, curve: BudgetCurve, margin: float) -> tuple[float, float]:
    """Tokens beside a prompt of this length that held at most and that died at least, 0 and infinite where none did, of
    few chats and of many with what they cost by themselves, so that several shorter prompts weigh more than one. The
    first is above the second where a chat cannot cost so much, or not so little.

    What many carried beside other prompts counts as if it had been beside this one, by a curve that few have told.
    margin: share of what few held to be left out; each of many has a token still to write, which is a margin too.
    """
    known = len(curve.points) >= TOLD_BY

    def weight(each: FillPoint, tokens: float) -> float:
        moved = curve.at(length) - curve.at(read_at_once(each)) if known and each.crowd else 0.0
        return tokens + cost * each.rows + moved

    points = [each for each in evidence.fill_points if each.length > 1]
    held = (
        weight(each, each.held * (1 if each.crowd else 1 - margin))
        for each in points
        if each.held and ((known and each.crowd) or each.length >= length * (1 - ALIKE))
    )
    died = (
        weight(each, each.died)
        for each in points
        if each.died and ((known and each.crowd) or each.longest <= length * (1 + ALIKE))
    )
    return max(held, default=0.0), min(died, default=math.inf)


def is_bracketed(evidence: Evidence, length: int) -> bool:
    """Whether few chats held just below where few died, with whatever prompts."""
    died = few_chats(evidence, length).smallest_failed
    points = [each for each in evidence.fill_points if not each.crowd and each.longest >= length * (1 - ALIKE)]
    return died is not None and any(each.held and died * (1 - KNOWN) < each.held < died for each in points)


def parts(point: FillPoint) -> float:
    """Prompts in one prefill, as nearly as one of the numbers that are tried."""
    ratio = point.longest / max(1, point.length)
    return min((1.0, *PARTS), key=lambda each: abs(each - ratio))


def deadly_parts(evidence: Evidence) -> float:
    """Prompts in one prefill with which few chats died in the last start in which they did."""
    died = [each for each in evidence.fill_points if each.died and not each.crowd and each.length > 1]
    return parts(died[-1]) if died else 1.0


def many_chats(evidence: Evidence, length: int) -> Bracket:
    """The same of as many chats as would be let in, which may each cost something by itself: what held counts where
    about as many chats were in it as in what died.
    """
    points = [each for each in evidence.fill_points if each.crowd and each.length > 1]
    failed = [each for each in points if each.died and each.longest <= length * (1 + ALIKE)]
    worst = min(failed, key=lambda each: each.died or 0, default=None)
    least = 0.0 if worst is None else AS_MANY * worst.rows
    held = [each.held for each in points if each.held and _is_as_bad(each, length) and each.rows >= least]
    return Bracket.of(held, [] if worst is None else [(worst.died or 0, worst.how or "")])


def _is_as_bad(many: FillPoint, length: int) -> bool:
    """Whether as much was read on top of many chats as a prompt of this length is."""
    return read_at_once(many) >= length * NEARLY


def rows_carried(evidence: Evidence, length: int, size: int) -> Bracket:
    """Of many chats with so many tokens in flight: how many held and how many died."""
    points = [each for each in evidence.fill_points if each.crowd and each.length > 1]
    held = [each.rows for each in points if each.held and _is_as_bad(each, length) and each.size >= size * (1 - KNOWN)]
    died = [(each.rows, each.how or "") for each in points if each.died and each.died <= size]
    return Bracket.of(held, died)


def at_length(evidence: Evidence, length: int) -> Bracket:
    """The budget at this length: what few chats and what many have shown, whichever is less."""
    few, many = few_chats(evidence, length), many_chats(evidence, length)
    if many.smallest_failed is None or (few.smallest_failed or many.smallest_failed + 1) <= many.smallest_failed:
        return few
    return many


def budget_points(evidence: Evidence, cost: float | None = None) -> list[tuple[int, int]]:
    """(longest prompt, tokens that were left beside it) in the order of the starts, for each length that one of them
    was laid out for: by few chats, with what these cost, if need be as is likely.
    """
    cost = evidence.row_cost.likely if cost is None else cost
    seen = [each for each in evidence.fill_points if not each.crowd and each.length > 1]
    # Starts that died of something else, so that few chats were still far below what they can carry.
    cut_off = {
        each.setting.max_input_tokens or max((result.load.longest for result in each.loads), default=0)
        for each in evidence.outcomes
        if each.died_under_load
    }
    points = []
    for length in dict.fromkeys(each.longest for each in seen):
        here = [each for each in seen if each.longest == length]
        died = min((each for each in here if each.died), key=lambda each: each.died or 0, default=None)
        bracket = few_chats(evidence, length)
        high = bracket.smallest_failed
        if died is not None and high is not None:
            # Of whatever prompts: several shorter ones that died just above what one held were hardly the reason.
            above = min(min(each.died, high) + cost * each.rows for each in here if each.died)
            below = max((each.held + cost * each.rows for each in here if each.held and each.held < high), default=0.0)
            close = above - below < KNOWN * above
            points.append((length, int((below + above) / 2 if close else max(below, above * LIKELY))))
        elif (lived := [each for each in here if each.held]) and length not in cut_off:
            if any(each.died for each in seen) and high is None:
                continue  # so few chats as were let in told nothing of the memory
            most = max(lived, key=lambda each: each.held or 0)
            if high is None or high * (1 - KNOWN) <= (most.held or 0):
                points.append((length, int((most.held or 0) + cost * most.rows)))
    return points


def proofs(evidence: Evidence) -> int:
    """Starts to keep for the proof: two where only the first can tell whether the engine heeds a batch's size."""
    return 2 if pads_batch(evidence) and all(each.setting.max_batch_size is None for each in evidence.outcomes) else 1


def queues(evidence: Evidence) -> bool:
    """Whether an engine carried far less at once than it was sent, twice, and lived: it knows a budget, though it
    tells none. Of many chats, or of such with a short prompt, some may have ended before the last were read; or the
    model ended their answers.
    """
    short = [
        result
        for each in evidence.outcomes
        for result in each.loads
        if result.load.kind == "fill"
        and each.setting.purpose != "verify"
        and result.load.chats is None
        and result.load.rows > 1
        and (result.load.stairs or result.load.closing >= result.load.longest)
        and result.verdict == "held"
        and not result.ended_early
        and result.carried is not None
        and result.carried < 0.6 * result.load.size
    ]
    return len(short) > 1
