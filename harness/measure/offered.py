"""How many requests an open loop is expected to send: the integral of its rate. Pure arithmetic on a level's plan."""

from __future__ import annotations

from harness.measure.arrivals import POISSON, expected
from harness.measure.run_folder import Level


def expected_arrivals(level: Level, start: float, end: float) -> float:
    """Between two moments, seconds from the level's start. level: an open loop with a rate."""
    return expected((level.arrival or POISSON).segments(level.rate or 0.0), start, end)


def changes(level: Level) -> bool:
    """Whether the load changes by its nature while the level lasts."""
    return level.arrival is not None and level.arrival.changes
