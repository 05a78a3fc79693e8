"""Where a batch is as long as its longest prompt: all laws of the budget that agree with what the starts have shown.

Keys, values and hidden states of a prompt grow with it, scores of its attention with its square: what is left beside a
prompt is start - linear * length - square * length ** 2, and neither is negative. Whatever held or died bounds that at
one length, so what may be left at another, and the longest prompt of all, lie between the outermost of the laws that
keep every bound (https://en.wikipedia.org/wiki/Linear_programming: at the corners of a polytope).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations

import numpy as np

CHANCE = (0.001, 0.003, 0.01)  # shares by which bounds may contradict each other, the first that helps
FLAT = 1e-9  # of the tokens at the longest length, that count as none
AGAIN = 2  # times the largest budget that was seen, beyond which none is thought of


@dataclass(frozen=True)
class Bound:
    """So many tokens are left beside a prompt of this length at least, and fewer than so many."""

    length: int
    least: float = 0.0
    most: float = float("inf")


@dataclass(frozen=True)
class PaddedLaw:
    """corners: (start, linear, square) of the outermost laws. points: what was found, as (length, tokens). slope: of
    the budget, where no more than one point tells it; None otherwise. surely: what is left at least is asked for.
    """

    corners: tuple[tuple[float, float, float], ...]
    points: tuple[tuple[int, int], ...] = ()
    slope: float | None = None
    surely: bool = False

    @property
    def steepest(self) -> PaddedLaw:
        """What is left at least."""
        return replace(self, surely=True)

    def span(self, length: float) -> tuple[float, float]:
        """The least and the most that may be left beside a prompt of this length."""
        left = [start - linear * length - square * length * length for start, linear, square in self.corners]
        return min(left, default=0.0), max(left, default=0.0)

    def at(self, length: float) -> float:
        """What is likely to be left: the middle of what may be, of straight lines where one keeps all bounds; what is
        nearest to a line through one point.
        """
        low, high = self.span(length) if self.surely or self.slope is not None else self._straight.span(length)
        if self.surely or not self.points:
            return low
        if self.slope is not None:
            first, tokens = self.points[0]
            return min(max(tokens + self.slope * (length - first), low), high)
        return (low + high) / 2

    def likely_longest(self, answer: int) -> float:
        """The longest prompt with its answer that is likely: as likely by a straight line, where one keeps all bounds,
        as by whatever law.
        """
        return sum((*self.longest(answer), *self._straight.longest(answer))) / 4

    @property
    def _straight(self) -> PaddedLaw:
        straight = tuple(each for each in self.corners if each[2] == 0)
        return replace(self, corners=straight) if straight else self

    def longest(self, answer: int = 0, rows: int = 1) -> tuple[float, float]:
        """The longest prompt of which so many fit beside each other, with an answer of these tokens each: at least and
        at most.
        """
        found = []
        for start, linear, square in self.corners:
            half, room = (rows + linear) / 2, max(0.0, start - rows * answer)
            found.append(room / (half + (half * half + square * room) ** 0.5))
        return min(found, default=0.0), max(found, default=0.0)


@lru_cache(maxsize=512)
def corners_of(bounds: tuple[Bound, ...]) -> tuple[tuple[float, float, float], ...]:
    """The outermost laws within all bounds, each as much wider as the bounds contradict each other. Where that is more
    than chance, less memory is free than when the first of them were found, and what held then does not count.
    """
    held = [each for each in bounds if each.least > 0]
    tries = ((held[:old], off) for old in range(len(held) + 1) for off in CHANCE)
    laws = (_corners(tuple(each for each in bounds if each not in old), off) for old, off in tries)
    return next(each for each in laws if each)


def _corners(bounds: tuple[Bound, ...], off: float) -> tuple[tuple[float, float, float], ...]:
    scale = max(each.length for each in bounds)
    largest = max(each.most if math.isfinite(each.most) else each.least for each in bounds)
    # Each a plane: its three factors of a law give its value at least.
    planes, values = [(0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (-1.0, 0.0, 0.0)], [0.0, 0.0, -AGAIN]
    for each in bounds:
        share = each.length / scale
        if each.least > 0:
            planes.append((1.0, -share, -share * share))
            values.append(each.least / largest * (1 - off))
        if math.isfinite(each.most):
            planes.append((-1.0, share, share * share))
            values.append(-each.most / largest * (1 + off))
    left, right = np.array(planes), np.array(values)
    chosen = np.array(list(combinations(range(len(planes)), 3)))
    chosen = chosen[np.abs(np.linalg.det(left[chosen])) > FLAT]
    laws = np.linalg.solve(left[chosen], right[chosen][..., None])[..., 0]
    laws = laws[(laws @ left.T >= right - FLAT).all(axis=1)]
    laws[np.abs(laws) < FLAT] = 0.0
    laws = np.unique(laws * largest / np.array([1.0, scale, scale * scale]), axis=0)
    return tuple((float(start), float(linear), float(square)) for start, linear, square in laws)
