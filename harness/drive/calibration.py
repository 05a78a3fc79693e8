"""Measures the client's own error on this machine, by a load on a null engine with a known schedule, and stores it."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from harness import __version__
from harness.errors import HarnessError, UsageError
from harness.input_files import as_type, read_json_object
from harness.load import runner
from harness.load.null_engine import Truth, read_log
from harness.load.plan import LoadOutcome, LoadPlan
from harness.load.worker_pool import WorkerPool
from harness.measure.client import Floor
from harness.measure.journal import read_journal
from harness.measure.record import RequestRecord
from harness.measure.run_folder import Level, utc_text, write_atomically
from harness.stack.state import state_folder
from harness.stats.quantile import quantile
from harness.units import format_count
from harness.workload.workload import drawn

SCHEMA = 1
LEAST_STREAMS = 64  # fewer are covered by what was measured with these
_TTFT, _ITL, _TOKENS, _JITTER = 0.05, 0.02, 40, 0.1  # the null engine's schedule; jitter is a share of the gap
_EVENTS_MOST = 25_000.0  # per second; beyond, the null engine would not keep its schedule: gaps are longer then
_CYCLES = 2.5  # answers of each stream
_READY_WITHIN = 20.0
_TRIES, _UNDISTURBED = 3, 0.001  # seconds of error at p99, beyond which it is measured again

Say = Callable[[str], None]


def floor_for(streams: int, processes: int, pool: WorkerPool, progress: Say) -> Floor:
    """The stored floor that covers this many streams; where there is none it is measured now, within a few seconds."""
    stored = find(streams, processes)
    if stored is not None:
        return stored
    enough = max(LEAST_STREAMS, 1 << math.ceil(math.log2(max(1, streams))))
    progress(f"calibrating the client with {format_count(enough)} streams, once for this machine")
    floor = best_floor(enough, processes, pool)
    store(floor, processes)
    return floor


def find(streams: int, processes: int) -> Floor | None:
    """The stored floor of the fewest streams that are at least this many."""
    floors = [floor for floor in _load().get(_key(processes), ()) if floor.streams >= streams]
    return min(floors, key=lambda floor: floor.streams, default=None)


def store(floor: Floor, processes: int) -> None:
    """Remember a floor, in place of an older one of as many streams."""
    known = _load()
    key = _key(processes)
    kept = [each for each in known.get(key, ()) if each.streams != floor.streams]
    known[key] = sorted([*kept, floor], key=lambda each: each.streams)
    entries = {name: [dataclasses.asdict(each) for each in floors] for name, floors in known.items()}
    write_atomically(file(), (json.dumps({"schema": SCHEMA, "floors": entries}, indent=2) + "\n").encode())


def best_floor(streams: int, processes: int, pool: WorkerPool) -> Floor:
    """The smallest of a few measurements, as many as it takes to find one that nothing else on this machine disturbed:
    what is stored holds for later runs too.
    """
    found: list[Floor] = []
    while not found or (len(found) < _TRIES and max(found[-1].ttft, found[-1].itl) > _UNDISTURBED):
        found.append(measure_floor(streams, processes, pool))
    return min(found, key=lambda floor: max(floor.ttft, floor.itl))


def measure_floor(streams: int, processes: int, pool: WorkerPool) -> Floor:
    """Load a null engine with this many streams and compare every event with its log. Raises KeyboardInterrupt where a
    signal cut it off, HarnessErrors where it did not come to its end.
    """
    itl = max(_ITL, streams / _EVENTS_MOST)
    duration = _CYCLES * (_TTFT + itl * _TOKENS)
    with tempfile.TemporaryDirectory(prefix="harness-calibrate-") as name:
        folder = Path(name)
        with null_engine(folder / "truth.jsonl", ttft_ms=1000 * _TTFT, itl_ms=1000 * itl,
                         jitter_ms=1000 * itl * _JITTER) as url:  # fmt: skip
            plan = _plan(url, folder, processes)
            outcome = runner.run(plan, [Level(0, users=streams, duration=duration)], pool=pool)
        _require_whole(outcome)
        records = list(read_journal(folder).records)
        ttft, itl_error, events = errors(records, read_log(folder / "truth.jsonl"), plan.clock_monotonic)
    if not len(ttft):
        raise HarnessError("no answer of the null engine came", where="calibrate", advice="Run it again.")
    return Floor(
        ttft=quantile(ttft, 0.99),
        itl=quantile(itl_error, 0.99) if len(itl_error) else 0.0,
        streams=streams,
        events_per_second=round(events / duration, 1),
        measured=utc_text(datetime.now(timezone.utc)),
    )


def _require_whole(outcome: LoadOutcome) -> None:
    """What was cut off is not a floor: it would be stored, and taken for this machine's from then on."""
    if outcome.interrupted:
        raise KeyboardInterrupt  # the runner told of it in its outcome: its level had to end in order first
    ended_by = {level.ended_by for level in outcome.levels}
    if outcome.lost_processes or ended_by != {"duration"}:
        found = (
            "a load process was lost"
            if outcome.lost_processes
            else f"the load ended by {', '.join(map(str, ended_by))}"
        )
        raise HarnessError(found, where="calibrate", advice="Run it again.")


def errors(records: list[RequestRecord], truths: Mapping[str, Truth], start: float) -> tuple[Any, Any, int]:
    """The client's own errors, seconds: of each TTFT, of each gap; and how many events there were.

    start: CLOCK_MONOTONIC seconds of the records' 0. The true TTFT begins when the request reached the
    engine's kernel, so that waiting inside the engine is not counted as the client's.
    """
    ttft: list[float] = []
    gaps = [np.empty(0)]
    events = 0
    for record in records:
        truth = truths.get(record.request_id)
        if (
            truth is None
            or record.sent_at is None
            or len(record.token_at) != len(truth.written_at)
            or not truth.written_at
        ):
            continue
        seen, true = np.array(record.token_at) + start, np.array(truth.written_at)
        ttft.append(abs((seen[0] - record.sent_at - start) - (true[0] - truth.received_at)))
        gaps.append(np.abs(np.diff(seen) - np.diff(true)))
        events += len(true)
    return np.array(ttft), np.concatenate(gaps), events


@contextmanager
def null_engine(log: Path, **options: object) -> Iterator[str]:
    """The URL of a null engine with these options; its log is there when it has been left."""
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "harness.load.null_engine", "--log", str(log), *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline().decode("utf-8", "replace")
            if "listening on " not in line:
                raise HarnessError("the null engine did not start", where="calibrate", advice=line.strip())
            yield line.split()[-1]
        finally:
            process.terminate()
            process.stderr.read()


def _plan(url: str, folder: Path, processes: int) -> LoadPlan:
    workload = drawn("calibration", "8", str(_TOKENS), seed=1)
    return LoadPlan(
        url=url,
        api="tgi",
        model_name="tgi",
        stream=True,
        timeout=60.0,
        workload=workload.as_dict(),
        seed=1,
        folder=str(folder),
        clock_monotonic=time.monotonic(),
        processes=processes,
    )


def file() -> Path:
    return state_folder() / "calibration.json"


def _key(processes: int) -> str:
    """What a floor holds for: this machine and what runs on it."""
    name = f"{platform.node()} | python {platform.python_version()} | harness {__version__}"
    return name if processes == 1 else f"{name} | {processes} processes"


def _load() -> dict[str, list[Floor]]:
    """All stored floors; none where the file is of another version or cannot be read."""
    try:
        document = read_json_object(file())
        return as_type(dict[str, list[Floor]], document["floors"], file()) if document["schema"] == SCHEMA else {}
    except (UsageError, KeyError):
        return {}
