"""How sure: 95 % confidence intervals of quantiles, without assuming a distribution or independence.

How many samples lie at or below the true quantile is a binomial count, so its interval is found on the scale of shares
and read off the sample's own quantile function (R. S. Woodruff, "Confidence Intervals for Medians and Other Position
Measures", JASA 47 (1952) 635-646). Samples of one request, and requests close in time, share a server's state and are
not independent; therefore the share's variance is taken between blocks of consecutive requests, and turned into the
number of independent samples that would be as sure (E. L. Korn and B. I. Graubard, "Confidence Intervals for
Proportions with Small Expected Number of Positive Counts Estimated from Survey Data", Survey Methodology 24 (1998)
193-201). There are as many blocks as requests in one, so that both grow with the run: queues remember for long, and too
short blocks give too narrow intervals (J. M. Flegal and G. L. Jones, "Batch means and spectral variance estimators in
Markov chain Monte Carlo", Annals of Statistics 38 (2010) 1034-1070).

Nothing here is random: the same records give the same interval.
"""

from __future__ import annotations

import math

import numpy as np

from harness.measure.records import Floats, Ints
from harness.stats.metrics import Values
from harness.stats.quantile import quantiles_of_sorted

Z95 = 1.959963984540054  # 97.5 % point of the normal distribution


def quantile_interval(values: Values, ordered: Floats, level: float) -> tuple[float, float]:
    """95 % interval of a quantile. ordered: the samples, ascending. NaN, NaN for no samples.

    The upper end cannot lie above the largest sample; where it does reach it, the data is too thin to say more.
    """
    if len(ordered) == 0:
        return math.nan, math.nan
    blocks = block_of_request(values.request)
    estimate = float(quantiles_of_sorted(ordered, [level])[0])
    count = int(blocks[-1]) + 1
    size = effective_size(values.samples <= estimate, blocks, level)
    lower, upper = _count_interval(level, size, student(count - 1))
    found = quantiles_of_sorted(ordered, [lower, upper])
    # Ties and interpolation must not push the estimate out of its own interval.
    return min(float(found[0]), estimate), max(float(found[1]), estimate)


def block_of_request(request: Ints) -> Ints:
    """For each sample the block of consecutive requests that it belongs to, from 0 without gaps.

    request: ascending row of each sample.
    """
    position = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(request[1:] != request[:-1])])
    return position // block_length(int(position[-1]) + 1)


def block_length(requests: int) -> int:
    """Requests per block: the square root of their number."""
    return max(1, math.isqrt(requests))


def effective_size(below: np.ndarray, blocks: Ints, level: float) -> float:
    """Independent samples that would pin the proportion `level` down as well; at most the number of samples.

    below: which samples lie at or below the quantile. blocks: their block.
    """
    samples, count = len(below), int(blocks[-1]) + 1
    if count < 2:
        return 1.0
    share = np.count_nonzero(below) / samples
    excess = np.bincount(blocks, weights=below) - share * np.bincount(blocks)
    variance = count / (count - 1) * float(np.dot(excess, excess)) / samples**2
    if variance <= 0:
        return float(samples)
    return float(np.clip(level * (1 - level) / variance, 1.0, samples))


def _count_interval(level: float, size: float, z: float) -> tuple[float, float]:
    """Where the share of `size` samples at or below the true quantile falls: a binomial count's quantiles, as shares.

    Normal approximation with the correction for skewness of E. A. Cornish and R. A. Fisher, "Moments and Cumulants in
    the Specification of Distributions", Revue de l'Institut International de Statistique 5 (1938) 307-320, widened by
    half a count as counts are whole.
    """
    centre = level + (z * z - 1) * (1 - 2 * level) / (6 * size)
    spread = z * math.sqrt(level * (1 - level) / size) + 0.5 / size
    low, high = (min(max(end, 0.0), 1.0) for end in (centre - spread, centre + spread))
    return low, high


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
