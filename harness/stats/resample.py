"""Bootstrap quantiles of large samples, fast: requests are drawn in blocks, values are counted on a grid.

Blocks of consecutive requests are drawn instead of single ones, so that what neighbours have in common stays in the
result (H. R. Künsch, "The Jackknife and the Bootstrap for General Stationary Observations", Annals of Statistics 17
(1989) 1217-1241). The grid has every distinct value where these are few, and otherwise quantiles that lie closer in the
tail; a resample then costs one row of a matrix product, whether there are a thousand gaps or ten million.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.measure.records import Floats
from harness.stats.interval import block_of_request
from harness.stats.metrics import Values

Counts = NDArray[np.float32]

GRID = 1024
_CENTRE, _TAIL = np.linspace(0, 0.9, GRID // 2), 1 - np.geomspace(0.1, 1e-5, GRID // 2)


def grid(ordered: Floats) -> Floats:
    """Ascending values on which samples are counted. ordered: all samples of all runs compared, ascending."""
    distinct = np.unique(ordered) if len(ordered) <= 4 * GRID else ordered
    if len(distinct) <= GRID:
        return distinct
    places = np.unique(np.round(np.concatenate([_CENTRE, _TAIL, [1.0]]) * (len(ordered) - 1)).astype(np.int64))
    return np.unique(ordered[places])


def block_counts(values: Values, points: Floats) -> Counts:
    """How many samples of each block of requests fall at or below each grid point and above the one before.

    Shape (blocks, points). points must reach up to the largest sample.
    """
    blocks = block_of_request(values.request)
    places = np.searchsorted(points, values.samples, "left")
    flat = np.bincount(blocks * len(points) + places, minlength=(int(blocks[-1]) + 1) * len(points))
    return flat.reshape(-1, len(points)).astype(np.float32)


def resampled_counts(runs: Sequence[Counts], draws: int, random: np.random.Generator) -> Counts:
    """Counts of `draws` resamples, shape (draws, points): first runs are drawn, where there are several, then blocks.

    runs: block_counts of each run.
    """
    total = np.zeros((draws, runs[0].shape[1]), dtype=np.float32)
    drawn_runs = random.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=draws)
    for run, times in zip(runs, drawn_runs.T, strict=True):
        blocks = len(run)
        weights = random.multinomial(times * blocks, np.full(blocks, 1 / blocks)).astype(np.float32)
        total += weights @ run
    return total


def quantiles_on_grid(counts: Counts, points: Floats, level: float) -> Floats:
    """A quantile of each row of counts, linear between grid points."""
    running = np.cumsum(counts, axis=1, dtype=np.float64)
    wanted = level * running[:, -1]
    above = np.minimum((running < wanted[:, None]).sum(axis=1), len(points) - 1)
    rows = np.arange(len(counts))
    before = np.where(above > 0, running[rows, above - 1], 0.0)
    inside = counts[rows, above]
    part = np.clip((wanted - before) / np.where(inside > 0, inside, 1.0), 0.0, 1.0)
    lower = points[np.maximum(above - 1, 0)]
    return lower + part * (points[above] - lower)


def interval(draws: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """The middle part of resampled values."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
