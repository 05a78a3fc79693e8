"""One load process of our own: `python -m harness.load.worker NUMBER`. Only ever run as a process of its own.

Orders come on stdin and reports go to stdout (messages.py), one JSON object a line. It ends when stdin does, so it
never outlives the process that started it. What a locustfile prints goes to stderr.
"""

from __future__ import annotations

# First of all: it patches the standard library, which nothing may have used before.
import locust  # isort: skip

import errno
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any

import gevent
from gevent.hub import get_hub
from gevent.os import make_nonblocking, nb_read
from locust.dispatch import UsersDispatcher
from locust.env import Environment
from locust.runners import WorkerNode

from harness.errors import UsageError
from harness.load import locustfile
from harness.load.locust_worker import LocustWorker
from harness.load.page import Page
from harness.load.plan import LoadPlan
from harness.load.rehearsal import rehearse
from harness.load.running_level import RunningLevel
from harness.load.stream_user import StreamUser, waits
from harness.workload.workload import from_dict

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LACKING = 3  # exit code of a load process that this machine gives no room


class PlainUser(StreamUser):
    """Asks what the plan says, where there is no locustfile."""


class Worker(LocustWorker):
    """Starts the users of a level itself, and ends them with it. page: Locust's, where this process serves it."""

    def __init__(self, process: int) -> None:
        environment = Environment(user_classes=[PlainUser], events=locust.events)
        runner: Any = environment.create_local_runner()
        super().__init__(environment, runner)
        self.process = process
        self.page: Page | None = None
        environment.events.user_error.add_listener(lambda exception, **_: self.fail(type(exception), exception))

    def say(self, what: str, **facts: Any) -> None:
        say(what, **facts)

    def classes_of(self, plan: LoadPlan) -> list[type[StreamUser]]:
        return _classes(plan.locustfile)

    def plan(self, plan: LoadPlan) -> None:
        super().plan(plan)
        if plan.web_ui and self.process == 0 and self.page is None:
            self.page = Page(self.environment, self._stopped_by_hand)
            self.say("page", url=self.page.url)

    def start_users(self, running: RunningLevel, *, begun: bool) -> None:
        """Before the level begins, so that they only wait for its first moment; users for whom Locust has more to do
        than asking come with it.
        """
        if not begun and running.share >= running.processes:
            running.over.set()  # fewer users than processes: this one has nothing to do
        if running.over.is_set() or begun != any(map(waits, self.users)):
            return
        users = running.level.users or 0
        self.environment.user_classes = list(self.users)
        self.environment.dispatcher_class = _share_of(self.process, running.session.plan.processes)
        self.runner.start(users, spawn_rate=users)

    def stop_users(self) -> None:
        self.runner.stop()

    def tells_locust(self) -> bool:
        return self.session is not None and self.session.plan.web_ui

    def level_over(self) -> None:
        """Others may follow."""

    def flushed(self) -> None:
        """Whoever keeps the run reads the journal itself."""

    def page_report(self) -> dict[str, Any]:
        return {"stats": Page.report(self.environment)} if self.tells_locust() and self.page is None else {}

    def _stopped_by_hand(self) -> None:
        """Somebody pressed the page's button, unless we stopped the users ourselves."""
        if self.running is not None:
            self.running.end("stopped")
            self.abandoned.set()

    def rehearse(self, order: dict[str, Any]) -> None:
        """Say what would be asked first, with made-up answers."""
        users, workload = _classes(order["file"]), from_dict(order["workload"])
        try:
            played = rehearse(workload, users, self.environment, order["count"], order["seed"])
        except Exception as error:
            found = None if order["file"] is None else locustfile.fault(order["file"], error)
            if found is None:
                raise
            self.say("fault", found=found.found, where=found.where)
            return
        self.say("rehearsed", played=played)

    def fail(self, kind: type[BaseException], error: BaseException, trace: Any = None) -> None:
        """What a locustfile's own code raises is its author's; anything else is a bug in the load, which must not look
        like a silent server: say it and end the process.
        """
        path = None if self.session is None else self.session.plan.locustfile
        found = None if path is None else locustfile.fault(path, error)
        if found is not None:
            self.say("fault", found=found.found, where=found.where)
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
        self.serve()
        self.say("ready")
        for order in orders():
            self.obey(order)
        self.close()

    def obey(self, order: dict[str, Any]) -> None:
        what = order["do"]
        if what == "describe":
            describe(order["file"])
        elif what == "rehearse":
            self.rehearse(order)
        elif what == "stats" and self.page is not None:
            self.page.add(order["report"])
        else:
            super().obey(order)


def _classes(file: str | None) -> list[type[StreamUser]]:
    return [PlainUser] if file is None else list(locustfile.load(file).users.values())


def _share_of(process: int, processes: int) -> type[UsersDispatcher]:
    """Locust's own way to give a level's users, by their weights, to all processes; of these the share of one."""

    class Share(UsersDispatcher):
        def __init__(self, worker_nodes: list[WorkerNode], user_classes: list[Any]) -> None:
            self._here = worker_nodes[0].id
            nodes = [WorkerNode(f"{number:06}") for number in range(processes)]
            self._of = nodes[process].id
            super().__init__(nodes, user_classes)

        def __next__(self) -> dict[str, dict[str, int]]:
            return {self._here: super().__next__()[self._of]}

    return Share


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
    """What a locustfile or its libraries print must not come between our lines."""
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
