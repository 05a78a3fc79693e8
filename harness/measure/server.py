"""Reads server.parquet: the engine's figures under names that all engines share, and samples of GPUs and the client's
machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import UsageError
from harness.input_files import brief
from harness.measure.run_folder import RunFolder

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

SHARED = "harness:"  # what such a metric's name begins with in the file
UNMEASURED = "_not_measured"  # ends the name of what a sampler writes that can read nothing; its label `why` says why

Series = tuple["NDArray[np.float64]", "NDArray[np.float64]"]


@dataclass(frozen=True)
class ServerSamples:
    """Time series by shared name (`running`, `preempted`, ...): moments in seconds since the run's start, ascending,
    and values. One of several things has its labels behind the name, `gpu_power_watts{gpu=0,model=NVIDIA L4}`.

    unmeasured: why a sampler (`gpu`) had nothing to tell.
    """

    series: Mapping[str, Series] = field(default_factory=dict)
    unmeasured: Mapping[str, str] = field(default_factory=dict)

    def each(self, name: str) -> list[Series]:
        """The series of this name of all things that have one."""
        return [series for key, series in self.series.items() if key.partition("{")[0] == name]

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


_NONE: Series = (np.empty(0), np.empty(0))


def read_server(folder: RunFolder, complete: bool = False) -> ServerSamples:
    """From server.parquet; of a run that was killed before it was written, what its journal holds. Empty where neither
    is there: a run without them is whole all the same. Where the file cannot be read, likewise if the run was cut off,
    which may have cut the file too; of a complete run, UsageError.
    """
    if not folder.server.is_file() and not folder.server_journal.is_file():
        return ServerSamples()
    import pyarrow as pa

    try:
        table = _ours(_parquet(folder) if folder.server.is_file() else _journalled(folder))
        moments, values = (table[name].to_numpy().astype(np.float64) for name in ("at", "value"))
        metrics, labels = table["metric"].to_pylist(), table["labels"].to_pylist()  # text may be no UTF-8
        return samples_of(moments, metrics, labels, values)
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        if not complete:
            return ServerSamples()
        advice = "Remove it to report without what was read beside the load."
        raise UsageError(f"cannot be read: {brief(error)}", where=str(folder.server), advice=advice) from error


def samples_of(
    moments: NDArray[np.float64], metrics: Sequence[str], labels: Sequence[Any], values: NDArray[np.float64]
) -> ServerSamples:
    """Of the columns of server.parquet, rows of shared names only. labels: pairs of each row."""
    keys = [_key(metric, told) for metric, told in zip(metrics, labels)]
    names = np.asarray(keys, dtype=object)
    known = np.isfinite(moments) & np.isfinite(values)
    series = {}
    for name in sorted({key for key in keys if not key.partition("{")[0].endswith(UNMEASURED)}):
        chosen = np.flatnonzero((names == name) & known)
        chosen = chosen[np.argsort(moments[chosen], kind="stable")]
        series[name] = (moments[chosen], values[chosen])
    reasons = {
        metric.removeprefix(SHARED).removesuffix(UNMEASURED): dict(told or ()).get("why", "")
        for metric, told in zip(metrics, labels)
        if metric.endswith(UNMEASURED)
    }
    return ServerSamples(series, reasons)


def _parquet(folder: RunFolder) -> pa.Table:
    import pyarrow.parquet as pq

    with folder.server.open("rb") as file:  # by its path Arrow takes only UTF-8
        return pq.ParquetFile(file).read()


def _journalled(folder: RunFolder) -> pa.Table:
    """All readings up to the one in which the stream was cut. Raises ArrowInvalid where not even its head is whole."""
    import pyarrow as pa

    batches = []
    with folder.server_journal.open("rb") as file:
        stream = pa.ipc.open_stream(file)
        with suppress(pa.ArrowException, OSError):
            for batch in stream:
                batches.append(batch)  # what came before a cut is kept
        return pa.Table.from_batches(batches, stream.schema)


def _ours(whole: pa.Table) -> pa.Table:
    """The rows of shared names. An engine's own page is many times as large, and is not made Python objects of."""
    import pyarrow as pa
    import pyarrow.compute as pc

    labels = pa.map_(pa.string(), pa.string())
    kinds = {"at": pa.float64(), "metric": pa.string(), "labels": labels, "value": pa.float64()}
    if "labels" not in whole.column_names:
        whole = whole.append_column("labels", pa.nulls(len(whole), labels))
    chosen = whole.filter(pc.fill_null(pc.starts_with(whole["metric"].cast(pa.string()), SHARED), False))
    return pa.table({name: chosen[name].cast(kind) for name, kind in kinds.items()})


def _key(metric: str, labels: Any) -> str:
    """The name under which a row's series is kept."""
    told = ",".join(f"{name}={value}" for name, value in sorted(labels or ()))
    name = metric.removeprefix(SHARED)
    return f"{name}{{{told}}}" if told else name
