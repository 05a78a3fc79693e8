"""The client's own error, as it is stored for later runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from harness.commands.calibrate import calibrate
from harness.drive import calibration
from harness.errors import HarnessError
from harness.load import runner
from harness.load.plan import LoadOutcome, LoadPlan
from harness.load.worker_pool import WorkerPool
from harness.measure.client import Floor
from harness.measure.run_folder import Level


@pytest.mark.parametrize(
    ("errors", "tried", "kept"),
    [
        ([0.0001, 0.02], 1, 0.0001),
        ([0.02, 0.0003, 0.01], 2, 0.0003),  # something else ran meanwhile
        ([0.02, 0.004, 0.01, 0.0001], 3, 0.004),  # a load at which the client is no better
    ],
)
def test_a_disturbed_measurement_is_made_again(
    monkeypatch: pytest.MonkeyPatch, errors: list[float], tried: int, kept: float
) -> None:
    """What is stored holds for all later runs, so that it must not be a moment's noise."""
    left = [Floor(ttft=0.0001, itl=error, streams=64) for error in errors]
    monkeypatch.setattr(calibration, "measure_floor", lambda *_: left.pop(0))
    nobody: Any = None
    assert calibration.best_floor(64, 1, nobody).itl == kept
    assert len(errors) - len(left) == tried


@pytest.mark.parametrize("lost", [False, True])
def test_a_measurement_that_was_cut_off_is_not_stored(
    lost: bool, own_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a signal: the level ends in order, and the command with it. By the end of a load process: said."""
    real = runner.run

    def cut(plan: LoadPlan, levels: Iterable[Level], *, pool: WorkerPool) -> LoadOutcome:
        def tell(level: Level) -> None:
            if level.ended_at is None and lost:
                Timer(0.3, pool.dismiss, (0,)).start()
            elif level.ended_at is None:
                Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

        return real(plan, levels, pool=pool, on_level=tell)

    monkeypatch.setattr(calibration.runner, "run", cut)
    with WorkerPool(2) as pool, pytest.raises(HarnessError if lost else KeyboardInterrupt):
        calibration.floor_for(4, 2, pool, lambda text: None)
    assert calibration.find(4, 2) is None


def test_what_is_stored_is_taken_where_only_what_is_missing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as many processes, and without starting any: whoever asks for it has load processes of its own."""
    monkeypatch.setattr("harness.commands.calibrate.WorkerPool", None)
    floor = Floor(0.001, 0.0005, streams=64, events_per_second=3000.0, measured="2026-01-01T00:00:00Z")
    calibration.store(floor, 2)
    assert calibrate("16,64", lambda text: None, 2, missing=True).floors == (floor, floor)
    assert calibration.find(16, 1) is None
