"""When requests are due in an open loop: moments from the level's start. Pure arithmetic, seeded, no clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from harness.errors import UsageError
from harness.measure.offered import Stretch, ramp, steps


class Arrival(Protocol):
    """An arrival process. Moments are sums of exact gaps from 0 on, so no lateness of a sender adds up."""

    def offsets(self, rng: random.Random) -> Iterator[float]:
        """Rising moments in seconds, without end."""
        ...


@dataclass(frozen=True)
class Constant:
    """Equal gaps of 1/rate seconds; the first request is due half a gap after the start."""

    rate: float

    def offsets(self, rng: random.Random) -> Iterator[float]:
        number = 0
        while True:
            yield (number + 0.5) / self.rate
            number += 1


@dataclass(frozen=True)
class Gamma:
    """Independent gamma-distributed gaps with mean 1/rate; the coefficient of variation is 1/sqrt(shape).

    shape 1 is a Poisson process, below 1 arrivals come in bursts, above 1 they are more regular than Poisson.
    """

    rate: float
    shape: float = 1.0

    def offsets(self, rng: random.Random) -> Iterator[float]:
        moment, scale = 0.0, 1.0 / (self.rate * self.shape)
        while True:
            moment += rng.gammavariate(self.shape, scale)
            yield moment


@dataclass(frozen=True)
class Poisson:
    """Independent exponential gaps with mean 1/rate, none of them clipped."""

    rate: float

    def offsets(self, rng: random.Random) -> Iterator[float]:
        moment = 0.0
        while True:
            moment += rng.expovariate(self.rate)
            yield moment


@dataclass(frozen=True)
class Changing:
    """A Poisson process whose rate changes: a ramp or steps.

    By change of time: a unit-rate process is mapped through the inverse of the integrated rate (Çinlar 1975).
    """

    stretches: tuple[Stretch, ...]

    def offsets(self, rng: random.Random) -> Iterator[float]:
        expected = began = before = 0.0
        for stretch in self.stretches:
            until = stretch.arrivals(stretch.seconds)
            while expected - before <= until:
                if expected:
                    yield began + stretch.when(expected - before)
                expected += rng.expovariate(1.0)
            began, before = began + stretch.seconds, before + until


def _gamma(rate: float, parts: list[float]) -> Arrival:
    (shape,) = parts
    return Gamma(rate, shape)


def _ramp(rate: float, parts: list[float]) -> Arrival:
    to, seconds = parts
    return Changing(ramp(rate, to, seconds))


def _steps(rate: float, parts: list[float]) -> Arrival:
    seconds, *rates = parts
    if not rates:
        raise ValueError
    return Changing(steps([rate, *rates], seconds))


# name -> what follows it after colons, numbers all of them, and the process made of rate and these. Raises ValueError.
ARRIVALS: dict[str, tuple[str, Callable[[float, list[float]], Arrival]]] = {
    "poisson": ("poisson", lambda rate, parts: Poisson(rate)),
    "constant": ("constant", lambda rate, parts: Constant(rate)),
    "gamma": ("gamma:SHAPE", _gamma),
    "ramp": ("ramp:TO_RATE:SECONDS", _ramp),
    "steps": ("steps:SECONDS:RATE:...", _steps),
}


def parse_arrival(text: str, rate: float) -> Arrival:
    """`poisson`, `constant`, `gamma:0.5`, `ramp:20:60`, `steps:30:4:8` with this rate in requests per second.

    Raises UsageError.
    """
    name, *numbers = text.strip().lower().split(":")
    known = ARRIVALS.get(name)
    if known is None:
        forms = ", ".join(form for form, _ in ARRIVALS.values())
        raise UsageError(f"unknown arrival process {text!r}", where="--arrival", advice=f"Known: {forms}.")
    form, make = known
    try:
        parts = [float(number) for number in numbers]
        if not all(0 < part < 1e6 for part in parts) or (parts and ":" not in form):
            raise ValueError
        return make(rate, parts)
    except ValueError:
        raise UsageError(f"expected {form} with positive numbers, found {text!r}", where="--arrival") from None


def moments(
    arrival: Arrival, seed: int, *, duration: float | None = None, requests: int | None = None
) -> Iterator[float]:
    """The moments of one level: those before `duration` seconds, and at most so many. Same seed, same moments."""
    offsets = arrival.offsets(random.Random(f"arrivals {seed}"))
    if duration is not None:
        offsets = takewhile(lambda moment: moment < duration, offsets)
    if requests is None:
        yield from offsets
    else:
        yield from (moment for moment, _ in zip(offsets, range(requests)))
