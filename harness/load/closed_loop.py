"""Closed loop: N users, each asks again when it has been answered. Arrivals follow answers."""

from __future__ import annotations

import gevent

from harness.load.level import Holding
from harness.load.turns import play
from harness.load.user import StreamUser, waits


class ClosedLoop:
    """Sends for the users of a level. holding: the level, set before they start."""

    def __init__(self) -> None:
        self.holding: Holding | None = None

    def use(self, user: StreamUser) -> None:
        """Asks until the level is over, then rests; of a user for whom Locust has something to do in between, once.

        All in one task where that can be: Locust's own turn would send the next request through the hub's queue, behind
        every read.
        """
        holding = self.holding
        assert holding is not None
        if user.number is None:
            user.number = holding.enter()
            holding.begun.wait()
            holding.starts.wait(user.number)
        while ask_next(holding, user):
            if waits(type(user)):
                return
        gevent.sleep(3600)


def ask_next(holding: Holding, user: StreamUser) -> bool:
    """One request or conversation of one user, with its answers; False when the level is over."""
    prepared = holding.take(user)
    if prepared is None:
        return False
    session = holding.session
    try:
        last = play(session, prepared, holding.over)
    finally:
        holding.playing -= 1
    pause = session.plan.think_time or session.pause_after(prepared) or holding.starts.pause(prepared.index, last)
    if pause:
        holding.over.wait(pause)
    return True
