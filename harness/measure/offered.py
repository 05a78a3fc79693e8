"""How many requests an open loop is expected to bring: the integral of its rate. Pure arithmetic on a level's plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.measure.run_folder import Level


@dataclass(frozen=True)
class Stretch:
    """A time in which the rate goes in a straight line. Seconds; requests per second. The last of all is endless."""

    seconds: float
    rate: float
    to: float

    def arrivals(self, seconds: float) -> float:
        """Expected in the first so many seconds."""
        within = min(seconds, self.seconds)
        if self.rate == self.to:
            return self.rate * within
        return self.rate * within + (self.to - self.rate) / self.seconds * within * within / 2

    def when(self, arrivals: float) -> float:
        """Seconds until so many are expected: the root of rate*t + slope*t^2/2 = arrivals."""
        if self.rate == self.to:
            return arrivals / self.rate
        slope = (self.to - self.rate) / self.seconds
        return 2 * arrivals / (self.rate + math.sqrt(max(0.0, self.rate**2 + 2 * slope * arrivals)))


def ramp(rate: float, to: float, seconds: float) -> tuple[Stretch, ...]:
    """From one rate to another, where it stays."""
    return (Stretch(seconds, rate, to), Stretch(math.inf, to, to))


def steps(rates: Sequence[float], seconds: float) -> tuple[Stretch, ...]:
    """Each rate for so long; the last one stays."""
    return (*(Stretch(seconds, rate, rate) for rate in rates[:-1]), Stretch(math.inf, rates[-1], rates[-1]))


def stretches(level: Level) -> tuple[Stretch, ...]:
    """How a level's rate goes from its start on. level: an open loop with a rate."""
    rate = level.rate or 0.0
    name, *numbers = (level.arrival or "").split(":")
    parts = [float(each) for each in numbers]
    if name == "ramp":
        return ramp(rate, *parts)
    return steps([rate, *parts[1:]], parts[0]) if name == "steps" else steps([rate], math.inf)


def expected_arrivals(level: Level, start: float, end: float) -> float:
    """Between two moments, seconds from the level's start."""

    def until(moment: float) -> float:
        total = 0.0
        for stretch in stretches(level):
            total += stretch.arrivals(max(0.0, moment))
            moment -= stretch.seconds
        return total

    return until(end) - until(start)


def changes(level: Level) -> bool:
    """Whether the load changes by its nature while the level lasts."""
    return (level.arrival or "").startswith(("trace", "ramp:", "steps:"))
