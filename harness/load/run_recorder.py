"""What every run of a load writes besides its records, whoever drives it: the manifest's facts of the service and the
client, and the engine's own metrics.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence

import psutil

from harness import __version__
from harness.engines import ENGINES
from harness.engines.base import Endpoint, EngineInfo
from harness.engines.identify import extras_of
from harness.load.scrape import Scraper
from harness.measure.clock import Anchor
from harness.measure.run_folder import Level, Manifest, RunFolder, clock_entry, utc_text
from harness.workload.workload import Asked, Dataset, Replayed, summarise


def begin_manifest(
    folder: RunFolder,
    anchor: Anchor,
    info: EngineInfo,
    endpoint: Endpoint,
    workload: Asked,
    levels: Sequence[Level],
    *,
    program: str,
    api: str,
    stream: bool,
    seed: int,
    timeout: float,
    requests: int | None = None,
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
        dataset=workload.trace.facts() if isinstance(workload, Replayed | Dataset) else None,
        lengths=summarise(workload, requests),
        seeds={"workload": seed, "arrivals": seed},
        timeout=timeout,
    )


def asked_model(info: EngineInfo, endpoint: Endpoint) -> str:
    """The model that a URL serves; one of several goes by the name that it is asked by."""
    alone = info.engine in {engine.name for engine in ENGINES} and len(info.model_names) < 2
    return (info.model_id if alone else endpoint.model_name) or "unknown"


def scraper_for(info: EngineInfo, endpoint: Endpoint, clock_monotonic: float) -> Scraper:
    """Reads the metrics as the engine that answers writes them; of an unknown one the page alone is kept."""
    for engine in ENGINES:
        if engine.name == info.engine:
            return Scraper(endpoint, clock_monotonic, engine.read_gauges, others=engine.gauge_pages)
    return Scraper(endpoint, clock_monotonic)
