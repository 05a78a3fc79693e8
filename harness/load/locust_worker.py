"""One load process: runs levels as it is ordered, and reports its progress (messages.py).

What differs between a process of our own and one that Locust's own command started is in worker.py and locust_join.py.
"""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from typing import Any

import gevent
from gevent.event import Event

from harness.load.closed_loop import ClosedLoop
from harness.load.messages import USERS_CHANGED
from harness.load.open_loop import Dispatcher
from harness.load.plan import LoadPlan
from harness.load.running_level import RunningLevel
from harness.load.session import Session
from harness.load.stream_user import StreamUser, drivers
from harness.load.watch import Watch
from harness.measure.record import RequestRecord
from harness.measure.run_folder import Level
from harness.workload.workload import from_dict

_FLUSH_EVERY, _TICK_EVERY = 0.25, 1.0
_AHEAD_MOST = 256  # connections of an open loop that are opened before it begins


class LocustWorker(ABC):
    """Runs levels on Locust, one after another.

    process: this one's number. users: the classes that ask. session, watch: of the present plan. running: the level
    that is prepared or under way.
    """

    def __init__(self, environment: Any, runner: Any) -> None:
        self.environment, self.runner = environment, runner
        self.process = 0
        self.users: list[type[StreamUser]] = []
        self.session: Session | None = None
        self.watch: Watch | None = None
        self.running: RunningLevel | None = None
        self.abandoned = Event()
        self.closed_loop = drivers[environment] = ClosedLoop()

    @abstractmethod
    def say(self, what: str, **facts: Any) -> None:
        """One report to whoever runs the levels."""

    @abstractmethod
    def classes_of(self, plan: LoadPlan) -> list[type[StreamUser]]:
        """Whose users ask."""

    @abstractmethod
    def start_users(self, running: RunningLevel, *, begun: bool) -> None:
        """Have the users of a level come: called when it is prepared, and again when it has begun."""

    @abstractmethod
    def stop_users(self) -> None:
        """Take all users away."""

    def tells_locust(self) -> bool:
        """Whether somebody looks at Locust's own statistics."""
        return True

    def serve(self) -> None:
        """Write journals through and say how it goes, from now on."""
        gevent.spawn(self._flush)
        gevent.spawn(self._tick)

    def obey(self, order: dict[str, Any]) -> None:
        """Do what an order says; the rest of what orders say is a subclass's."""
        what = order["do"]
        if what == "plan":
            self.plan(LoadPlan.from_dict(order["plan"]))
        elif what == "prepare":
            self.prepare(Level.from_dict(order["level"]))
        elif what == "begin" and self.running is not None:
            gevent.spawn(self.run_level, self.running, order["at"])
        elif what == "end" and self.running is not None:
            self.end(order["reason"])
        elif what == "abandon":
            self.abandoned.set()

    def plan(self, plan: LoadPlan) -> None:
        """Begin anew: a session of its own for each plan."""
        self.close()
        self.environment.host = plan.url
        self.users = self.classes_of(plan)
        self.abandoned.clear()
        self.session = Session(plan, from_dict(plan.workload), self.process, self._fire)
        self.watch = Watch(self.session)
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)

    def prepare(self, level: Level) -> None:
        """All that can be done before a level's first moment: connections, requests, waiting users."""
        session = self.session
        assert session is not None
        plan, before = session.plan, self.running
        self.abandoned.clear()
        users = len(range(self.process, level.users or 0, plan.processes))
        busy = plan.processes if level.users is None else max(1, min(plan.processes, level.users))
        over = Event() if before is None else before.over
        running = RunningLevel(session, level, self.users, self.process, busy, ahead=max(1, users), over=over)
        self.running = running
        if before is None:
            self.closed_loop.go_on(running)
        if level.arrival is not None:
            session.open_ahead(min(_AHEAD_MOST, int((level.rate or 1.0) / plan.processes) + 1))
            gevent.spawn(Dispatcher(running, self.environment).run)
        else:
            session.open_ahead(users)
            while running.fill():
                pass
            session.recorder.ahead = running.fill
            self.start_users(running, begun=False)
        self.say("prepared", level=level.level)

    def run_level(self, running: RunningLevel, at: float) -> None:
        """A prepared level, from its first request to its last answer, or until its users go on in the next one."""
        session = running.session
        running.begin(at + session.plan.clock_monotonic)
        self.closed_loop.go_on(running)
        if running.level.arrival is None:
            self.start_users(running, begun=True)
        gevent.wait([running.over, running.passed], count=1)
        sending_ended_at = session.now()
        if running.over.is_set():
            session.recorder.ahead = lambda: False
            self._await_answers(session)
            self.running = None
            self.stop_users()
            while session.transport.finished:  # their last records, with turns for the flush and the tick in between
                session.recorder.work(time.monotonic() + 0.01)
                gevent.sleep(0)
            self.closed_loop.go_on(None)
        session.flush()
        self.say(
            "level_ended",
            level=running.level.level,
            ended_by=running.ended_by,
            sending_ended_at=sending_ended_at,
            ended_at=session.now(),
            spread=running.starts.spread,
            moved=running.moved,
        )
        if running.over.is_set():
            self.level_over()

    @abstractmethod
    def level_over(self) -> None:
        """A level's last answer is in, and it has been told."""

    def _await_answers(self, session: Session) -> None:
        until = time.monotonic() + (float("inf") if session.plan.grace is None else session.plan.grace)
        while session.open and not self.abandoned.is_set() and time.monotonic() < until:
            self.abandoned.wait(0.02)
        session.abandon()

    def end(self, reason: str) -> None:
        """No more requests in this level."""
        if self.running is None:
            return
        if reason == USERS_CHANGED:
            self.running.hand_over(reason)
        else:
            self.running.end(reason)

    def close(self) -> None:
        """Write all records; what is still open is given up."""
        if self.watch is not None and self.session is not None:
            self.watch.close()
            self.session.close()
        self.watch = self.session = None

    @abstractmethod
    def flushed(self) -> None:
        """The journal has been handed to the kernel."""

    def _fire(self, record: RequestRecord) -> None:
        """Tell Locust, whose own page and statistics follow its events. Its times are of its own making: whole
        milliseconds, two digits; the records hold what was measured.
        """
        if record.status == "in_flight" or not self.tells_locust():
            return  # given up by us: neither answered nor failed
        ended = record.finished_at if record.finished_at is not None else record.scheduled_at
        self.environment.events.request.fire(
            request_type="stream",
            name=f"level {record.level}",
            response_time=(ended - record.scheduled_at) * 1000,
            response_length=sum(record.token_count),
            exception=None if record.status == "completed" else RuntimeError(record.error_kind),
            context={},
        )

    def _flush(self) -> None:
        while True:
            gevent.sleep(_FLUSH_EVERY)
            if self.session is not None:
                self.session.flush()
                self.flushed()

    def _tick(self) -> None:
        while True:
            gevent.sleep(_TICK_EVERY)
            if self.session is None or self.watch is None:
                continue
            sample, live = self.watch.look()
            self.session.note("sample", sample)
            self.say("tick", **live, **self.page_report())

    def page_report(self) -> dict[str, Any]:
        """What goes with a tick for a page that another process serves."""
        return {}
