"""By how much a figure of NEW differs from BASE's, from repeats of both: the run is the unit.

Requests of one run share its start, its caches and the machine's mood that day, so that a thousand of them know little
of the next run (T. Kalibera and R. Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013, 63-74). Each run gives
one value of a figure; the ratio of the sides is the difference of the means of its logarithms, and its uncertainty that
of Welch's test (B. L. Welch, "The Generalization of 'Student's' Problem when Several Different Population Variances are
Involved", Biometrika 34 (1947) 28-35). Few runs may lie close together by chance, so that a side's variance is never
taken for less than what the requests within its runs scatter.

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
from scipy.special import stdtr, stdtrit

from harness.measure.records import Floats

Key = TypeVar("Key")

SURE = 0.05
SURELY = 0.01  # p of a trend where the sides ran apart: to take out one that is not there would shift the difference
FOUND = 0.8  # chance with which a change of the size `smallest` is found
APART = 0.8  # correlation of side and order from which the sides count as run one after the other
TREND_RUNS = 5  # runs in all, below which a trend cannot be told from chance


@dataclass(frozen=True)
class Spread:
    """What repeats of the same thing scatter by, of a figure's logarithm. freedom: of the estimate."""

    deviation: float
    freedom: float


Spreads = Mapping[tuple[str, str], Spread]
"""(load, figure) -> what runs of the same thing were seen to scatter by."""


@dataclass(frozen=True)
class Effect:
    """Of the logarithm of new / base. error: standard error. freedom: of Student's t. p: two-sided, of no difference.

    spread: between runs, as a standard deviation of the logarithm. trend: per run, where one was seen; then it is taken
    out. apart: the sides ran one after the other.
    """

    difference: float
    error: float
    freedom: float
    p: float
    spread: float
    trend: float | None = None
    apart: bool = False

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        reach = _student((1 + confidence) / 2, self.freedom) * self.error
        return self.difference - reach, self.difference + reach

    def smallest(self, compared: int) -> float:
        """The difference that would be found in 80 % of such repeats, among so many figures; cf. Kalibera and Jones."""
        return (_student(1 - SURE / 2 / compared, self.freedom) + _student(FOUND, self.freedom)) * self.error


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
    spreads = [_spread(side, errors) for side, errors in zip((base, new), within, strict=True)]
    other = next((each for each in spreads if each is not None), known)
    if other is None:
        return None
    sides = [(each or _at_least(other, errors), len(side)) for each, side, errors in
             zip(spreads, (base, new), within, strict=True)]  # fmt: skip
    parts = [(spread.deviation**2 / count, spread.freedom) for spread, count in sides]
    error = math.sqrt(sum(part for part, _ in parts))
    freedom = _welch(parts)
    difference = float(np.mean(new) - np.mean(base))
    spread = math.sqrt(sum(each.deviation**2 for each, _ in sides) / 2)
    plain = Effect(difference, error, freedom, _two_sided(difference, error, freedom), spread)
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


def repeats_needed(room: float, spread: float, runs: int) -> int:
    """Runs a side, at least `runs`, with which an interval of this spread reaches no further than `room`."""
    for count in range(max(runs, 2), 1000):
        if _student(0.975, 2 * count - 2) * spread * math.sqrt(2 / count) <= room:
            return count
    return 1000


def _spread(values: Sequence[float], within: Sequence[float]) -> Spread | None:
    """Between runs; None for a single one."""
    if len(values) < 2:
        return None
    return _at_least(Spread(float(np.std(values, ddof=1)), len(values) - 1), within)


def _at_least(spread: Spread, within: Sequence[float]) -> Spread:
    requests = math.sqrt(float(np.mean(np.square(within))))
    return Spread(max(spread.deviation, requests, 1e-9), spread.freedom)


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
    variance = max(residual, float(np.mean(np.square(np.concatenate(within)))), 1e-18)
    _, difference, slope = (float(each) for each in fitted)
    errors = np.sqrt(variance * np.diag(inverse))
    if _two_sided(slope, float(errors[2]), freedom) < (SURELY if apart else SURE):
        p = _two_sided(difference, float(errors[1]), freedom)
        return Effect(difference, float(errors[1]), freedom, p, math.sqrt(variance), slope, apart)
    left = _two_sided(difference, float(errors[1]), freedom) < SURE and difference * plain.difference > 0
    # Where the trend within the sides explains the difference as well, nobody can tell.
    return replace(plain, p=1.0 if apart and not left else plain.p, apart=apart)


def _student(share: float, freedom: float) -> float:
    return float(stdtrit(max(freedom, 1.0), share))


def _two_sided(difference: float, error: float, freedom: float) -> float:
    return float(2 * stdtr(max(freedom, 1.0), -abs(difference) / error))
