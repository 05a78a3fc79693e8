"""For tests that run whole loads: what would else be measured once for each of them."""

from __future__ import annotations

import pytest

from harness.drive import calibration
from harness.measure.client import Floor


@pytest.fixture
def calibrated() -> Floor:
    """The client's floor as an earlier run has stored it, for any number of processes that tests have."""
    floor = Floor(0.001, 0.0005, streams=64, events_per_second=3000.0, measured="2026-01-01T00:00:00Z")
    for processes in range(1, 5):
        calibration.store(floor, processes)
    return floor
