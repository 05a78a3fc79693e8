"""How many requests an open loop is expected to send, the integral of its rate, and which of those sent that counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.measure.arrivals import POISSON, expected
from harness.measure.records import MISSING, Records
from harness.measure.run_folder import Level


def expected_arrivals(level: Level, start: float, end: float) -> float:
    """Between two moments, seconds from the level's start. level: an open loop with a rate."""
    return expected((level.arrival or POISSON).segments(level.rate or 0.0), start, end)


def arrived(records: Records) -> NDArray[np.bool_]:
    """Which requests came at a moment of the rate: single ones, and those that begin a conversation. What follows in it
    comes when its answers do.
    """
    return (records.history_tokens == MISSING) | (records.turn == 1)


def changes(level: Level) -> bool:
    """Whether the load changes by its nature while the level lasts."""
    return level.arrival is not None and level.arrival.changes
