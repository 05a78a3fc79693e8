"""Closed loop: N users, each asks again when it has been answered. Arrivals follow answers."""

from __future__ import annotations

import time

import gevent
from gevent.event import Event

from harness.load.running_level import RunningLevel
from harness.load.stream_user import StreamUser, waits
from harness.load.turns import play

# Seconds in which a level begins whose users are there already, and between two looks.
_TARGET_WITHIN, _LOOK_EVERY = 1.0, 0.02


class ClosedLoop:
    """Sends for the users of a level."""

    def __init__(self) -> None:
        self._running: RunningLevel | None = None
        self._there = Event()

    def go_on(self, running: RunningLevel | None) -> None:
        """From now on users ask in this level; in none they wait."""
        self._running = running
        if running is None:
            self._there.clear()
        else:
            self._there.set()

    def use(self, user: StreamUser) -> None:
        """Asks until the level is over, then sleeps; asks only once where Locust has more to do for the user meanwhile.

        All requests in one Locust task where possible: a new task would queue the next request in the hub, behind every
        read.
        """
        self._there.wait()
        if user.number is None:
            self._begin(user)
        while self._running is not None and ask_next(self._running, user):
            if waits(type(user)):
                return
        gevent.sleep(3600)

    def _begin(self, user: StreamUser) -> None:
        """A user who comes before the level of whose number it is one begins with that level."""
        running = self._running
        assert running is not None
        number = running.enter()
        until = time.monotonic() + _TARGET_WITHIN
        while number >= (running.level.users or 0) and time.monotonic() < until and not running.over.is_set():
            gevent.sleep(_LOOK_EVERY)
            if self._running not in (running, None):
                running = self._running
                number = running.enter()
        user.number = number
        running.begun.wait()
        running.starts.wait(number)


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
