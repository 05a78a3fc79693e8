"""How many independent samples a correlated series is worth.

Requests close in time share a queue, a batch and a server's mood. The variance of their mean is therefore taken between
batches of consecutive ones (non-overlapping batch means). Short runs do not have batches longer than the memory of a
queue, so the correlation that is left between neighbouring batches is added, as of an autoregressive process of first
order: the correction of A. Tafazzoli, J. R. Wilson, E. K. Lada and N. M. Steiger, "Performance of Skart: A Skewness-
and Autocorrelation-Adjusted Batch Means Procedure for Simulation Analysis", INFORMS Journal on Computing 23 (2011)
297-314. The estimate of that correlation is too low in short series; the bias is that of M. G. Kendall, "Note on Bias
in the Estimation of Autocorrelation", Biometrika 41 (1954) 403-404.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.measure.records import Floats, Ints

Mask = NDArray[np.bool_]

MOST_BATCHES = 32
# Of a standard error that is added to the correlation: what a short series cannot show is taken to be there.
CAUTION = 0.5
MOST_CORRELATION = 0.95
PIECE = 1 << 13  # samples that are looked at together: so few are multiplied without threads that wait for each other
# Of a level whose batches are pooled with those of others: long enough to remember little of each other.
POOLED_BATCHES, LEAST_BATCHES = 8, 4
# Independent misses, of all levels together, that count as much as what the levels say of themselves.
_OWN_MISSES = 5.0


@dataclass(frozen=True)
class Batches:
    """How the misses of a level's batches differ. scatter: variance of one sample, p (1 - p), summed over the samples;
    excess: squares of the batches' misses beyond the mean, summed; together: products of neighbours, summed.
    """

    count: int
    scatter: float
    excess: float
    together: float

    def as_dict(self) -> dict[str, Any]:
        return {"count": self.count, "scatter": self.scatter, "excess": self.excess, "together": self.together}

    @classmethod
    def from_dict(cls, entry: Any) -> Batches | None:
        """The reverse; None of None. Raises KeyError, TypeError and ValueError for what as_dict did not make."""
        if entry is None:
            return None
        numbers = [float(entry[name]) for name in ("scatter", "excess", "together")]
        if int(entry["count"]) < LEAST_BATCHES or not all(math.isfinite(each) for each in numbers):
            raise ValueError(f"batches {dict(entry)!r}")
        return cls(int(entry["count"]), *numbers)


def batches_of(missed: Mask, units: Ints) -> Batches | None:
    """missed: of each sample. units: where the samples of each request begin. None for fewer than four batches."""
    starts = batch_starts(units, POOLED_BATCHES)
    count = len(starts)
    if count < LEAST_BATCHES:
        return None
    share = float(missed.mean())
    sizes = np.diff(np.append(starts, len(missed)))
    excess: Floats = np.add.reduceat(missed.astype(np.float64), starts) - share * sizes
    together = float(np.dot(excess[1:], excess[:-1]))
    return Batches(count, len(missed) * share * (1 - share), float(np.dot(excess, excess)), together)


def pooled_effect(levels: Sequence[Batches | None], weights: Floats, own: float) -> float:
    """Samples that amount to one independent one, by the batches of several levels together.

    A level is too short to tell how long its queue remembers, and several tell it: variance of the batches times
    (1 + r) / (1 - r), both over all of them, r corrected for its bias (as in lag_one, without the caution that a single
    level needs). weights: of each level. own: what they say each of itself, which counts where there are few misses.
    """
    known = [(each, float(weight)) for each, weight in zip(levels, weights, strict=True) if each is not None]
    scatter = sum(weight * each.scatter for each, weight in known)
    excess = sum(weight * each.excess * each.count / (each.count - 1) for each, weight in known)
    if scatter <= 0 or excess <= 0:
        return own
    seen = sum(weight * each.together * each.count / (each.count - 1) for each, weight in known) / excess
    count = sum(weight * each.count for each, weight in known) / sum(weight for _, weight in known)
    likely = min(max(seen + (1 + 3 * seen) / count, 0.0), MOST_CORRELATION)
    effect = max(excess / scatter * (1 + likely) / (1 - likely), 1.0)
    misses = scatter / effect
    trust = misses / (misses + _OWN_MISSES)
    return math.exp(trust * math.log(effect) + (1 - trust) * math.log(max(own, 1.0)))


def batches(units: int, most: int = MOST_BATCHES) -> Ints:
    """The batch of each of this many units in order of time, from 0: up to `most` of about equal size."""
    return np.arange(units, dtype=np.int64) * min(units, most) // max(units, 1)


def batch_starts(units: Ints, most: int = MOST_BATCHES) -> Ints:
    """Where the samples of each batch begin. units: where those of each unit do, in order of time."""
    return units[np.unique(batches(len(units), most), return_index=True)[1]] if len(units) else units


def independent_size(samples: Floats | Mask, starts: Ints, caution: float = CAUTION) -> float:
    """How many independent samples would pin the mean of these down as well: between 0 and their number.

    starts: the first sample of each batch, ascending from 0. Samples that do not vary, or fewer than three batches,
    tell nothing of what they share: then as many as batches.
    """
    count = len(starts)
    if count < 3:
        return float(count)
    excess, scatter, most = _of_shares(samples, starts) if samples.dtype == np.bool_ else _of_values(samples, starts)
    if scatter <= len(samples) * (1e-9 * most) ** 2:
        return float(len(samples))
    between = float(np.dot(excess, excess)) * count / (count - 1) * inflation(excess, caution)
    # Var(mean) = between / n^2 against scatter / n / n of independent samples.
    return float(min(len(samples), scatter / max(between, 1e-300) * len(samples)))


def _of_shares(met: NDArray[Any], starts: Ints) -> tuple[Floats, float, float]:
    """By how much the sum of each batch is above that of as many means; the sum of all squares; the largest value."""
    counts = np.array([np.count_nonzero(batch) for batch in np.split(met, starts[1:])], dtype=np.float64)
    share = float(counts.sum()) / len(met)
    return counts - np.diff([*starts, len(met)]) * share, len(met) * share * (1 - share), float(share > 0)


def _of_values(samples: NDArray[Any], starts: Ints) -> tuple[Floats, float, float]:
    """The same, in one place of memory that the processor's cache holds: there are up to tens of millions."""
    mean, scatter, excess = float(samples.mean()), 0.0, np.zeros(len(starts))
    place = np.empty(min(len(samples), PIECE))
    for number, batch in enumerate(np.split(samples, starts[1:])):
        for start in range(0, len(batch), PIECE):
            piece = batch[start : start + PIECE]
            centred = np.subtract(piece, mean, out=place[: len(piece)])
            excess[number] += centred.sum()
            scatter += float(np.dot(centred, centred))
    most = abs(mean) + math.sqrt(scatter)  # no value is larger
    if scatter <= len(samples) * (1e-9 * most) ** 2:
        most = max(abs(float(samples.max())), abs(float(samples.min())))
    return excess, scatter, most


def inflation(excess: Floats, caution: float = CAUTION) -> float:
    """By what factor the correlation of neighbours raises the variance of the mean: (1 + r) / (1 - r), at least 1."""
    together = lag_one(excess, mean_terms=3.0, caution=caution)
    return (1 + together) / (1 - together)


def lag_one(residuals: Floats, mean_terms: float, caution: float = CAUTION) -> float:
    """Correlation of each residual with the next, 0 to 0.95, corrected for its bias and on the side of caution.

    mean_terms: of the bias (1 + mean_terms * r) / n; 3 where a mean was taken off, 4 where a trend was.
    """
    count = len(residuals)
    scatter = float(np.dot(residuals, residuals))
    if count < 3 or scatter <= 0:
        return 0.0
    seen = float(np.dot(residuals[1:], residuals[:-1])) / scatter * count / (count - 1)
    likely = seen + (1 + mean_terms * seen) / count
    careful = likely + caution * math.sqrt(max(1 - likely * likely, 0.0) / count)
    return min(max(careful, 0.0), MOST_CORRELATION)
