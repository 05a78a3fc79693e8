"""The client's own error, as it is stored for later runs."""

from __future__ import annotations

from typing import Any

import pytest

from harness.drive import calibration
from harness.measure.client import Floor


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
