"""What open and closed loop have in common: a level begins, sends until it is over, and waits for the answers."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

import gevent
from gevent.event import Event

from harness.load.session import Prepared, Session
from harness.measure.run_folder import Level

_AHEAD_BYTES = 32 << 20  # of prepared requests


@dataclass
class Holding:
    """One level while it is held by one of `processes` load processes.

    share: this process's number. begun: set at the first moment, `began_at` (CLOCK_MONOTONIC). over: set when no more
    may be sent. ended_by: why. ahead: how many requests are prepared before they are needed, in idle time.
    """

    session: Session
    level: Level
    share: int = 0
    processes: int = 1
    ahead: int = 1
    ended_by: str | None = None
    began_at: float = 0.0
    begun: Event = field(default_factory=Event)
    over: Event = field(default_factory=Event)
    _taken: int = 0
    _users: int = 0
    _ready: deque[Prepared] = field(default_factory=deque)
    _ready_bytes: int = 0

    def begin(self, at: float) -> None:
        """Wait for this moment of CLOCK_MONOTONIC, then let users send; a level with a duration ends after it."""
        gevent.sleep(max(0.0, at - time.monotonic()))
        self.began_at = at
        self.begun.set()
        if self.level.duration is not None and self.level.arrival is None:
            gevent.spawn_later(self.level.duration, self.end, "duration")

    def end(self, reason: str) -> None:
        """No more requests from now on; the first reason stands."""
        if not self.over.is_set():
            self.ended_by = reason
            self.over.set()

    def enter(self) -> int:
        """The number of one more user, among those of all processes."""
        self._users += 1
        return (self._users - 1) * self.processes + self.share

    def fill(self) -> bool:
        """Prepare one request more, if there is need and room; whether another one may follow."""
        if self.over.is_set() or len(self._ready) >= self.ahead or self._ready_bytes > _AHEAD_BYTES:
            return False
        prepared = self._prepare()
        if prepared is None:
            return False
        self._ready.append(prepared)
        self._ready_bytes += len(prepared.call)
        return True

    def take(self) -> Prepared | None:
        """This process's next request; None when the level is over, which the last one asked of it makes it."""
        if self.over.is_set():
            return None
        if self._ready:
            prepared = self._ready.popleft()
            self._ready_bytes -= len(prepared.call)
            self.session.transport.wake()  # another may be prepared in its place
            return prepared
        made = self._prepare()
        if made is None:
            self.end("requests")
        return made

    def _prepare(self) -> Prepared | None:
        index = self._taken * self.processes + self.share
        if self.level.requests is not None and index >= self.level.requests:
            return None
        self._taken += 1
        return self.session.prepare(index)
