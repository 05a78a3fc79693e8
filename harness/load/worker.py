"""One load process: `python -m harness.load.worker PLAN NUMBER`. Only ever run as a process of its own.

It holds levels when it is told to on stdin, one JSON object a line, and says on stdout how it is getting on:

    in   {"do": "level", "level": 0, "at": 1.5}    hold this level from this moment on (run-relative seconds)
         {"do": "end", "reason": "interrupted"}    send no more in this level
         {"do": "abandon"}                         and do not wait for the answers either
    out  {"say": "ready"} · {"say": "tick", ...} once a second · {"say": "held", "level": 0, ...} after the last answer

It ends when stdin does, so it never outlives the process that started it.
"""

from __future__ import annotations

# First of all: it patches the standard library, which nothing may have used before.
import locust  # noqa: F401  isort: skip

import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from gevent.os import make_nonblocking, nb_read
from locust.env import Environment

from harness.load.closed_loop import ClosedLoopUser
from harness.load.level import Holding
from harness.load.open_loop import OpenLoopUser
from harness.load.plan import LoadPlan
from harness.load.session import Session
from harness.load.watch import Watch
from harness.measure.record import RequestRecord
from harness.workload.workload import from_dict

_FLUSH_EVERY = 0.25


class Worker:
    """Holds levels on Locust, one after another."""

    def __init__(self, plan: LoadPlan, process: int) -> None:
        self.plan, self.process = plan, process
        self.environment = Environment(user_classes=[ClosedLoopUser, OpenLoopUser], host=plan.url)
        self.runner: Any = self.environment.create_local_runner()
        self.session = Session(plan, from_dict(plan.workload), process, self._fire)
        self.watch = Watch(self.session)
        self.holding: Holding | None = None
        self.abandoned = Event()

    def hold(self, number: int, at: float) -> None:
        """One level, from its first request to its last answer."""
        level = next(each for each in self.plan.levels if each.level == number)
        self.session.level = number
        self.holding = holding = Holding(self.session, level, self.process, self.plan.processes)
        gevent.sleep(max(0.0, at - self.session.now()))
        self._start_users(holding)
        holding.start_clock()
        holding.over.wait()
        sending_ended_at = self.session.now()
        self._wait_for_answers()
        self.runner.stop()
        self.session.recorder.drain()
        self.session.flush()
        say(
            "held",
            level=number,
            ended_by=holding.ended_by,
            sending_ended_at=sending_ended_at,
            ended_at=self.session.now(),
        )
        self.holding = None

    def _start_users(self, holding: Holding) -> None:
        """This process's share of the users, or the one dispatcher of an open loop, as users of Locust."""
        kind: type[Any] = OpenLoopUser if holding.level.arrival is not None else ClosedLoopUser
        users = holding.level.users or 0
        count = len(range(self.process, users, self.plan.processes)) if kind is ClosedLoopUser else 1
        kind.holding = holding
        self.environment.user_classes = [kind]
        if count:
            self.runner.start(count, spawn_rate=count, wait=False)

    def _wait_for_answers(self) -> None:
        while self.session.open and not self.abandoned.is_set():
            self.abandoned.wait(0.02)

    def _fire(self, record: RequestRecord) -> None:
        """Tell Locust, whose own page and statistics follow its events."""
        elapsed = ((record.finished_at or record.scheduled_at) - record.scheduled_at) * 1000
        self.environment.events.request.fire(
            request_type=self.plan.api,
            name=f"level {record.level}",
            response_time=elapsed,
            response_length=sum(record.token_count),
            exception=None if record.status == "completed" else RuntimeError(record.error_kind),
            context={},
        )

    def run(self) -> None:
        """Obey stdin until it ends."""
        gevent.spawn(self._flush)
        gevent.spawn(self._tick)
        gc.collect()
        gc.freeze()
        say("ready")
        for order in orders():
            if order["do"] == "level":
                gevent.spawn(self.hold, order["level"], order["at"]).link_exception(_die)
            elif order["do"] == "end" and self.holding is not None:
                self.holding.end(order["reason"])
            elif order["do"] == "abandon":
                self.abandoned.set()
        self.session.close()

    def _flush(self) -> None:
        while True:
            gevent.sleep(_FLUSH_EVERY)
            self.session.flush()

    def _tick(self) -> None:
        while True:
            gevent.sleep(1.0)
            self.session.clock.renew()
            sample, live = self.watch.look()
            self.session.note("sample", sample)
            say("tick", process=self.process, **live)


def _die(failed: Any) -> None:
    """A bug in a level must not look like a silent server: end the process, loudly."""
    os._exit(70)


def orders() -> Any:
    """The orders on stdin, until it ends."""
    make_nonblocking(0)
    waiting = b""
    while data := nb_read(0, 65536):
        *lines, waiting = (waiting + data).split(b"\n")
        yield from (json.loads(line) for line in lines if line.strip())


def say(what: str, **facts: Any) -> None:
    """One line on stdout."""
    sys.stdout.write(json.dumps({"say": what, **facts}) + "\n")
    sys.stdout.flush()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the harness, which tells us what to do
    plan = LoadPlan.from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Worker(plan, int(sys.argv[2])).run()


if __name__ == "__main__":
    main()
