"""Closed loop: N users, each asks again when it has been answered. Arrivals follow answers."""

from __future__ import annotations

import gevent

from harness.load.running_level import RunningLevel
from harness.load.turns import play
from harness.load.user import StreamUser, waits


class ClosedLoop:
    """Sends for the users of a level. running: the level, set before they start."""

    def __init__(self) -> None:
        self.running: RunningLevel | None = None

    def use(self, user: StreamUser) -> None:
        """Asks until the level is over, then rests; of a user for whom Locust has something to do in between, once.

        All in one task where that can be: Locust's own turn would send the next request through the hub's queue, behind
        every read.
        """
        running = self.running
        assert running is not None
        if user.number is None:
            user.number = running.enter()
            running.begun.wait()
            running.starts.wait(user.number)
        while ask_next(running, user):
            if waits(type(user)):
                return
        gevent.sleep(3600)


def ask_next(running: RunningLevel, user: StreamUser) -> bool:
    """One request or conversation of one user, with its answers; False when the level is over."""
    prepared = running.take(user)
    if prepared is None:
        return False
    session = running.session
    try:
        last = play(session, prepared, running.over)
    finally:
        running.playing -= 1
    pause = session.plan.think_time or session.pause_after(prepared) or running.starts.pause(prepared.index, last)
    if pause:
        running.over.wait(pause)
    return True
