"""One figure of one level of one run, and how well the requests of that run alone pin it down."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.measure.records import COMPLETED, Floats, Records
from harness.measure.run import Run
from harness.stats.absence import as_asked
from harness.stats.interval import quantile_interval
from harness.stats.metrics import BY_NAME, Values
from harness.stats.quantile import quantiles_of_sorted
from harness.stats.resample import block_counts, grid, quantiles_on_grid, resampled_counts
from harness.stats.slo import QUANTILES
from harness.stats.tokens import stamped
from harness.stats.window import Window, steady_window

DRAWS = 400
SEED = 20240229
THROUGHPUT = "output_tokens_per_second"
SLICES = 20  # of a window, for the spread of throughput
FROM_DUE = ("ttft", "service_ttft", "e2e")  # metrics in which a request that was never answered is infinitely late


@dataclass(frozen=True)
class Part:
    """One level of one run. due: requests due in the window. completed: those of them that were answered."""

    load: str
    window: Window
    records: Records
    due: Records
    completed: Records

    @property
    def missed(self) -> int:
        """Requests due in the window that failed, were dropped, or had no outcome at the end."""
        return len(self.due) - len(self.completed)


def levels_of(run: Run) -> dict[int, Part]:
    """Each level that sent anything, by its number."""
    parts = {}
    whole = as_asked(run.records, run.manifest)
    for level in run.manifest.levels:
        records = whole.select(whole.level == level.level).sorted()
        if len(records):
            window = steady_window(level, records)
            due = records.select(window.holds(records.scheduled_at))
            load = f"{level.users} users" if level.users is not None else f"{level.rate:g}/s" if level.rate else "trace"
            parts[level.level] = Part(load, window, records, due, due.select(due.having(COMPLETED)))
    return parts


@dataclass(frozen=True)
class Measured:
    """value: seconds, or tokens per second; infinite where too many requests were never answered. within: standard
    error of its logarithm, as far as the requests of this run tell.
    """

    value: float
    within: float


def measured(figure: str, part: Part) -> Measured | None:
    """The figure; None where the run has no such samples, or only zeros."""
    if figure == THROUGHPUT:
        rates = _rates(part)
        mean = float(rates.mean())
        return Measured(mean, float(np.std(rates, ddof=1)) / math.sqrt(SLICES) / mean) if mean > 0 else None
    found = _quantile(figure, part)
    if found is None or math.isinf(found[0]):
        return None if found is None else Measured(found[0], 0.0)
    value, level, values = found
    return Measured(value, _spread_of_quantile(values, level))


def value_of(figure: str, part: Part) -> float | None:
    """The figure alone, which is quicker to have; None as of `measured`."""
    if figure == THROUGHPUT:
        return float(_rates(part).mean()) or None
    found = _quantile(figure, part)
    return None if found is None else found[0]


def carries(figure: str, part: Part) -> bool:
    """Whether the run has enough requests for this quantile: its interval has an upper end, as `too_few` asks for."""
    name, _, statistic = figure.rpartition("_")
    values = BY_NAME[name].of(part.completed)
    return bool(np.isfinite(quantile_interval(values, np.sort(values.samples), QUANTILES[statistic])[1]))


def _quantile(figure: str, part: Part) -> tuple[float, float, Values] | None:
    """The figure, and the level that it has among the samples of those that were answered."""
    name, _, statistic = figure.rpartition("_")
    level, values = QUANTILES[statistic], BY_NAME[name].of(part.completed)
    if len(values.samples) == 0:
        return (math.inf, level, values) if name in FROM_DUE and part.missed else None
    ordered = np.sort(values.samples)
    if name in FROM_DUE and part.missed:
        late = np.concatenate([ordered, np.full(part.missed, math.inf)])
        value = float(quantiles_of_sorted(late, [level])[0])
        level = level * (len(late) - 1) / max(len(ordered) - 1, 1)
    else:
        value = float(quantiles_of_sorted(ordered, [level])[0])
    return (value, min(level, 1.0), values) if value > 0 else None


def _spread_of_quantile(values: Values, level: float) -> float:
    """Standard error of the quantile's logarithm, from blocks of consecutive requests that are drawn anew."""
    points = grid(np.sort(values.samples))
    counts = block_counts(values, points)
    if len(counts) < 2:
        return 0.0
    drawn = quantiles_on_grid(resampled_counts([counts], DRAWS, np.random.default_rng(SEED)), points, level)
    return float(np.std(np.log(np.maximum(drawn, 1e-9))))


def _rates(part: Part) -> Floats:
    """Generated tokens per second in slices of the window."""
    edges = np.linspace(part.window.start, part.window.end, SLICES + 1)
    moments, tokens = stamped(part.records)
    return np.asarray(np.histogram(moments, edges, weights=tokens)[0] / max(part.window.length / SLICES, 1e-9))
