"""When the requests of an open loop are due: arrival processes as values. Pure arithmetic, seeded, no clock.

A process has no rate of its own: the level says it, in requests per second. Moments are seconds from the level's start.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.errors import UsageError


@dataclass(frozen=True)
class RateSegment:
    """A time in which the rate goes in a straight line. Seconds; requests per second. The last of all is endless."""

    seconds: float
    rate: float
    to: float

    def arrivals(self, seconds: float) -> float:
        """Expected in the first this many seconds."""
        within = min(seconds, self.seconds)
        if self.rate == self.to:
            return self.rate * within
        return self.rate * within + (self.to - self.rate) / self.seconds * within * within / 2

    def when(self, arrivals: float) -> float:
        """Seconds until this many are expected: the root of rate*t + slope*t^2/2 = arrivals."""
        if self.rate == self.to:
            return arrivals / self.rate
        slope = (self.to - self.rate) / self.seconds
        return 2 * arrivals / (self.rate + math.sqrt(max(0.0, self.rate**2 + 2 * slope * arrivals)))


class Arrival(ABC):
    """An arrival process. str() is how people write it and files keep it; `arrival_of` reads it again.

    changes: the rate does, by its nature. regularity: shape of the gamma process that counts vary like; their variance
    is the mean over it.
    """

    changes = False
    regularity = 1.0

    @abstractmethod
    def offsets(self, rate: float, rng: random.Random) -> Iterator[float]:
        """Rising moments, without end. Each is a sum of exact gaps from 0 on, so no lateness of a sender adds up."""

    def segments(self, rate: float) -> tuple[RateSegment, ...]:
        """How the rate goes from the level's start on."""
        return (RateSegment(math.inf, rate, rate),)


@dataclass(frozen=True)
class Constant(Arrival):
    """Equal gaps of 1/rate seconds; the first request is due half a gap after the start."""

    regularity = math.inf

    def offsets(self, rate: float, rng: random.Random) -> Iterator[float]:
        number = 0
        while True:
            yield (number + 0.5) / rate
            number += 1

    def __str__(self) -> str:
        return "constant"


@dataclass(frozen=True)
class Gamma(Arrival):
    """Independent gamma-distributed gaps with mean 1/rate; the coefficient of variation is 1/sqrt(shape).

    shape 1 is a Poisson process, below 1 arrivals come in bursts, above 1 they are more regular than Poisson.
    """

    shape: float = 1.0

    @property
    def regularity(self) -> float:  # type: ignore[override]
        return self.shape

    def offsets(self, rate: float, rng: random.Random) -> Iterator[float]:
        moment, scale = 0.0, 1.0 / (rate * self.shape)
        while True:
            moment += rng.gammavariate(self.shape, scale)
            yield moment

    def __str__(self) -> str:
        return f"gamma:{_shown(self.shape)}"


@dataclass(frozen=True)
class Poisson(Arrival):
    """Independent exponential gaps with mean 1/rate, none of them clipped."""

    def offsets(self, rate: float, rng: random.Random) -> Iterator[float]:
        moment = 0.0
        while True:
            moment += rng.expovariate(rate)
            yield moment

    def __str__(self) -> str:
        return "poisson"


class _Changing(Arrival):
    """A Poisson process whose rate changes.

    By change of time: a unit-rate process is mapped through the inverse of the integrated rate (Çinlar 1975).
    """

    changes = True

    def offsets(self, rate: float, rng: random.Random) -> Iterator[float]:
        expected = began = before = 0.0
        for segment in self.segments(rate):
            until = segment.arrivals(segment.seconds)
            while expected - before <= until:
                if expected:
                    yield began + segment.when(expected - before)
                expected += rng.expovariate(1.0)
            began, before = began + segment.seconds, before + until


@dataclass(frozen=True)
class Ramp(_Changing):
    """From the level's rate to another within this many seconds, where it stays."""

    to: float
    seconds: float

    def segments(self, rate: float) -> tuple[RateSegment, ...]:
        return (RateSegment(self.seconds, rate, self.to), RateSegment(math.inf, self.to, self.to))

    def __str__(self) -> str:
        return f"ramp:{_shown(self.to)}:{_shown(self.seconds)}"


@dataclass(frozen=True)
class Steps(_Changing):
    """The level's rate and then each of these for this many seconds; the last one stays."""

    seconds: float
    rates: tuple[float, ...]

    def segments(self, rate: float) -> tuple[RateSegment, ...]:
        *before, last = (rate, *self.rates)
        return (*(RateSegment(self.seconds, each, each) for each in before), RateSegment(math.inf, last, last))

    def __str__(self) -> str:
        return ":".join(["steps", *map(_shown, (self.seconds, *self.rates))])


@dataclass(frozen=True)
class Trace(Arrival):
    """At the moments that a file's rows have, which the workload knows; the level has no rate then."""

    changes = True

    def offsets(self, rate: float, rng: random.Random) -> Iterator[float]:
        raise ValueError("a trace's moments are those of its rows")

    def __str__(self) -> str:
        return "trace"


POISSON, TRACE = Poisson(), Trace()


def _steps(seconds: float, *rates: float) -> Arrival:
    if not rates:
        raise ValueError("expected a rate")
    return Steps(seconds, rates)


# name -> how it is written, and the process made of the numbers that follow its name after colons. Raises TypeError and
# ValueError.
ARRIVALS: dict[str, tuple[str, Callable[..., Arrival]]] = {
    "poisson": ("poisson", Poisson),
    "constant": ("constant", Constant),
    "gamma": ("gamma:SHAPE", lambda shape: Gamma(shape)),
    "ramp": ("ramp:TO_RATE:SECONDS", Ramp),
    "steps": ("steps:SECONDS:RATE:...", _steps),
}


def arrival_of(text: str) -> Arrival:
    """`poisson`, `constant`, `gamma:0.5`, `ramp:20:60`, `steps:30:4:8`, and `trace`, as str() writes them.

    Raises ValueError that says what was expected.
    """
    if text == str(TRACE):
        return TRACE
    name, *numbers = text.strip().lower().split(":")
    if name not in ARRIVALS:
        raise ValueError(f"unknown arrival process {text!r}")
    form, make = ARRIVALS[name]
    try:
        parts = [float(number) for number in numbers]
        if not all(0 < part < 1e6 for part in parts):
            raise ValueError
        return make(*parts)
    except (TypeError, ValueError):
        raise ValueError(f"expected {form} with positive numbers, found {text!r}") from None


def parse_arrival(text: str) -> Arrival:
    """What --arrival says. Raises UsageError."""
    try:
        if text == str(TRACE):
            raise ValueError(f"unknown arrival process {text!r}")
        return arrival_of(text)
    except ValueError as error:
        forms = ", ".join(form for form, _ in ARRIVALS.values())
        advice = f"Known: {forms}." if str(error).startswith("unknown") else None
        raise UsageError(str(error), where="--arrival", advice=advice) from error


def expected(segments: Sequence[RateSegment], start: float, end: float) -> float:
    """Arrivals between two moments."""

    def until(moment: float) -> float:
        total = 0.0
        for segment in segments:
            total += segment.arrivals(max(0.0, moment))
            moment -= segment.seconds
        return total

    return until(end) - until(start)


def _shown(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)
