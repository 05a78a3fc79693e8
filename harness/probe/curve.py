"""The token budget over the length of the longest prompt, from a few measured points: where the longest history lies.

A prompt that is read in one piece takes activation memory, so the budget T falls as the longest prompt grows. Between
two points and beyond them T is taken for a straight line, between three for a parabola; each further start replaces a
guess by a point.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

LOST = 0.03  # of a budget, that is more than chance
GUESSED_SLOPE = -0.25  # tokens of budget for each token of the prompt, where neither model nor two points tell it


@dataclass(frozen=True)
class BudgetCurve:
    """points: (tokens of the longest prompt, token budget), rising. slope: beyond a single point."""

    points: tuple[tuple[int, int], ...]
    slope: float = GUESSED_SLOPE

    @classmethod
    def through(cls, points: Iterable[tuple[int, int]], slope: float | None = None) -> BudgetCurve:
        """points: in the order in which they were found. Of equal lengths the smallest budget counts: what differed
        once will differ again.
        """
        least: dict[int, int] = {}
        for length, tokens in _in_one_state(list(points)):
            least[length] = min(tokens, least.get(length, tokens))
        return cls(tuple(sorted(least.items())), GUESSED_SLOPE if slope is None else min(0.0, slope))

    def at(self, length: int) -> float:
        """The budget at this length; it never rises with the length."""
        if not self.points:
            return 0.0
        if len(self.points) == 1:
            first, tokens = self.points[0]
            return tokens + self.slope * (length - first)
        pairs = list(pairwise(self.points))
        at = next((index for index, each in enumerate(pairs) if length <= each[1][0]), len(pairs) - 1)
        (first, tokens), (second, fewer) = pairs[at]
        straight = tokens + min(0.0, (fewer - tokens) / (second - first)) * (length - first)
        if len(self.points) < 3 or not first < length < second:
            return straight
        near = self.points[at : at + 3] if at + 3 <= len(self.points) else self.points[at - 1 : at + 2]
        return min(float(tokens), max(float(fewer), _bent(near, length)))

    def longest(self, shortest: int, most: int, floor: float, answer: int, margin: float = 0.0) -> int:
        """The longest prompt from `shortest` to `most` with which the budget is at least `floor` and holds the prompt
        and its answer; `shortest` where not even that does.
        """
        low, high = shortest, max(shortest, most)
        while low < high:
            middle = (low + high + 1) // 2
            budget = self.at(middle)
            if budget >= floor and middle + answer <= budget * (1 - margin):
                low = middle
            else:
                high = middle - 1
        return low


def _bent(points: tuple[tuple[int, int], ...], length: int) -> float:
    """The parabola through three points: scores of attention grow with the square of the length (Lagrange's form)."""
    found = 0.0
    for one, tokens in points:
        weight = 1.0
        for other, _ in points:
            if other != one:
                weight *= (length - other) / (one - other)
        found += weight * tokens
    return found


def _in_one_state(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The points with the first one lowered where memory was lost after it.

    Activations never grow more slowly with a longer prompt, so the budget falls the faster the longer it is. A budget
    that falls much faster between the first point and the others than among these is of a GPU that had more free.
    """
    if len(points) < 3:
        return points
    (first, tokens), *others = points
    others = sorted(dict(others).items())
    if len(others) < 2 or first >= others[0][0]:
        return points
    (near, at_near), (far, at_far) = others[0], others[-1]
    among = max(0.0, (at_near - at_far) / (far - near))
    before = (tokens - at_near) / (near - first)
    expected = at_near + among * (near - first)
    if before > 2 * among and tokens - expected > LOST * tokens:
        return [(first, int(expected)), *points[1:]]
    return points
