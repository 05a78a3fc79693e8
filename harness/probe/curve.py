"""BudgetCurve: the token budget over the length of the longest prompt, from a few measured points.

A prompt that is read in one piece takes activation memory, so the budget T falls as the longest prompt grows: with two
points in a straight line, with more as a parabola at most; each further start replaces a guess by a point.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

APART = 0.25  # of the way from the first point to the others, that these must be apart
SINGULAR = 1e-9
TIE = 0.01  # of the squares, by which a law that is tried later must be better, beside a token for each point
LOST = 0.03  # of a budget, that is more than chance
GUESSED_SLOPE = -0.25  # tokens of budget for each token of the prompt, where neither model nor two points tell it


@dataclass(frozen=True)
class BudgetCurve:
    """points: (tokens of the longest prompt, token budget), rising. slope: beyond a single point. straight: whether
    the budget may fall in a straight line.
    """

    points: tuple[tuple[int, int], ...]
    slope: float = GUESSED_SLOPE
    straight: bool = True

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
        """The budget at this length: a law through all points, and how far they are off it between the nearest two."""
        if not self.points:
            return 0.0
        if len(self.points) == 1:
            first, tokens = self.points[0]
            return tokens + self.slope * (length - first)
        off = [(each, tokens - self._law(each)) for each, tokens in self.points]
        if length <= off[0][0]:
            return self._law(length) + off[0][1]
        if length >= off[-1][0]:
            return self._law(length) + off[-1][1]
        at = next(index for index, (each, _) in enumerate(off) if length <= each)
        (first, below), (second, above) = off[at - 1], off[at]
        return self._law(length) + below + (above - below) * (length - first) / (second - first)

    @property
    def steepest(self) -> BudgetCurve:
        """The same points as if the budget fell with the square of the length alone."""
        return replace(self, straight=False)

    def _law(self, length: int) -> float:
        start, linear, square = self._fit
        return start - linear * length - square * length**2

    @cached_property
    def _fit(self) -> tuple[float, float, float]:
        """(start, linear, square) of the budget start - linear * length - square * length ** 2 by least squares: keys,
        values and hidden states of a prompt grow with it, scores of its attention with its square. Neither is negative.
        """
        best: tuple[float, tuple[float, float, float]] | None = None
        lengths = [length for length, _ in self.points]
        laws = ((True, len(lengths) > 2), (True, False), (False, True), (False, False))
        for linear, square in laws if self.straight else laws[2:]:
            found = _least_squares(self.points, linear=linear, square=square)
            if found is None or found[1] < 0 or found[2] < 0:
                continue
            off = sum(
                (found[0] - found[1] * length - found[2] * length**2 - tokens) ** 2 for length, tokens in self.points
            )
            if best is None or off < best[0] * (1 - TIE) - len(lengths):
                best = off, found
        assert best is not None
        return best[1]

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


def _least_squares(
    points: tuple[tuple[int, int], ...], *, linear: bool, square: bool
) -> tuple[float, float, float] | None:
    """(start, linear, square) with the terms asked for, the others 0; None where the points do not tell them."""
    scale = max(1, points[-1][0])
    terms = [lambda x: 1.0, *([lambda x: -x] if linear else []), *([lambda x: -x * x] if square else [])]
    rows = [[term(length / scale) for term in terms] for length, _ in points]
    size = len(terms)
    sums = [
        [sum(row[i] * row[j] for row in rows) for j in range(size)]
        + [sum(row[i] * tokens for row, (_, tokens) in zip(rows, points, strict=True))]
        for i in range(size)
    ]
    for i in range(size):  # Gauss and Jordan
        pivot = max(range(i, size), key=lambda row: abs(sums[row][i]))
        if abs(sums[pivot][i]) < SINGULAR:
            return None
        sums[i], sums[pivot] = sums[pivot], sums[i]
        sums[i] = [each / sums[i][i] for each in sums[i]]
        for j in range(size):
            if j != i:
                sums[j] = [each - sums[j][i] * of for each, of in zip(sums[j], sums[i], strict=True)]
    found = [row[-1] for row in sums]
    one = found[1] / scale if linear else 0.0
    two = found[-1] / scale**2 if square else 0.0
    return found[0], one, two


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
    if far - near < APART * (near - first):
        return points  # what was found there is not sharp enough for their slope
    among = max(0.0, (at_near - at_far) / (far - near))
    before = (tokens - at_near) / (near - first)
    expected = at_near + among * (near - first)
    if before > 2 * among and tokens - expected > LOST * tokens:
        return [(first, int(expected)), *points[1:]]
    return points
