"""`harness calibrate`: the client's own error on this machine, stored for later runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.drive.calibration import Say, best_floor, file, find, floor_for, store
from harness.errors import UsageError
from harness.load.worker_pool import WorkerPool
from harness.measure.client import Floor
from harness.units import format_count, format_duration


@dataclass(frozen=True)
class CalibrateResult:
    """Floors, one for each number of streams, and where they are stored."""

    floors: tuple[Floor, ...]
    path: Path

    def as_json(self) -> dict[str, Any]:
        return {"path": str(self.path), "floors": [dataclasses.asdict(floor) for floor in self.floors]}

    def as_text(self) -> str:
        lines = [
            f"{format_count(floor.streams)} streams, {format_count(round(floor.events_per_second or 0))} tokens/s: "
            f"TTFT within {format_duration(floor.ttft)}, ITL within {format_duration(floor.itl)} (p99 of the error)"
            for floor in self.floors
        ]
        return "\n".join([*lines, f"stored in {self.path}"])


def calibrate(users: str, progress: Say, processes: int = 1, *, missing: bool = False) -> CalibrateResult:
    """Measure the floor at each of these numbers of streams, `64,512`, and store it. missing: what is stored and covers
    them is taken instead, as `bench` does. Raises HarnessErrors.
    """
    wanted = _streams(users)
    stored = [find(streams, processes) for streams in wanted] if missing else []
    if stored and None not in stored:
        return CalibrateResult(tuple(floor for floor in stored if floor is not None), file())
    with WorkerPool(processes) as pool:
        floors = []
        for streams in wanted:
            if missing:
                floors.append(floor_for(streams, processes, pool, progress))
                continue
            progress(f"calibrating the client with {format_count(streams)} streams")
            floors.append(best_floor(streams, processes, pool))
            store(floors[-1], processes)
    return CalibrateResult(tuple(floors), file())


def _streams(users: str) -> list[int]:
    try:
        streams = [int(part) for part in users.split(",")]
    except ValueError:
        streams = []
    if not streams or not all(0 < each <= 10_000 for each in streams):
        raise UsageError(f"expected numbers of streams such as 64,512, found {users!r}", where="--users")
    return streams
