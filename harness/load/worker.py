"""One load process: `python -m harness.load.worker NUMBER`. Only ever run as a process of its own.

It runs levels when it is told to on stdin, one JSON object a line, and says on stdout how it is getting on:

    in   {"do": "describe", "file": "..."}         run a locustfile and say what its users ask
         {"do": "rehearse", "workload": {...}, ...}  play it with made-up answers
         {"do": "plan", "plan": {...}}             what the next levels are about; ends what was before
         {"do": "level", "level": {...}}           one level more than the plan has
         {"do": "prepare", "level": 0}             open connections, start users, prepare requests
         {"do": "begin", "at": 1.5}                run the level from this moment on (run-relative seconds)
         {"do": "end", "reason": "interrupted"}    send no more in this level
         {"do": "abandon"}                         and do not wait for the answers either
         {"do": "stats", "report": {...}}          Locust's statistics of another process, for the page
    out  {"say": "ready"} · {"say": "prepared"}
         {"say": "described", "users": [...], "shape": [...]} or {"say": "described", "error": {...}}
         {"say": "rehearsed", "played": [...]}
         {"say": "fault", "found": "...", "where": "..."}: a user's own code failed
         {"say": "tick", ...} once a second · {"say": "page", "url": "..."}
         {"say": "level_ended", "level": 0, ...} after the last answer

It ends when stdin does, so it never outlives the process that started it. What a locustfile prints goes to stderr.
"""

from __future__ import annotations

# First of all: it patches the standard library, which nothing may have used before.
import locust  # isort: skip

import dataclasses
import errno
import gc
import json
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import gevent
from gevent.event import Event
from gevent.hub import get_hub
from gevent.os import make_nonblocking, nb_read
from locust.env import Environment

from harness.errors import UsageError
from harness.load import locustfile
from harness.load.closed_loop import ClosedLoop
from harness.load.open_loop import Dispatcher
from harness.load.page import Page
from harness.load.plan import LoadPlan
from harness.load.rehearsal import rehearse
from harness.load.running_level import RunningLevel
from harness.load.session import Session
from harness.load.user import StreamUser, drivers, waits
from harness.load.watch import Watch
from harness.measure.record import RequestRecord
from harness.measure.run_folder import Level
from harness.workload.workload import from_dict

_FLUSH_EVERY, _TICK_EVERY = 0.25, 1.0
_AHEAD_MOST = 256  # connections of an open loop that are opened before it begins


class PlainUser(StreamUser):
    """Asks what the plan says, where no locustfile stands behind it."""


