"""Figures at each history length and load: measured cells, and interpolation between them.

Measured are the levels that the searches asked for, which lie where they tell most: beside the limit of each history.
Between two loads of one history, and between two histories, figures are interpolated: in a straight line of their
logarithm over that of the load, or of the history, as latencies grow by factors. Nothing is said beyond what was
measured.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from harness.measure.records import COMPLETED, Floats, Records
from harness.measure.run_folder import Level
from harness.measure.server import ServerSamples
from harness.stats.binding import Binding, binding
from harness.stats.metrics import BY_NAME
from harness.stats.outcome import Outcome
from harness.stats.people import Flow
from harness.stats.quantile import quantile
from harness.stats.series import waiting_for_first
from harness.stats.server import server_figures
from harness.stats.window import steady_window

SAME = 0.02  # of the logarithm of a rate: so near a measured one none is interpolated beside it
COLUMNS = 6  # loads of the grid
_INTERPOLATED = ("ttft_p95", "itl_p95", "waiting", "output_tokens_per_second")


@dataclass(frozen=True)
class Figures:
    """Of one level. ttft_p95, itl_p95: seconds; NaN where there is none. waiting: requests without a first token, mean
    over time, as the client sees it. kv_used: the largest share of the KV cache; None where the engine does not tell.
    """

    ttft_p95: float
    itl_p95: float
    waiting: float
    output_tokens_per_second: float
    kv_used: float | None
    binds: Binding

    def as_dict(self) -> dict[str, Any]:
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in {**asdict(self), "binds": self.binds.as_dict()}.items()
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Figures:
        """The reverse of as_dict. Raises KeyError, TypeError and ValueError for what as_dict did not make."""
        numbers = {name: math.nan if entry[name] is None else float(entry[name]) for name in _INTERPOLATED}
        kv_used = None if entry["kv_used"] is None else float(entry["kv_used"])
        return cls(**numbers, kv_used=kv_used, binds=Binding(**entry["binds"]))


def figures_of(
    level: Level, records: Records, outcome: Outcome, flow: Flow, samples: ServerSamples, places: float | None
) -> Figures:
    """records: of one level, all of it. places: as in `binding`."""
    window = steady_window(level, records)
    inside = records.select(window.holds(records.scheduled_at))
    done = inside.select(inside.having(COMPLETED))
    nearest = outcome.attainment
    server = server_figures(samples, window.start, level.ended_at or window.end)
    moments: Floats = np.linspace(window.start, window.end, 200)
    return Figures(
        ttft_p95=_p95(BY_NAME["ttft"].of(done).samples),
        itl_p95=_p95(BY_NAME["itl"].of(done).samples),
        waiting=float(waiting_for_first(records, moments).mean()) if len(records) else 0.0,
        output_tokens_per_second=flow.output_tokens_per_second,
        kv_used=server.kv_used,
        binds=binding(inside, server, nearest.bound if nearest and nearest.share < 1 else None, places),
    )


def _p95(samples: Floats) -> float:
    known = samples[~np.isnan(samples)]
    return quantile(known, 0.95) if len(known) else math.nan


@dataclass(frozen=True)
class Cell:
    """One history and load. share: of the requests within the SLO's nearest bound, None where interpolated. figures:
    None where nothing near was measured; measured: not interpolated.
    """

    history: int | None
    load: float
    measured: bool
    share: float | None
    figures: Figures | None

    def as_dict(self) -> dict[str, Any]:
        figures = self.figures.as_dict() if self.figures is not None else None
        return {"history_tokens": self.history, "load": self.load, "measured": self.measured,
                "share": self.share, "figures": figures}  # fmt: skip


@dataclass(frozen=True)
class HistoryRow:
    """A history that was measured: figures by load. Of several levels at one load the last one counts."""

    history: int | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Surface:
    """histories: ascending, those between two measured ones among them. loads: ascending. cells: of each pair."""

    histories: tuple[int | None, ...]
    loads: tuple[float, ...]
    cells: tuple[Cell, ...]

    def at(self, history: int | None, load: float) -> Cell:
        return next(each for each in self.cells if (each.history, each.load) == (history, load))

    def as_list(self) -> list[dict[str, Any]]:
        return [each.as_dict() for each in self.cells]


def row_of(history: int | None, told: Sequence[tuple[Outcome, Figures]]) -> HistoryRow:
    """Loads are those that came."""
    last = {outcome.offered: (outcome, figures) for outcome, figures in told}
    cells = []
    for load, (outcome, figures) in sorted(last.items()):
        nearest = outcome.attainment
        cells.append(Cell(history, load, True, nearest.share if nearest else None, figures))
    return HistoryRow(history, tuple(cells))


def surface_of(rows: Sequence[HistoryRow], knees: Sequence[float], *, whole: bool) -> Surface:
    """rows: as measured. knees: the loads that the answers speak of, which the grid has. whole: loads are whole."""
    measured = sorted((row for row in rows if row.cells), key=lambda row: row.history or 0)
    loads = _loads(measured, knees, whole)
    cells = [_cell(row.history, load, row, row, 0.0) for row in measured for load in loads]
    histories: list[int | None] = [row.history for row in measured]
    for lower, upper in pairwise(measured):
        if lower.history and upper.history and lower.history < upper.history:
            middle = round(math.sqrt(lower.history * upper.history))
            histories.append(middle)
            cells += [_cell(middle, load, lower, upper, 0.5) for load in loads]
    return Surface(tuple(sorted(histories, key=lambda each: each or 0)), loads, tuple(cells))


def _loads(rows: Sequence[HistoryRow], knees: Sequence[float], whole: bool) -> tuple[float, ...]:
    """Those that the answers speak of, and others spread evenly (by factors) over what was measured."""
    told = [cell.load for row in rows for cell in row.cells]
    if not told:
        return ()
    spread = np.geomspace(min(told), max(told), COLUMNS)
    measured = np.array(sorted(set(told)))
    near = [_nearest(measured, wanted) for wanted in spread]
    known = [each for each in knees if each > 0]
    asked = [float(round(each)) for each in known] if whole else [_nearest(measured, each, SAME) for each in known]
    return tuple(sorted({*near, *asked}))


def _nearest(measured: Floats, wanted: float, within: float = math.inf) -> float:
    """The measured load that is nearest by factors; the wanted one where none is so near."""
    away = np.abs(np.log(measured / wanted))
    return float(measured[away.argmin()]) if away.min() <= within else wanted


def _cell(history: int | None, load: float, lower: HistoryRow, upper: HistoryRow, between: float) -> Cell:
    """between: how far the history lies from the lower row's, 0 to 1, of the logarithm."""
    if lower is upper:
        exact = next((cell for cell in lower.cells if cell.load == load), None)
        if exact is not None:
            return exact
    ends = [_within(row, load) for row in (lower, upper)]
    if ends[0] is None or ends[1] is None:
        return Cell(history, load, False, None, None)
    return Cell(history, load, False, None, _mixed(ends[0], ends[1], between))


