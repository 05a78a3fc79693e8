"""The figures of one level of one run, each with its standard error from that run's requests alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from harness.measure.records import COMPLETED, Floats, Records
from harness.measure.run import Run
from harness.stats.absence import NOT_TOLD, as_asked, main_cause
from harness.stats.interval import quantile_interval
from harness.stats.metrics import BY_NAME, Values
from harness.stats.quantile import quantiles_of_sorted
from harness.stats.resample import block_counts, grid, quantiles_on_grid, resampled_counts
from harness.stats.slo import QUANTILES
from harness.stats.tokens import counted, stamped, tokens_per_event
from harness.stats.window import Window, steady_window

DRAWS = 400
SEED = 20240229
THROUGHPUT = "output_tokens_per_second"
SLICES = 20  # of a window, for the spread of throughput
FROM_DUE = ("ttft", "service_ttft", "e2e")  # metrics in which a request that was never answered is infinitely late


@dataclass(frozen=True)
class Measured:
    """value: seconds, or tokens per second; infinite where too many requests were never answered. within: standard
    error of its logarithm, as far as the requests of this run tell.
    """

    value: float
    within: float


class LevelFigures(Protocol):
    """All that a comparison reads of one level of one run: made from its records (Part), or as a baseline keeps it
    (kept_figures.py). load: in words, such as `8 users`.
    """

    @property
    def load(self) -> str: ...

    @property
    def due(self) -> int:
        """Requests due in the window."""
        ...

    def measured(self, figure: str) -> Measured | None:
        """The figure; None where the run has no such samples, or only zeros."""
        ...

    def carries(self, figure: str) -> bool:
        """Whether there are enough requests for this quantile: its interval has an upper end, as `too_few` asks for."""
        ...

    def why_absent(self, figure: str) -> str | None:
        """Why there is no sample of it, in words; None where there are some, or where nobody knows why."""
        ...

    def tokens_per_event(self) -> float:
        """NaN where it is not told."""
        ...

    @property
    def answers(self) -> Floats:
        """How long each answer took from the moment its request was due, in seconds; empty where `usual` is kept."""
        ...

    @property
    def usual(self) -> float | None:
        """What is usual over all runs of the side (good_share.usual), where that alone is kept."""
        ...

    def bad(self, stuck: float) -> int:
        """Requests due that were not answered, or took longer than `stuck` seconds."""
        ...


@dataclass(frozen=True)
class Part:
    """One level of one run, from its records. requests: due in the window. completed: those that were answered."""

    load: str
    window: Window
    records: Records
    requests: Records
    completed: Records
    usual: None = None
    _known: dict[str, Measured | None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def due(self) -> int:
        return len(self.requests)

    @property
    def missed(self) -> int:
        """Requests due in the window that failed, were dropped, or had no outcome at the end."""
        return len(self.requests) - len(self.completed)

    def measured(self, figure: str) -> Measured | None:
        if figure not in self._known:
            self._known.update(self.measured_together([figure]))
        return self._known[figure]

    def measured_together(self, figures: Sequence[str]) -> dict[str, Measured | None]:
        """Each of them; quantiles of one metric in a row share what they are drawn from, and are found sooner."""
        found: dict[str, Measured | None] = {}
        metric, drawn = "", None
        for figure in figures:
            if figure == THROUGHPUT:
                found[figure] = self._throughput()
                continue
            quantile = self._quantile(figure)
            if quantile is None or math.isinf(quantile[0]):
                found[figure] = None if quantile is None else Measured(math.inf, 0.0)
                continue
            value, level, values = quantile
            if drawn is None or metric != figure.rpartition("_")[0]:
                metric, drawn = figure.rpartition("_")[0], _Drawn(values)
            found[figure] = Measured(value, drawn.spread(level))
        return found

    def value(self, figure: str) -> float | None:
        """The figure alone, which is quicker to have; None as of `measured`."""
        if figure == THROUGHPUT:
            return float(_rates(self).mean()) or None
        found = self._quantile(figure)
        return None if found is None else found[0]

    def carries(self, figure: str) -> bool:
        name, _, statistic = figure.rpartition("_")
        values = BY_NAME[name].of(self.completed)
        return bool(np.isfinite(quantile_interval(values, values.ordered, QUANTILES[statistic])[1]))

    def why_absent(self, figure: str) -> str | None:
        if figure == THROUGHPUT:
            return NOT_TOLD.text if len(self.completed) and not counted(self.completed).any() else None
        metric = figure.rpartition("_")[0]
        if len(BY_NAME[metric].of(self.completed).samples):
            return None
        found = main_cause(self.completed, metric)
        return None if found is None else found[0].text

    def tokens_per_event(self) -> float:
        return tokens_per_event(self.completed)

    def bad(self, stuck: float) -> int:
        return self.missed + int(np.count_nonzero(self.answers > stuck))

    @property
    def answers(self) -> Floats:
        """How long each answer took from the moment its request was due, in seconds."""
        return BY_NAME["e2e"].of(self.completed).samples

    def _throughput(self) -> Measured | None:
        rates = _rates(self)
        mean = float(rates.mean())
        return Measured(mean, float(np.std(rates, ddof=1)) / math.sqrt(SLICES) / mean) if mean > 0 else None

    def _quantile(self, figure: str) -> tuple[float, float, Values] | None:
        """The figure, and the level that it has among the samples of those that were answered."""
        name, _, statistic = figure.rpartition("_")
        level, values = QUANTILES[statistic], BY_NAME[name].of(self.completed)
        if len(values.samples) == 0:
            return (math.inf, level, values) if name in FROM_DUE and self.missed else None
        ordered = values.ordered
        if name in FROM_DUE and self.missed:
            late = np.concatenate([ordered, np.full(self.missed, math.inf)])
            value = float(quantiles_of_sorted(late, [level])[0])
            level = level * (len(late) - 1) / max(len(ordered) - 1, 1)
        else:
            value = float(quantiles_of_sorted(ordered, [level])[0])
        return (value, min(level, 1.0), values) if value > 0 else None


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


class _Drawn:
    """Samples whose blocks of consecutive requests are drawn anew, for the spread of their quantiles."""

    def __init__(self, values: Values) -> None:
        self._points = grid(values.ordered)
        counts = block_counts(values, self._points)
        few = len(counts) < 2
        self._counts = None if few else resampled_counts([counts], DRAWS, np.random.default_rng(SEED))

    def spread(self, level: float) -> float:
        """Standard error of the quantile's logarithm."""
        if self._counts is None:
            return 0.0
        drawn = quantiles_on_grid(self._counts, self._points, level)
        return float(np.std(np.log(np.maximum(drawn, 1e-9))))


def _rates(part: Part) -> Floats:
    """Generated tokens per second in slices of the window."""
    edges = np.linspace(part.window.start, part.window.end, SLICES + 1)
    moments, tokens = stamped(part.records)
    return np.asarray(np.histogram(moments, edges, weights=tokens)[0] / max(part.window.length / SLICES, 1e-9))
