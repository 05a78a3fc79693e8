"""What the engine said of itself during a run, under the names that all engines share, from server.parquet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import UsageError
from harness.input_files import brief
from harness.measure.run_folder import RunFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARED = "harness:"  # what such a metric's name begins with in the file


@dataclass(frozen=True)
class ServerSamples:
    """Time series by shared name (`running`, `preempted`, ...): moments in seconds since the run's start, ascending,
    and values.
    """

    series: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=dict)

    def values(self, name: str, start: float, end: float) -> NDArray[np.float64]:
        """Values of one series that were read between two moments; empty where it was never told."""
        moments, values = self.series.get(name, _NONE)
        return values[(moments >= start) & (moments <= end)]

    def growth(self, name: str, start: float, end: float) -> float | None:
        """By how much a counter grew between the last reading before `start` and the first one after `end`, as far as
        there are such; None with fewer than two readings. A counter that fell was begun anew: its value is the growth.
        """
        moments, values = self.series.get(name, _NONE)
        first = max(0, int(np.searchsorted(moments, start, side="right")) - 1)
        last = min(len(moments) - 1, int(np.searchsorted(moments, end, side="left")))
        if last <= first:
            return None
        steps = np.diff(values[first : last + 1])
        return float(np.where(steps < 0, values[first + 1 : last + 1], steps).sum())


_COLUMNS = {"at": "float64", "metric": "string", "value": "float64"}
_NONE = (np.empty(0), np.empty(0))


def read_server(folder: RunFolder, complete: bool = False) -> ServerSamples:
    """Empty where the file is not there: a run without it is whole all the same. Where it cannot be read, likewise if
    the run was cut off, which may have cut the file too; of a complete run, UsageError.
    """
    if not folder.server.is_file():
        return ServerSamples()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with folder.server.open("rb") as file:  # by its path Arrow takes only UTF-8
            table = pq.read_table(file, columns=list(_COLUMNS))
        columns = {name: table[name].cast(kind).to_pylist() for name, kind in _COLUMNS.items()}
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        if not complete:
            return ServerSamples()
        advice = "Remove it to report without what the engine said."
        raise UsageError(f"cannot be read: {brief(error)}", where=str(folder.server), advice=advice) from error
    names = np.asarray(columns["metric"], dtype=object)
    moments, values = (np.asarray(columns[name], dtype=np.float64) for name in ("at", "value"))
    known = np.isfinite(moments) & np.isfinite(values)
    names, moments, values = names[known], moments[known], values[known]
    series = {}
    for name in sorted({each for each in names if isinstance(each, str) and each.startswith(SHARED)}):
        chosen = names == name
        order = np.argsort(moments[chosen], kind="stable")
        series[name.removeprefix(SHARED)] = (moments[chosen][order], values[chosen][order])
    return ServerSamples(series)
