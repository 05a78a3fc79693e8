"""Where a series changed for good: E-divisive, for a figure over many runs.

Divides the series where the two sides are furthest apart in energy distance, and goes on within the parts as long as a
permutation test finds the best division better than chance (D. S. Matteson and N. A. James, "A Nonparametric Approach
for Multiple Change Point Analysis of Multivariate Data", JASA 109 (2014) 334-345; for figures of CI: D. Daly et al.,
"The Use of Change Point Detection to Identify Software Performance Regressions in a Continuous Integration System",
ICPE 2020, 67-75). A single odd run is no change: each side holds at least SMALLEST points.

Shuffling takes the points of a series without a change to be independent of each other. Where a night resembles the one
before, what is found by chance is far more than LEVEL: `python -m tests.stats.change_cells` shows how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

from harness.measure.records import Floats, Ints

LEVEL = 0.02  # chance that a series of independent points without a change is divided; a page shows a dozen of them
SMALLEST = 3
FEWEST = 10  # points; among fewer a step so near an end that C(n, SMALLEST) < 2 / LEVEL is found by no size of it
PERMUTATIONS = 499
ENOUGH = 10  # permutations as far apart as the series itself, after which it cannot be below LEVEL any more
SEED = 20141001
NEWEST = 200  # points that are looked at: the effort grows with their square


@dataclass(frozen=True)
class Division:
    """at: index of the first point behind the change. p: of a division as good by chance."""

    at: int
    p: float


def divisions(values: Sequence[float]) -> list[Division]:
    """The change points of a series, first to last, among its NEWEST points; none where they are too few to tell. The
    same every time.
    """
    skipped = max(0, len(values) - NEWEST)
    series = np.asarray(values[skipped:], dtype=float)
    random = np.random.default_rng(SEED)
    found: list[Division] = []
    while True:
        edges = [0, *sorted(each.at for each in found), len(series)]
        parts = [(begin, end) for begin, end in pairwise(edges) if end - begin >= 2 * SMALLEST]
        if not parts:
            break
        apart, at = max((_best(series[begin:end], begin) for begin, end in parts), key=lambda each: each[0])
        p = _by_chance(apart, [series[begin:end] for begin, end in parts], random)
        if apart <= 0 or p > LEVEL:
            break
        found.append(Division(at, p))
    return sorted((Division(each.at + skipped, each.p) for each in found), key=lambda each: each.at)


def _by_chance(apart: float, parts: Sequence[Floats], random: np.random.Generator) -> float:
    """Share of permutations within the parts that can be divided as well; the tie is counted for chance."""
    reached = 0
    for tried in range(1, PERMUTATIONS + 1):
        best = max(_best(random.permutation(part), 0)[0] for part in parts)
        reached += best >= apart * (1 - 1e-9)
        if reached >= ENOUGH:  # J. Besag and P. Clifford, "Sequential Monte Carlo p-Values", Biometrika 78 (1991)
            return reached / tried
    return (reached + 1) / (PERMUTATIONS + 1)


def _best(part: Floats, begin: int) -> tuple[float, int]:
    """The scaled energy distance of the best division of a part, and where it is. The right side may end before the
    part does, so that a change that is taken back is seen as well as one that stays.
    """
    count = len(part)
    sums = np.zeros((count + 1, count + 1))
    sums[1:, 1:] = np.abs(part[:, None] - part[None, :]).cumsum(axis=0).cumsum(axis=1)
    own = np.diagonal(sums)  # sum of all distances among the first k points
    at, end = _divisions(count)
    left, right = at, end - at
    first, both, across = own[at], own[end], sums[at, end] - own[at]
    second = both - first - 2 * across
    scaled = (2 * across / (left * right) - first / left**2 - second / right**2) * left * right / end
    place = int(np.argmax(scaled))
    return float(scaled[place]), begin + int(at[place])


@cache
def _divisions(count: int) -> tuple[Ints, Ints]:
    """Every place with at least SMALLEST points on both sides, and every end of the right side."""
    at, end = np.meshgrid(np.arange(SMALLEST, count), np.arange(count + 1), indexing="ij")
    chosen = end - at >= SMALLEST
    return at[chosen], end[chosen]
