"""Reads all samplers beside a load, once a second in one thread, and collects their values for server.parquet.

Until that is written, at the end of the load, all of it also goes to a journal as it comes, from which a run that was
killed is reported.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.engines.gauges import NOTHING_TOLD, Gauges
from harness.load.samplers import SAMPLERS
from harness.load.samplers.base import NotMeasured, SampledService, SampledValue, Sampler, unmeasured
from harness.load.samplers.engine import EngineSampler
from harness.measure.run_folder import naming
from harness.measure.server import SHARED, ServerSamples, samples_of

SCHEMA = pa.schema(
    [
        ("at", pa.float64()),
        ("metric", pa.string()),
        ("labels", pa.map_(pa.string(), pa.string())),
        ("value", pa.float64()),
    ]
)


class _Journal:
    """Readings as they come: an Arrow stream of batches, each of which the kernel has before the next reading."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._stream: pa.ipc.RecordBatchStreamWriter | None = None
        self._over = False

    def add(self, at: float, readings: Sequence[SampledValue]) -> None:
        """Nothing more once the disk has refused it: what is in memory is still written at the end, where it can be."""
        if self._over:
            return
        try:
            if self._file is None or self._stream is None:
                self._file = self._path.open("wb")  # by its path Arrow takes only UTF-8
                options = pa.ipc.IpcWriteOptions(compression="zstd")
                self._stream = pa.ipc.new_stream(self._file, SCHEMA, options=options)
            told = ([at] * len(readings), *zip(*readings)) if readings else ([], [], [], [])
            columns = dict(zip(("at", "metric", "value", "labels"), told))
            self._stream.write_batch(pa.record_batch([pa.array(columns[each.name], each.type) for each in SCHEMA],
                                                     schema=SCHEMA))  # fmt: skip
            self._file.flush()
        except OSError:
            self._over = True

    def remove(self) -> None:
        """It is no longer needed."""
        self._over = True
        if self._file is not None:
            self._file.close()
        self._path.unlink(missing_ok=True)


@dataclass
class Samples:
    """Columns of server.parquet, which grow by all readings of a sampler at once. at: seconds since the run's start.
    kept_in: a file that holds them until `write` is done.
    """

    at: list[float] = field(default_factory=list)
    metric: list[str] = field(default_factory=list)
    labels: list[tuple[tuple[str, str], ...]] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    kept_in: InitVar[Path | None] = None
    _whole: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __post_init__(self, kept_in: Path | None) -> None:
        self._journal = None if kept_in is None else _Journal(kept_in)

    def add(self, at: float, readings: Sequence[SampledValue]) -> None:
        with self._whole:
            self.at += [at] * len(readings)
            self.metric += [each.metric for each in readings]
            self.labels += [each.labels for each in readings]
            self.value += [each.value for each in readings]
            if self._journal is not None:
                self._journal.add(at, readings)

    def since(self, moment: float) -> ServerSamples:
        """What was read from this moment on, of the figures that all engines share."""
        with self._whole:
            first = bisect_left(self.at, moment)
            rows = [row for row in range(first, len(self.at)) if self.metric[row].startswith(SHARED)]
            return samples_of(
                np.array([self.at[row] for row in rows]),
                [self.metric[row] for row in rows],
                [self.labels[row] for row in rows],
                np.array([self.value[row] for row in rows]),
            )

    def write(self, path: Path) -> None:
        """What was read until now: after Ctrl-C the reading may still go on."""
        with self._whole:
            columns = [self.at, self.metric, self.labels, self.value]
            table = pa.table([pa.array(each, kind.type) for each, kind in zip(columns, SCHEMA)], schema=SCHEMA)
        beside = path.with_name(f".{path.name}.part")
        with naming(path), beside.open("wb") as file:  # by its path Arrow takes only UTF-8
            pq.write_table(table, file, compression="zstd")
        beside.replace(path)
        with self._whole:
            if self._journal is not None:
                self._journal.remove()


class Sampling:
    """A context manager around a load: it reads when it is entered, every `interval` seconds, and when it is left, so
    that counters are known before the first level and after the last one.
    """

    def __init__(
        self,
        service: SampledService,
        clock_monotonic: float,
        interval: float = 1.0,
        samplers: Sequence[Callable[[SampledService], Sampler]] = SAMPLERS,
        kept_in: Path | None = None,
    ) -> None:
        self.samples = Samples(kept_in=kept_in)
        self._samplers: list[Sampler] = [make(service) for make in samplers]
        self._all = tuple(self._samplers)
        self._start, self._interval = clock_monotonic, interval
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampling", daemon=True)

    @property
    def latest(self) -> Gauges:
        """What the engine last told of itself."""
        return next((each.latest for each in self._all if isinstance(each, EngineSampler)), NOTHING_TOLD)

    def soon(self) -> None:
        """Read now rather than at the next interval: a level begins or has ended, and counters are wanted of it."""
        self._wake.set()

    def __enter__(self) -> Sampling:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        try:
            self._read()
            while not self._stop.is_set():
                self._wake.wait(self._interval)
                self._wake.clear()
                self._read()
        finally:
            for each in self._all:
                each.close()

    def _read(self) -> None:
        for each in tuple(self._samplers):
            at = time.monotonic() - self._start
            try:
                self.samples.add(at, each.read())
            except NotMeasured as why:
                self.samples.add(at, [unmeasured(each.name, str(why))])
                self._samplers.remove(each)
