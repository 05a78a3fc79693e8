"""By how much a figure of NEW differs from BASE's, from repeats of both: the unit is the run.

Requests of one run share its start, its caches and the machine's mood that day, so that a thousand of them know little
of the next run (T. Kalibera and R. Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013, 63-74). Each run gives
one value of a figure; the ratio of the sides is the difference of the means of its logarithms, and its uncertainty that
of Welch's test (B. L. Welch, "The Generalization of 'Student's' Problem when Several Different Population Variances are
Involved", Biometrika 34 (1947) 28-35). Few runs may lie close together by chance, so that an interval is never taken
for shorter than what the requests within the runs scatter: that is known from hundreds of them, and needs no allowance
for few runs (it is a normal one, of both sides together). An interval that is the longer of the two holds the truth at
least as often as Student's alone; with Student's allowance on both, it held it in 98.6 % of cases where 95 were meant.

A machine that gets slower while the runs are made is no change of NEW. Where the values move with the order of the
runs, a straight trend is fitted beside the difference of the sides and taken out; where the sides ran one after the
other, the two can hardly be told apart, and a difference is believed only as far as the trend within the sides leaves
it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from harness.measure.records import Floats

Key = TypeVar("Key")

SURE = 0.05
SURELY = 0.01  # p of a trend where the sides ran apart: to take out one that is not there would shift the difference
FOUND = 0.8  # chance with which a change of the size `smallest` is found
APART = 0.8  # correlation of side and order from which the sides count as run one after the other
LEAST_DEVIATION = 1e-9  # of logarithms: values that agree to the last digit
TREND_RUNS = 5  # runs in all, below which a trend cannot be told from chance
FEW_RUNS = 10  # runs in all, below which a trend may well be there and not be seen


@dataclass(frozen=True)
class Spread:
    """What repeats of the same thing scatter by, of a figure's logarithm. freedom: of the estimate."""

    deviation: float
    freedom: float


Spreads = Mapping[tuple[str, str], Spread]
"""(load, figure) -> what runs of the same thing were seen to scatter by."""


@dataclass(frozen=True)
class Effect:
    """Of the logarithm of new / base. error: standard error, from the runs' scatter. freedom: of its Student's t.
    least: standard error from the requests within the runs, below which the true one cannot lie; normal. p: two-sided,
    of no difference.

    spread: between runs, as a standard deviation of the logarithm. trend: per run, where one was seen; then it is taken
    out. apart: the sides ran one after the other.
    """

    difference: float
    error: float
    freedom: float
    least: float
    p: float
    spread: float
    trend: float | None = None
    apart: bool = False

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        reach = self._reach((1 + confidence) / 2)
        return self.difference - reach, self.difference + reach

    def _reach(self, share: float) -> float:
        return max(_student(share, self.freedom) * self.error, float(ndtri(share)) * self.least)

    def smallest(self, compared: int, sure: float = SURE) -> float:
        """The difference that would be found in 80 % of such repeats, among so many figures; cf. Kalibera and Jones."""
        return self._reach(1 - sure / 2 / compared) + self._reach(FOUND)


def effect(
    base: Sequence[float],
    new: Sequence[float],
    within: tuple[Sequence[float], Sequence[float]],
    order: Sequence[float] | None = None,
    known: Spread | None = None,
) -> Effect | None:
    """The difference of two sides. base, new: logarithms of each run's figure. within: their standard errors from the
    requests within each run. order: of all runs, base's first, by the moments at which they began. known: the spread
    between runs as measured elsewhere, for sides of a single run. None: nobody knows the spread between runs.
    """
    spreads = [_spread(side) for side in (base, new)]
    other = next((each for each in spreads if each is not None), known)
    if other is None:
        return None
    counts = (len(base), len(new))
    sides = [(each or other, count) for each, count in zip(spreads, counts, strict=True)]
    parts = [(spread.deviation**2 / count, spread.freedom) for spread, count in sides]
    requests = [float(np.mean(np.square(errors))) for errors in within]
    error = math.sqrt(sum(part for part, _ in parts))
    least = math.sqrt(sum(each / count for each, count in zip(requests, counts, strict=True)))
    freedom = _welch(parts)
    difference = float(np.mean(new) - np.mean(base))
    spread = math.sqrt(max(sum(each.deviation**2 for each, _ in sides), sum(requests)) / 2)
    plain = Effect(difference, error, freedom, least, _two_sided(difference, error, freedom, least), spread)
    if order is None or min(len(base), len(new)) < 2:
        return plain
    return _without_trend(plain, base, new, within, np.asarray(order, dtype=float))