class Worker:
    """Runs levels on Locust, one after another. users: the classes that ask."""

    def __init__(self, process: int) -> None:
        self.process = process
        self.environment = Environment(user_classes=[PlainUser], events=locust.events)
        self.closed_loop = drivers[self.environment] = ClosedLoop()
        self.users: list[type[StreamUser]] = [PlainUser]
        self.environment.events.user_error.add_listener(lambda exception, **_: self.fail(type(exception), exception))
        self.runner: Any = self.environment.create_local_runner()
        self.session: Session | None = None
        self.watch: Watch | None = None
        self.running: RunningLevel | None = None
        self.page: Page | None = None
        self.abandoned = Event()

    def plan(self, plan: LoadPlan) -> None:
        """Begin anew: a session of its own for each plan."""
        self.close()
        self.environment.host = plan.url
        self.users = [PlainUser]
        if plan.locustfile is not None:
            self.users = list(locustfile.load(plan.locustfile).users.values())
        self.session = Session(plan, from_dict(plan.workload), self.process, self._fire)
        self.watch = Watch(self.session)
        if plan.web_ui and self.process == 0 and self.page is None:
            self.page = Page(self.environment, self._stopped_by_hand)
            say("page", url=self.page.url)
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)

    def prepare(self, number: int) -> None:
        """All that can be done before a level's first moment: connections, requests, waiting users."""
        session = self.session
        assert session is not None
        plan = session.plan
        level = next(each for each in plan.levels if each.level == number)
        session.level = number
        self.abandoned.clear()
        users = len(range(self.process, level.users or 0, plan.processes))
        busy = plan.processes if level.users is None else min(plan.processes, level.users)
        running = RunningLevel(session, level, self.users, self.process, busy, ahead=max(1, users))
        self.running = self.closed_loop.running = running
        if self.process >= busy:
            running.over.set()  # fewer users than processes: this one has nothing to do
        self.environment.user_classes = list(self.users)
        if level.arrival is not None:
            session.open_ahead(min(_AHEAD_MOST, int((level.rate or 1.0) / plan.processes) + 1))
            gevent.spawn(Dispatcher(running, self.environment).run)
        else:
            session.open_ahead(users)
            while running.fill():
                pass
            session.recorder.ahead = running.fill
            if not any(map(waits, self.users)):
                self._start_users(running)
        say("prepared", level=number)

    def _start_users(self, running: RunningLevel) -> None:
        users = len(range(self.process, running.level.users or 0, running.session.plan.processes))
        if users:
            self.runner.start(users, spawn_rate=users, wait=True)

    def run_level(self, at: float) -> None:
        """The prepared level, from its first request to its last answer."""
        running, session = self.running, self.session
        assert running is not None
        assert session is not None
        running.begin(at + session.plan.clock_monotonic)
        if running.level.arrival is None and any(map(waits, self.users)):
            self._start_users(running)  # what they do besides asking begins with the level
        running.over.wait()
        sending_ended_at = session.now()
        session.recorder.ahead = lambda: False
        while session.open and not self.abandoned.is_set():
            self.abandoned.wait(0.02)
        session.abandon()
        self.running = None
        self.runner.stop()
        while session.transport.finished:  # their last records, with turns for the flush and the tick in between
            session.recorder.work(time.monotonic() + 0.01)
            gevent.sleep(0)
        session.flush()
        say(
            "level_ended",
            level=running.level.level,
            ended_by=running.ended_by,
            sending_ended_at=sending_ended_at,
            ended_at=session.now(),
            spread=running.starts.spread,
        )

    def _stopped_by_hand(self) -> None:
        """Somebody pressed the page's button, unless we stopped the users ourselves."""
        if self.running is not None:
            self.running.end("stopped")
            self.abandoned.set()

    def _fire(self, record: RequestRecord) -> None:
        """Tell Locust, whose own page and statistics follow its events."""
        if self.session is None or not self.session.plan.web_ui or record.status == "in_flight":
            return
        ended = record.finished_at if record.finished_at is not None else record.scheduled_at
        self.environment.events.request.fire(
            request_type="stream",
            name=f"level {record.level}",
            response_time=(ended - record.scheduled_at) * 1000,
            response_length=sum(record.token_count),
            exception=None if record.status == "completed" else RuntimeError(record.error_kind),
            context={},
        )

    def rehearse(self, order: dict[str, Any]) -> None:
        """Say what would be asked first, with made-up answers."""
        users = [PlainUser] if order["file"] is None else list(locustfile.load(order["file"]).users.values())
        workload = from_dict(order["workload"])
        try:
            played = rehearse(workload, users, self.environment, order["count"], order["seed"])
        except Exception as error:
            found = None if order["file"] is None else locustfile.fault(order["file"], error)
            if found is None:
                raise
            say("fault", found=found.found, where=found.where)
            return
        say("rehearsed", played=played)

    def fail(self, kind: type[BaseException], error: BaseException, trace: Any = None) -> None:
        """What a locustfile's own code raises is its author's; anything else is a bug in the load, which must not look
        like a silent server: say it and end the process.
        """
        path = None if self.session is None else self.session.plan.locustfile
        found = None if path is None else locustfile.fault(path, error)
        if found is not None:
            say("fault", found=found.found, where=found.where)
            return
        if isinstance(error, OSError) and error.errno in NO_SPACE:  # no bug: the journal has no room
            sys.stderr.write(f"{os.strerror(error.errno or 0)}\n")
            sys.stderr.flush()
            os._exit(LACKING)
        sys.excepthook(kind, error, trace or error.__traceback__)
        sys.stderr.flush()
        os._exit(70)

    def run(self) -> None:
        """Obey stdin until it ends."""
        gevent.spawn(self._flush)
        gevent.spawn(self._tick)
        say("ready")
        for order in orders():
            self.obey(order)
        self.close()

    def obey(self, order: dict[str, Any]) -> None:
        what = order["do"]
        if what == "describe":
            describe(order["file"])
        elif what == "rehearse":
            self.rehearse(order)
        elif what == "plan":
            self.plan(LoadPlan.from_json(json.dumps(order["plan"])))
        elif what == "level" and self.session is not None:
            level = Level.from_dict(order["level"])
            levels = (*(each for each in self.session.plan.levels if each.level != level.level), level)
            self.session.plan = dataclasses.replace(self.session.plan, levels=levels)
        elif what == "prepare":
            self.prepare(order["level"])
        elif what == "begin":
            gevent.spawn(self.run_level, order["at"])
        elif what == "end" and self.running is not None:
            self.running.end(order["reason"])
        elif what == "abandon":
            self.abandoned.set()
        elif what == "stats" and self.page is not None:
            self.page.add(order["report"])

    def close(self) -> None:
        if self.watch is not None and self.session is not None:
            self.watch.close()
            self.session.close()
        self.watch = self.session = None

    def _flush(self) -> None:
        while True:
            gevent.sleep(_FLUSH_EVERY)
            if self.session is not None:
                self.session.flush()

    def _tick(self) -> None:
        while True:
            gevent.sleep(_TICK_EVERY)
            if self.session is None or self.watch is None:
                continue
            sample, live = self.watch.look()
            self.session.note("sample", sample)
            if self.session.plan.web_ui and self.page is None:
                live["stats"] = Page.report(self.environment)
            say("tick", **live)


NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LACKING = 3  # exit code of a load process that this machine gives no room


def describe(path: str) -> None:
    """Say what the users of a locustfile ask, or what is wrong with it."""
    try:
        found = locustfile.load(path)
        users = [spec.as_dict() for spec in found.specs()]
        shape = None if found.shape is None else locustfile.steps_of(found.shape, path)
    except UsageError as error:
        say("described", error={"found": error.found, "where": error.where, "advice": error.advice})
        return
    say("described", users=users, shape=shape)


def orders() -> Iterator[dict[str, Any]]:
    """The orders on stdin, until it ends."""
    make_nonblocking(0)
    waiting = b""
    while data := nb_read(0, 65536):
        *lines, waiting = (waiting + data).split(b"\n")
        yield from (json.loads(line) for line in lines if line.strip())


_out = sys.stdout


def say(what: str, **facts: Any) -> None:
    """One line for whoever started this process."""
    _out.write(json.dumps({"say": what, **facts}) + "\n")
    _out.flush()


def keep_stdout() -> None:
    """What a locustfile or its libraries print must not stand between our lines."""
    global _out
    _out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)


def main() -> None:
    keep_stdout()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the harness, which tells us what to do
    logging.getLogger("locust").setLevel(logging.ERROR)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    hub = get_hub()
    ends = (gevent.GreenletExit, SystemExit, KeyboardInterrupt)
    worker = Worker(int(sys.argv[1]))
    hub.handle_error = lambda context, kind, *rest: None if issubclass(kind, ends) else worker.fail(kind, *rest)
    worker.run()
    # Nothing is left to do, and gevent's own end under Python 3.10 complains of a greenlet that is being finalized.
    _out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
