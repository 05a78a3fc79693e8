"""Closed loop: N users, each asks again when it has been answered. Arrivals follow answers."""

from __future__ import annotations

from typing import ClassVar

import gevent
from locust import User, task

from harness.load.level import Holding
from harness.load.session import UNSENT

STARTS_PER_SECOND = 5000.0  # of users: thousands of requests within a moment would measure the service's accept queue


class ClosedLoopUser(User):
    """A user of the level that is being held."""

    abstract = True
    holding: ClassVar[Holding]  # the level, set before the users start

    @task
    def use(self) -> None:
        """Asks until the level is over, then rests.

        All in one task: Locust's own turn would send the next request through the hub's queue, behind every read.
        """
        number = self.holding.enter()
        self.holding.begun.wait()
        gevent.sleep(number / STARTS_PER_SECOND)
        while ask_next(self.holding):
            pass
        gevent.sleep(3600)


def ask_next(holding: Holding) -> bool:
    """One request of one user and its answer; False when the level is over."""
    prepared = holding.take()
    if prepared is None:
        return False
    error = holding.session.ask(prepared)
    pause = holding.session.pause if error in UNSENT else holding.session.plan.think_time
    if pause:
        holding.over.wait(pause)
    return True
