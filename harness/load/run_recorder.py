"""Records a run: its folder and manifest, the samples beside the load, and at the end one file of all records."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import psutil

from harness import __version__
from harness.engines import ENGINES
from harness.engines.base import EngineInfo
from harness.engines.endpoint import Endpoint
from harness.engines.gauges import Gauges
from harness.engines.identify import extras_of
from harness.load.samplers.base import SampledService
from harness.load.sampling import Sampling
from harness.measure.client import Floor
from harness.measure.clock import Anchor
from harness.measure.commit import commit
from harness.measure.run import Run, keep_records
from harness.measure.run_folder import (
    Level,
    Manifest,
    RunFolder,
    clock_entry,
    stack_of_url,
    utc_text,
    write_atomically,
    write_manifest,
)
from harness.measure.server import ServerSamples
from harness.workload.workload import AnyWorkload, Dataset, ReplayedWorkload, summarise


class RunRecorder:
    """One run, from the manifest's first form on. Every change of the manifest is on disk at once.

    Use as a context manager around the load: what is sampled beside it is read as long, and written when it is left.
    """

    def __init__(
        self, folder: RunFolder, manifest: Manifest, info: EngineInfo, endpoint: Endpoint, stack: str | None = None
    ) -> None:
        """stack: what served, as stack.yaml shall have it, without secrets; None for a service known by its address."""
        self.folder, self.manifest = folder, manifest
        write_manifest(folder, manifest)
        stack = stack_of_url(endpoint.url) if stack is None else stack
        write_atomically(folder.stack, stack.encode("utf-8", "backslashreplace"))
        start = float(manifest.clock["monotonic"])
        self._sampling = Sampling(SampledService(endpoint, info), start, kept_in=folder.server_journal)

    def __enter__(self) -> RunRecorder:
        self._sampling.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._sampling.__exit__()
        finally:
            self._sampling.samples.write(self.folder.server)

    @property
    def latest(self) -> Gauges:
        """What the engine last said of itself."""
        return self._sampling.latest

    def sampled(self, since: float) -> ServerSamples:
        """What was read beside the load from this moment on, seconds since the run's start."""
        return self._sampling.samples.since(since)

    def now(self) -> float:
        """Seconds since the run's start."""
        return time.monotonic() - float(self.manifest.clock["monotonic"])

    def note(self, level: Level) -> None:
        """A level that has begun or ended, in place of what was known of it."""
        self.manifest = self.manifest.with_level(level)
        self._sampling.soon()
        write_manifest(self.folder, self.manifest)

    def close(self, *, interrupted: bool = False, gone: bool = False, **changes: Any) -> None:
        """The load is over. interrupted: before its plan was done. gone: the service was away at last, so that the run
        has no end of its own. changes: of the manifest, such as what is known only now.
        """
        end = None if gone else utc_text(datetime.now(timezone.utc))
        self.manifest = replace(self.manifest, end=end, interrupted=interrupted, **changes)
        write_manifest(self.folder, self.manifest)

    def keep(self, floor: Floor | None = None, lost_processes: Sequence[str] = ()) -> Run:
        """One store of all records, in place of the journals."""
        return keep_records(self.folder, floor, lost_processes)


def begin_manifest(
    folder: RunFolder,
    anchor: Anchor,
    info: EngineInfo,
    endpoint: Endpoint,
    workload: AnyWorkload,
    levels: Sequence[Level],
    *,
    program: str,
    api: str,
    stream: bool,
    seed: int,
    timeout: float,
    requests: int | None = None,
    processes: int = 1,
) -> Manifest:
    """The manifest of a run on a service that is known by its address. program: whose command line this is. requests:
    how many there will be, where that is known.
    """
    return Manifest(
        run_id=folder.run_id,
        harness_version=__version__,
        command=(program, *sys.argv[1:]),
        model=asked_model(info, endpoint),
        engine=f"{info.engine} {info.version}" if info.version else info.engine,
        emulated=info.emulated,
        start=utc_text(anchor.utc),
        clock=clock_entry(anchor),
        workload=workload.describe(),
        levels=tuple(levels),
        api=api,
        stream=stream,
        exact_lengths=extras_of(info).sets_length,
        runtime="url",
        url=endpoint.url,
        limits=info.limits.known(),
        host={
            "system": platform.platform(),
            "python": platform.python_version(),
            "cpus": psutil.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        },
        dataset=workload.trace.facts() if isinstance(workload, ReplayedWorkload | Dataset) else None,
        lengths=summarise(workload, requests),
        seeds={"workload": seed, "arrivals": seed},
        timeout=timeout,
        processes=processes,
        commit=commit(),
    )


def asked_model(info: EngineInfo, endpoint: Endpoint) -> str:
    """The model that a URL serves; one of several goes by the name that it is asked by."""
    alone = info.engine in {engine.name for engine in ENGINES} and len(info.model_names) < 2
    return (info.model_id if alone else endpoint.model_name) or "unknown"