def holm(ps: Mapping[Key, float]) -> dict[Key, float]:
    """Each p, corrected for how many there are (S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure",
    Scandinavian Journal of Statistics 6 (1979) 65-70).
    """
    corrected, largest = dict[Key, float](), 0.0
    for place, (key, p) in enumerate(sorted(ps.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(ps) - place) * p))
        corrected[key] = largest
    return corrected


def sure_at_each(most: int) -> float:
    """The level of each of many looks, in place of SURE: where runs are compared as soon as there are three a side, and
    again after each further pair, up to `most` of them.

    Who looks often finds a difference by chance more often than who looks once (P. Armitage, C. K. McPherson and B. C.
    Rowe, "Repeated Significance Tests on Accumulating Data", JRSS A 132 (1969) 235-244): at SURE each time, in 14 % of
    cases within ten pairs and in 24 % within thirty. One level for all looks keeps SURE for them together (S. J.
    Pocock, "Group Sequential Methods in the Design and Analysis of Clinical Trials", Biometrika 64 (1977) 191-199).
    This formula was fitted to 40,000 series of made-up values under Welch's test: together the looks find a difference
    that is not there in 3.6 % of cases with one look, and in 4.0 to 4.9 % with 2 to 98. Intervals of this level hold
    all at once (C. Jennison and B. W. Turnbull, "Interim Analyses: The Repeated Confidence Interval Approach", JRSS B
    51 (1989) 305-361).
    """
    times = math.log(max(most, 3) / 3)
    return SURE / (1 + 1.5 * times + 0.4 * times**2)


def repeats_needed(room: float, spread: float, runs: int, sure: float = SURE) -> int:
    """Runs a side, at least `runs`, with which an interval of this spread reaches no further than `room`."""
    for count in range(max(runs, 2), 1000):
        if _student(1 - sure / 2, 2 * count - 2) * spread * math.sqrt(2 / count) <= room:
            return count
    return 1000


def _spread(values: Sequence[float]) -> Spread | None:
    """Between runs; None for a single one."""
    if len(values) < 2:
        return None
    return Spread(max(float(np.std(values, ddof=1)), LEAST_DEVIATION), len(values) - 1)


def _welch(parts: Sequence[tuple[float, float]]) -> float:
    """Satterthwaite's degrees of freedom."""
    total = sum(part for part, _ in parts)
    return total**2 / sum(part**2 / freedom for part, freedom in parts)


def _without_trend(
    plain: Effect, base: Sequence[float], new: Sequence[float], within: tuple[Sequence[float], ...], order: Floats
) -> Effect:
    values = np.asarray([*base, *new], dtype=float)
    side = np.repeat([0.0, 1.0], [len(base), len(new)])
    place = np.argsort(np.argsort(order)).astype(float)
    apart = len(values) > 3 and abs(float(np.corrcoef(side, place)[0, 1])) >= APART
    if len(values) < TREND_RUNS:
        return replace(plain, apart=apart)
    model = np.column_stack([np.ones_like(side), side, place])
    inverse = np.linalg.pinv(model.T @ model)
    fitted = inverse @ model.T @ values
    freedom = len(values) - 3
    residual = float(np.sum((values - model @ fitted) ** 2)) / freedom
    requests = float(np.mean(np.square(np.concatenate(within))))
    _, difference, slope = (float(each) for each in fitted)
    error, error_of_slope, least, least_of_slope = (
        math.sqrt(max(variance, LEAST_DEVIATION**2) * inverse[place, place])
        for variance in (residual, requests) for place in (1, 2)
    )  # fmt: skip
    p = _two_sided(difference, error, freedom, least)
    if _two_sided(slope, error_of_slope, freedom, least_of_slope) < (SURELY if apart else SURE):
        spread = math.sqrt(max(residual, requests))
        return Effect(difference, error, freedom, least, p, spread, slope, apart)
    left = p < (SURELY if len(values) < FEW_RUNS else SURE) and difference * plain.difference > 0
    # Where the trend within the sides explains the difference as well, nobody can tell.
    return replace(plain, p=1.0 if apart and not left else plain.p, apart=apart)


def _student(share: float, freedom: float) -> float:
    return float(stdtrit(max(freedom, 1.0), share))


def _two_sided(difference: float, error: float, freedom: float, least: float) -> float:
    """The larger of Student's and the normal one."""
    found = stdtr(max(freedom, 1.0), -abs(difference) / error)
    return float(2 * max(found, ndtr(-abs(difference) / least) if least > 0 else 0.0))
