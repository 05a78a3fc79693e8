"""What open and closed loop have in common: a level begins, sends until it is over, and waits for the answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import gevent
from gevent.event import Event

from harness.load.session import Session
from harness.measure.run_folder import Level


@dataclass
class Holding:
    """One level while it is held by one of `processes` load processes.

    share: this process's number. taken: requests that this process has begun. over: set when no more may be sent.
    ended_by: why.
    """

    session: Session
    level: Level
    share: int = 0
    processes: int = 1
    taken: int = 0
    ended_by: str | None = None
    over: Event = field(default_factory=Event)

    def end(self, reason: str) -> None:
        """No more requests from now on; the first reason stands."""
        if not self.over.is_set():
            self.ended_by = reason
            self.over.set()

    def next_index(self) -> int | None:
        """The number of this process's next request in the level's workload; None when the level is over."""
        if self.over.is_set():
            return None
        index = self.taken * self.processes + self.share
        if self.level.requests is not None and index >= self.level.requests:
            self.end("requests")
            return None
        self.taken += 1
        return index

    def start_clock(self) -> None:
        """Ends the level when its duration is over (a trace ends by itself)."""
        if self.level.duration is not None and self.level.arrival != "trace":
            gevent.spawn_later(self.level.duration, self.end, "duration")