def _within(row: HistoryRow, load: float) -> Figures | None:
    """The figures of this history at this load, where it was measured on both sides of it."""
    loads = [cell.load for cell in row.cells]
    place = bisect_left(loads, load)
    if place < len(loads) and loads[place] == load:
        return row.cells[place].figures
    if place in (0, len(loads)):
        return None
    low, high = row.cells[place - 1], row.cells[place]
    if low.figures is None or high.figures is None:
        return None
    share = math.log(load / low.load) / math.log(high.load / low.load)
    return _mixed(low.figures, high.figures, share)


def _mixed(low: Figures, high: Figures, share: float) -> Figures:
    """Geometric where both are above zero, else in a straight line. What binds is said where both ends agree."""
    numbers = {}
    for name in _INTERPOLATED:
        first, last = getattr(low, name), getattr(high, name)
        if first > 0 and last > 0:
            numbers[name] = float(first ** (1 - share) * last**share)
        else:
            numbers[name] = (1 - share) * first + share * last
    kv = None if low.kv_used is None or high.kv_used is None else (1 - share) * low.kv_used + share * high.kv_used
    same = low.binds.resource == high.binds.resource
    binds = Binding(low.binds.resource if same else None, "as on both sides" if same else "the two sides differ")
    return Figures(**numbers, kv_used=kv, binds=binds)
