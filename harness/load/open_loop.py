"""Open loop: arrivals follow a clock. Each request starts at its moment, however many are waiting for answers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import ClassVar

import gevent
from gevent import monkey
from locust import User, task

from harness.load.arrivals import moments, parse_arrival
from harness.load.level import Holding
from harness.load.session import Prepared

_AHEAD = 64  # requests whose bytes are ready before their moment
# libev's timers are late by up to two milliseconds, so the last three are waited out in naps, with a look at the event
# loop in between. A nap itself is late by up to a tenth of a millisecond, which is spun away.
_WAKE_EARLY, _NAP, _NAP_LATE = 0.003, 0.0005, 0.0001
_LOOK_EVERY = 0.25  # seconds between two looks whether the level was ended

_sleep = monkey.get_original("time", "sleep")


class OpenLoopUser(User):
    """The dispatcher: one user of Locust's that sends every request of this process at its moment."""

    abstract = True
    holding: ClassVar[Holding]  # the level, set before the users start
    fixed_count = 1

    @task
    def dispatch(self) -> None:
        self.holding.begun.wait()
        Dispatcher(self.holding).run()
        gevent.sleep(3600)


def level_moments(holding: Holding) -> Iterator[float]:
    """When this level's requests are due, in seconds from its start, for all processes together."""
    level = holding.level
    if level.arrival == "trace":
        return islice(holding.session.workload.offsets or (), level.requests)
    arrival = parse_arrival(level.arrival or "poisson", level.rate or 1.0)
    seed = holding.session.plan.seed * 1000 + level.level
    return moments(arrival, seed, duration=level.duration, requests=level.requests)


class Dispatcher:
    """Sends this process's share of a level: of N processes each takes every Nth arrival of the one schedule."""

    def __init__(self, holding: Holding) -> None:
        self._holding, self._session = holding, holding.session
        self._moments = enumerate(islice(level_moments(holding), holding.share, None, holding.processes))
        self._ready: deque[tuple[float, Prepared]] = deque()

    def run(self) -> None:
        """Returns when the last request has been sent or the level is over."""
        recorder, transport = self._session.recorder, self._session.transport
        recorder.ahead = self._fill
        try:
            while not self._holding.over.is_set() and (self._ready or self._fill()):
                due, prepared = self._ready[0]
                if self._wait_until(due):
                    self._ready.popleft()
                    self._session.begin(prepared, due - self._session.plan.clock_monotonic)
                    transport.wake()
        finally:
            recorder.ahead = lambda: False
            transport.next_due = float("inf")
        self._holding.end("trace" if self._holding.level.arrival == "trace" else self._why())

    def _why(self) -> str:
        """What ended the schedule: its duration, unless so many requests came first."""
        return "duration" if self._holding.level.requests is None else "requests"

    def _fill(self) -> bool:
        """Prepare one request more; False when enough are ready or none is left."""
        if len(self._ready) >= _AHEAD:
            return False
        number, moment = next(self._moments, (None, 0.0))
        if number is None:
            return False
        prepared = self._session.prepare(number * self._holding.processes + self._holding.share)
        self._ready.append((self._holding.began_at + moment, prepared))
        return True

    def _wait_until(self, due: float) -> bool:
        """Give way to others until this moment of CLOCK_MONOTONIC; False when the level is over before."""
        transport, over = self._session.transport, self._holding.over
        transport.next_due = due - _WAKE_EARLY
        while (rest := due - time.monotonic()) > _WAKE_EARLY:
            if over.is_set():
                return False
            gevent.sleep(min(rest - _WAKE_EARLY, _LOOK_EVERY))
        transport.next_due = 0.0  # no pauses of the reader from here on: the naps are pause enough
        while (rest := due - time.monotonic()) > _NAP_LATE:
            _sleep(min(rest - _NAP_LATE, _NAP))
            gevent.sleep(0)
        while time.monotonic() < due:
            pass
        return True
