"""Closed loop: N users, each asks again when it has been answered. Arrivals follow answers."""

from __future__ import annotations

from typing import ClassVar

import gevent
from locust import User, task

from harness.load.level import Holding


class ClosedLoopUser(User):
    """A user of the level that is being held."""

    abstract = True
    holding: ClassVar[Holding]  # the level, set before the users start

    @task
    def ask_again(self) -> None:
        ask_next(self.holding, self.holding.session.plan.think_time)


def ask_next(holding: Holding, think_time: float) -> None:
    """One request of one user; waits for good once the level is over, so that Locust sees the user at rest."""
    index = holding.next_index()
    if index is None:
        gevent.sleep(3600)
        return
    holding.session.ask(holding.session.prepare(index))
    if think_time:
        gevent.sleep(think_time)
