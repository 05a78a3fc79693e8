"""Whether a level gets slower or faster while it lasts: a line, or a step, through the medians of blocks of time.

A line, or a step at a moment in the middle, is drawn through their logarithms by least squares, so that its rise is a
ratio. Neighbouring blocks share a queue: the correlation of the residuals is corrected for as of an autoregressive
process (dependence.py), and what is left is held against Student's t; the steepest of all shapes tried counts, so that
its chance is taken times their number (Bonferroni). Ranks (H. B. Mann, "Nonparametric Tests Against Trend",
Econometrica 13 (1945) 245-259) would have no power left on twenty blocks where a healthy level is to be called drifting
in less than one of a hundred.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from harness.measure.records import COMPLETED, Floats, Records, by_pieces
from harness.stats.dependence import lag_one
from harness.stats.metrics import BY_NAME, gap_ends
from harness.stats.quantile import quantile, quantiles_of_sorted
from harness.stats.window import Window

BLOCKS = 20
LEAST_IN_BLOCK = 3  # samples, for a median that means something
LEAST_BLOCKS = 8
STEPS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)  # of the window: when a change may come at once
PACES, WAITS = ("itl", "tpot"), ("ttft", "e2e")
# Waits for a place wander for longer than a level lasts though nothing changes, and spread far more than this (p90 over
# p10; an exponential wait: 22): then they tell nothing of the engine.
WAITS_SPREAD = 3.0
RATIO, CHANCE = 1.08, 3e-4  # what counts as a drift: slower or faster by this, and not by chance


@dataclass(frozen=True)
class Trend:
    """ratio: of the figure at the end of the window over that at its begin, by the line. chance: of a line as steep, to
    either side, where nothing changes.
    """

    metric: str
    ratio: float
    chance: float

    @property
    def drifts(self) -> bool:
        return abs(math.log(self.ratio)) > math.log(RATIO) and self.chance < CHANCE


def trends(inside: Records, window: Window) -> list[Trend]:
    """Of every metric with enough samples. inside: the records due in the window."""
    done = inside.select(inside.having(COMPLETED))
    found = []
    for name in (*PACES, *WAITS):
        values = BY_NAME[name].of(done)
        if name in WAITS and _spread(values.ordered) > WAITS_SPREAD:
            continue
        # A gap is of the moment at which it ended, and an answer of the moment at which it was due.
        moments = done.token_at[gap_ends(done)] if name == "itl" else done.scheduled_at[values.request]
        trend = trend_of(name, moments, values.samples, window)
        if trend is not None:
            found.append(trend)
    return found


def trend_of(name: str, moments: Floats, samples: Floats, window: Window) -> Trend | None:
    """None where there are too few samples."""
    length = max(window.length, 1e-9)
    place = by_pieces(
        moments, lambda part: np.clip(np.floor((part - window.start) / length * BLOCKS), -1, BLOCKS), np.int8
    )
    order = np.argsort(place, kind="stable")
    before = np.cumsum(np.bincount(place + 1, minlength=BLOCKS + 2))  # those of no block are the first and the last
    blocks = np.split(samples[order], before[:-1])[1:-1]
    kept = [number for number, block in enumerate(blocks) if len(block) >= LEAST_IN_BLOCK]
    if len(kept) < LEAST_BLOCKS:
        return None
    at = (np.array(kept) + 0.5) / BLOCKS
    medians = np.log(np.maximum([quantile(blocks[number], 0.5) for number in kept], 1e-9))
    shapes = [at, *((at > moment).astype(np.float64) for moment in STEPS)]
    rises = [_rise(shape, medians) for shape in shapes if min(np.sum(shape < 0.5), np.sum(shape >= 0.5)) >= 2]
    if not rises:
        return None
    rise, chance = min(rises, key=lambda each: each[1])
    return Trend(name, math.exp(rise), min(1.0, chance * len(rises)))


def _spread(ordered: Floats) -> float:
    low, high = quantiles_of_sorted(ordered, [0.1, 0.9])
    return float(high) / max(float(low), 1e-9)


def _rise(shape: Floats, medians: Floats) -> tuple[float, float]:
    """Of the medians with a shape that goes from 0 to 1, and how likely as much is by chance."""
    centred = shape - shape.mean()
    spread = float(np.dot(centred, centred))
    slope = float(np.dot(centred, medians)) / spread
    residuals: Floats = medians - medians.mean() - slope * centred
    freedom = len(shape) - 2
    together = lag_one(residuals, mean_terms=4.0)
    scatter = float(np.dot(residuals, residuals)) / freedom + 1e-12
    error = math.sqrt(scatter / spread * (1 + together) / (1 - together))
    worth = max(freedom * (1 - together) / (1 + together), 4.0)  # correlated blocks are worth fewer
    return slope, 2 * float(stdtr(worth, -abs(slope) / error))
