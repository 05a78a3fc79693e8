"""Where a series changed for good: E-divisive, for a figure over many runs.

Divides the series where the two sides are furthest apart in energy distance, and goes on within the parts as long as a
permutation test finds the best division better than chance (D. S. Matteson and N. A. James, "A Nonparametric Approach
for Multiple Change Point Analysis of Multivariate Data", JASA 109 (2014) 334-345; for figures of CI: D. Daly et al.,
"The Use of Change Point Detection to Identify Software Performance Regressions in a Continuous Integration System",
ICPE 2020, 67-75). A single odd run is no change: each side holds at least SMALLEST points.

Shuffled points are independent of each other, and where a night resembles the one before, a series wanders by itself
further than they do. What is shuffled is therefore what each point brings beside its share of the one before, and the
series is made again of that with the same share: an autoregression of first order (P. Bühlmann, "Sieve Bootstrap for
Time Series", Bernoulli 3 (1997) 123-148; blocks, as of C. Kirch, "Block Permutation Principles for the Change Analysis
of Dependent Data", J. Statistical Planning and Inference 137 (2007) 2453-2474, would leave too few orders of a dozen
nights). Both are taken from what the best division leaves, so that a step is mistaken neither for memory nor for
scatter: the share on the side of caution, and the scatter as of three degrees of freedom less for each part, which had
its mean, begin and end chosen to fit. `python -m tests.stats.change_cells` shows how often a change is found, by chance
and where one is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

from harness.measure.records import Floats, Ints

LEVEL = 0.02  # chance that a series of independent points without a change is divided; a page shows a dozen of them
SMALLEST = 3
FEWEST = 8  # points; fewer are not divided: 7 % of six that remember (correlation 0.6) would be by chance
PERMUTATIONS = 499
ENOUGH = 10  # permutations as far apart as the series itself, from which on it cannot be below LEVEL
SEED = 20141001
CAUTION = 0.5  # standard errors that are added to the memory that is seen
# Memory that is taken to be there though it is not seen, as the best division leaves little of it; less among the
# fewest points, of which a step of five times the scatter would be missed.
HIDDEN, HIDDEN_PER_POINT = 0.55, 0.055
MOST_MEMORY = 0.9
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
    if len(values) < FEWEST:
        return []
    skipped = max(0, len(values) - NEWEST)
    series = np.asarray(values[skipped:], dtype=float)
    random = np.random.default_rng(SEED)
    found: list[Division] = []
    while True:
        edges = [0, *sorted(each.at for each in found), len(series)]
        parts = [(begin, end) for begin, end in pairwise(edges) if end - begin >= 2 * SMALLEST]
        if not parts:
            break
        apart, at, back = max((_best(series[begin:end], begin) for begin, end in parts), key=lambda each: each[0])
        left = _left(series, sorted({*edges, at, back}))
        p = _by_chance(apart, [left.points[begin:end] for begin, end in parts], left.memory, random)
        if apart <= 0 or p > LEVEL:
            break
        found.append(Division(at, p))
    return sorted((Division(each.at + skipped, each.p) for each in found), key=lambda each: each.at)


@dataclass(frozen=True)
class _Left:
    """What a division leaves of a series. points: with the scatter that the series had before a division was chosen.
    memory: correlation of a point with the one before.
    """

    points: Floats
    memory: float


def _left(series: Floats, edges: Sequence[int]) -> _Left:
    """Of each part between the edges what its mean leaves. The memory is on the side of caution, and at least what so
    many points can hide.

    It is corrected for its bias, of (1 + 3 r) / n for each mean that was taken off (M. G. Kendall, "Note on Bias in the
    Estimation of Autocorrelation", Biometrika 41 (1954) 403-404).
    """
    parts = [series[begin:end] - series[begin:end].mean() for begin, end in pairwise(edges)]
    count, points = len(series), np.concatenate(parts)
    scatter = float(np.dot(points, points))
    if scatter <= 0:
        return _Left(points, 0.0)
    seen = sum(float(np.dot(part[1:], part[:-1])) for part in parts) / scatter * count / (count - len(parts))
    likely = seen + len(parts) * (1 + 3 * seen) / count
    careful = likely + CAUTION * math.sqrt(max(1 - likely * likely, 0.0) / count)
    memory = min(max(careful, min(HIDDEN, count * HIDDEN_PER_POINT)), MOST_MEMORY)
    return _Left(points * math.sqrt(count / max(count - 3 * len(parts), count / 3)), memory)


def _shuffled(part: Floats, memory: float, random: np.random.Generator) -> Floats:
    """A part as it might have come without a change."""
    centred = part - part.mean()
    first = math.sqrt(1 - memory * memory)  # the first point brings its whole self
    news = np.append(centred[:1] * first, centred[1:] - memory * centred[:-1])
    made: Floats = random.permutation(news)
    made[0] /= first
    for at in range(1, len(made) if memory else 0):
        made[at] += memory * made[at - 1]
    return made


def _by_chance(apart: float, parts: Sequence[Floats], memory: float, random: np.random.Generator) -> float:
    """Share of permutations within the parts that can be divided as well; the tie is counted for chance."""
    reached = 0
    for tried in range(1, PERMUTATIONS + 1):
        best = max(_best(_shuffled(part, memory, random), 0)[0] for part in parts)
        reached += best >= apart * (1 - 1e-9)
        if reached >= ENOUGH:  # J. Besag and P. Clifford, "Sequential Monte Carlo p-Values", Biometrika 78 (1991)
            return reached / tried
    return (reached + 1) / (PERMUTATIONS + 1)


def _best(part: Floats, begin: int) -> tuple[float, int, int]:
    """The scaled energy distance of the best division of a part, where it is, and where its right side ends: before the
    part does, where a change is taken back.
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
    return float(scaled[place]), begin + int(at[place]), begin + int(end[place])


@cache
def _divisions(count: int) -> tuple[Ints, Ints]:
    """Every place with at least SMALLEST points on both sides, and every end of the right side."""
    at, end = np.meshgrid(np.arange(SMALLEST, count), np.arange(count + 1), indexing="ij")
    chosen = end - at >= SMALLEST
    return at[chosen], end[chosen]
