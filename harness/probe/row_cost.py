"""What a chat costs by itself, beside its tokens, on an engine that checks no memory: from loads of few and of many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.probe.curve import BudgetCurve
from harness.probe.fills import FillPoint

ALIKE = 0.01  # share by which prompt lengths may differ to count as the same
MANY = 2  # times the chats of one load, that another must have to tell the cost of one
GUESS = 0.015  # share by which what few chats carry may be misjudged from other lengths
TOLD_BY = 2  # lengths
UNKNOWN = 1.2  # times what a chat costs at least, where nothing tells how much at most
STEPS = 9  # costs that are looked at between the least and the most
FURTHER = 1.6  # times the longest of them


@dataclass(frozen=True)
class RowCost:
    """Tokens of each chat, as far as few and many chats have bounded them. most: None where nothing did."""

    least: float = 0.0
    most: float | None = None

    @property
    def possible(self) -> list[float]:
        """From the least to the most that a chat may cost."""
        most = UNKNOWN * self.least if self.most is None else self.most
        return [self.least + step / (STEPS - 1) * (most - self.least) for step in range(STEPS)]

    @property
    def likely(self) -> float:
        if self.least <= 0:
            return 0.0
        return self.least if self.most is None else (self.least + self.most) / 2


def row_cost(points: Iterable[FillPoint]) -> RowCost:
    """From each pair of a load of few chats and one of many, where one held and the other died.

    What few carried with a prompt at least as long, many carry too but for what they cost; and the other way round. At
    lengths at which few were not tried, what they would carry is told by two others at least.
    """
    known = [each for each in points if each.length > 1]
    few, many = [each for each in known if not each.crowd], [each for each in known if each.crowd]
    least = [
        (one.held - other.died) / (other.rows - one.rows)
        for other in many
        if other.died
        for one in few
        if one.held and other.rows > one.rows and one.length >= other.longest * (1 - ALIKE)
    ]
    most = [
        (one.died - other.held) / (other.rows - one.rows)
        for one in few
        if one.died
        for other in many
        if other.held and other.rows >= MANY * one.rows and one.longest <= read_at_once(other) * (1 + ALIKE)
    ]
    lived, died = _edge(few, held=True), _edge(few, held=False)
    for other in many:
        if any(abs(longest - other.longest) <= ALIKE * longest for longest in died):
            continue
        if other.died and (at := _told(lived, other, other.longest)) is not None:
            least.append((at[0] * (1 - GUESS) - other.died) / (other.rows - at[1]))
        if other.held and (at := _told(died, other, read_at_once(other))) is not None:
            most.append((at[0] * (1 + GUESS) - other.held) / (other.rows - at[1]))
    bottom, top = max(0.0, max(least, default=0.0)), min(most, default=None)
    return RowCost(bottom, None if top is None else max(top, bottom))


def read_at_once(point: FillPoint) -> int:
    """Tokens that were read at once when it was fullest: of many short chats all, where they are one prefill."""
    if point.read:
        return point.read
    whole = point.rows * point.length
    return max(point.length, whole) if whole <= point.longest else point.length


def _edge(few: list[FillPoint], *, held: bool) -> dict[int, FillPoint]:
    """By longest prompt at which few chats died: what held of most tokens, or what died of least."""
    died: dict[int, FillPoint] = {}
    for each in few:
        if each.died and (each.longest not in died or each.died < (died[each.longest].died or 0)):
            died[each.longest] = each
    if not held:
        return died
    lived = {}
    for longest, last in died.items():
        below = [each for each in few if each.longest == longest and each.held and each.held < (last.died or 0)]
        if below:
            lived[longest] = max(below, key=lambda each: each.held or 0)
    return lived


def _told(edge: dict[int, FillPoint], other: FillPoint, length: int) -> tuple[float, int] | None:
    """Tokens that few chats would carry, or die of, at the length of another load, and in how many; None where too few
    lengths tell it. length: of what that one reads.
    """
    rows = max((each.rows for each in edge.values()), default=0)
    if len(edge) < TOLD_BY or other.rows < MANY * rows or length > FURTHER * max(edge):
        return None
    curve = BudgetCurve.through([(longest, each.held or each.died or 0) for longest, each in edge.items()])
    return curve.at(length), rows
