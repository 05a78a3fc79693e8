"""One definition of a quantile: linear interpolation of order statistics, type 7.

R. J. Hyndman and Y. Fan, "Sample Quantiles in Statistical Packages", The American Statistician 50 (1996) 361-365.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from harness.measure.records import Floats


def quantile(values: ArrayLike, level: float) -> float:
    """The quantile of unsorted values, NaN of none. level: 0 to 1. Infinite values are allowed."""
    return float(quantiles(np.asarray(values, dtype=float), [level])[0])


def quantiles(values: Floats, levels: Sequence[float]) -> Floats:
    """The same of a few levels: only the values that they lie between are brought to their places."""
    if not len(values) or not levels:
        return quantiles_of_sorted(values, levels)
    below = np.floor(np.asarray(levels) * (len(values) - 1)).astype(np.int64)
    places = np.unique(np.concatenate([below, np.minimum(below + 1, len(values) - 1)]))
    return quantiles_of_sorted(np.partition(values, places), levels)


def quantiles_of_sorted(ordered: Floats, levels: Sequence[float] | Floats) -> Floats:
    """Quantiles of ascending values: x[k] + (h - k) (x[k+1] - x[k]) with h = (n - 1) level and k = floor(h)."""
    wanted = np.asarray(levels, dtype=float)
    if len(ordered) == 0:
        return np.full(wanted.shape, np.nan)
    place = wanted * (len(ordered) - 1)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, len(ordered) - 1)
    part = place - below
    lower, upper = ordered[below], ordered[above]
    with np.errstate(invalid="ignore"):  # inf - inf where part is 0 anyway
        between = lower + part * (upper - lower)
    return np.where((part == 0) | (lower == upper), lower, between)
