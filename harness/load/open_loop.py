"""Open loop: arrivals follow a clock. Each request starts at its moment, however many are waiting for answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import ClassVar

import gevent
from gevent.pool import Group
from locust import User, task

from harness.load.arrivals import moments, parse_arrival
from harness.load.level import Holding

_PREPARE_AHEAD = 0.02  # seconds before its moment in which a request's bytes are made


class OpenLoopUser(User):
    """The dispatcher: one user of Locust's that starts a greenlet per arrival."""

    abstract = True
    holding: ClassVar[Holding]  # the level, set before the users start
    fixed_count = 1

    @task
    def dispatch(self) -> None:
        dispatch(self.holding)
        gevent.sleep(3600)


def level_moments(holding: Holding) -> Iterator[float]:
    """When this level's requests are due, in seconds from its start, for all processes together."""
    level = holding.level
    if level.arrival == "trace":
        return islice(holding.session.workload.offsets or (), level.requests)
    arrival = parse_arrival(level.arrival or "poisson", level.rate or 1.0)
    seed = holding.session.plan.seed * 1000 + level.level
    return moments(arrival, seed, duration=level.duration, requests=level.requests)


def dispatch(holding: Holding) -> None:
    """Start every request of this process's share at its moment; returns when the last one has been answered."""
    session, started_at = holding.session, holding.session.now()
    started = Group()
    for number, moment in enumerate(islice(level_moments(holding), holding.share, None, holding.processes)):
        index = number * holding.processes + holding.share
        due = started_at + moment
        if holding.over.wait(max(0.0, due - session.now() - _PREPARE_AHEAD)):
            break
        prepared = session.prepare(index)
        _sleep_until(due + session.plan.clock_monotonic)
        started.start(gevent.Greenlet(session.ask, prepared, due))
    else:
        holding.end("trace" if holding.level.arrival == "trace" else "duration")
    started.join()


def _sleep_until(moment: float) -> None:
    """Give way to others until this moment of CLOCK_MONOTONIC."""
    wait = moment - time.monotonic()
    if wait > 0:
        gevent.sleep(wait)
