"""95 % confidence intervals of quantiles and shares, without assuming a distribution or independence.

How many samples lie at or below the true quantile is a binomial count, so its interval is found on the scale of shares
and read off the sample's own quantile function (R. S. Woodruff, "Confidence Intervals for Medians and Other Position
Measures", JASA 47 (1952) 635-646). Samples of one request, and requests close in time, share a server's state and are
not independent; therefore the share's variance is taken between batches of consecutive requests (dependence.py), and
turned into the number of independent samples that would be as sure (E. L. Korn and B. I. Graubard, "Confidence
Intervals for Proportions with Small Expected Number of Positive Counts Estimated from Survey Data", Survey Methodology
24 (1998) 193-201).

Nothing here is random: the same records give the same interval.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import betaincinv, ndtr

from harness.measure.records import Floats, Ints
from harness.stats.dependence import Mask, batch_starts, independent_size
from harness.stats.metrics import Values
from harness.stats.quantile import quantiles_of_sorted

Z95 = 1.959963984540054  # 97.5 % point of the normal distribution


def quantile_interval(values: Values, ordered: Floats, level: float) -> tuple[float, float]:
    """95 % interval of a quantile. ordered: the samples, ascending. NaN, NaN for no samples.

    The upper end is infinite where the tail is too thin to have one: where even the largest of this many independent
    samples may well lie below the true quantile. Likewise the lower end is then 0, below which no latency lies.
    """
    if len(ordered) == 0:
        return math.nan, math.nan
    estimate = float(quantiles_of_sorted(ordered, [level])[0])
    starts = batch_starts(values.starts)
    same = estimate * (1 + 1e-9)  # latencies that differ by rounding are equal
    size = size_of_share(values.samples <= same, values, starts)
    beyond = float(ndtr(-student(max(len(starts) - 1, 1))))  # few batches know their spread badly
    lower, upper = share_interval(level, size, beyond)
    found = quantiles_of_sorted(ordered, [lower, upper])
    # Ties and interpolation must not push the estimate out of its own interval.
    low = 0.0 if (1 - level) ** size > beyond else min(float(found[0]), estimate)
    high = math.inf if level**size > beyond else max(float(found[1]), estimate)
    return low, high


def size_of_share(met: Mask, values: Values, starts: Ints) -> float:
    """Independent samples behind the share that `met` is. starts: of the batches of samples.

    What the samples themselves share counts too: where none or few miss a bound, the misses cannot show how they hang
    together, but the latencies do.
    """
    return min(independent_size(met, starts), own_size(values))


def own_size(values: Values) -> float:
    """Independent samples behind the mean; computed once, as every quantile asks for it."""
    kept = values.__dict__
    if "_own_size" not in kept:
        kept["_own_size"] = independent_size(values.samples, batch_starts(values.starts))
    return float(kept["_own_size"])


def share_interval(share: float, size: float, beyond: float) -> tuple[float, float]:
    """Where the true share lies, given one seen in `size` independent samples (any positive number); beyond: each end.

    C. J. Clopper and E. S. Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial",
    Biometrika 26 (1934) 404-413, which is never too short.
    """
    met, missed = share * size, (1 - share) * size
    lower = float(betaincinv(met, missed + 1, beyond)) if met > 0 else 0.0
    upper = float(betaincinv(met + 1, missed, 1 - beyond)) if missed > 0 else 1.0
    return lower, upper


def block_of_request(request: Ints) -> Ints:
    """For each sample the block of consecutive requests that it belongs to, from 0 without gaps: sqrt(n) in each.

    request: ascending row of each sample. There are as many blocks as requests in one, so that both grow with the run:
    queues remember for long, and too short blocks give too narrow intervals (J. M. Flegal and G. L. Jones, "Batch means
    and spectral variance estimators in Markov chain Monte Carlo", Annals of Statistics 38 (2010) 1034-1070).
    """
    place = _place(request)
    return place // block_length(int(place[-1]) + 1)


def _place(request: Ints) -> Ints:
    """Which request, of those that gave samples, each sample belongs to: 0, 1, ..."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(request[1:] != request[:-1])])


def block_length(requests: int) -> int:
    """Requests per block: the square root of their number."""
    return max(1, math.isqrt(requests))


def student(freedom: int) -> float:
    """97.5 % point of Student's t; Abramowitz and Stegun 26.7.5, within 1 % of the tables."""
    if freedom <= 2:
        return 4.303 if freedom == 2 else 12.706
    z, n = Z95, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
