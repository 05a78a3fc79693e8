"""A load process that Locust's own command started: joins a run and obeys its orders.

A journal is written into the run's folder where this process sees it; on another machine it is written to a folder of
its own and its bytes are sent to whoever records the run as they are written.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
from gevent.event import AsyncResult, Event
from gevent.queue import Queue

from harness.errors import UsageError
from harness.load import messages
from harness.load.locust_worker import LocustWorker
from harness.load.plan import LoadPlan
from harness.load.running_level import RunningLevel
from harness.load.stream_user import StreamUser, stream_users
from harness.measure.run_folder import RunFolder, read_manifest

logger = logging.getLogger("harness")

_CLOCK_READINGS, _CLOCK_WITHIN = 10, 5.0
_CLOSED_WITHIN = 55.0  # seconds; beyond those for which answers are awaited nothing takes long


class JoinedWorker(LocustWorker):
    """Locust starts the users, and takes them away; this ends what they ask in order before it does."""

    def __init__(self, environment: Any, runner: Any) -> None:
        super().__init__(environment, runner)
        self._orders: Queue[dict[str, Any]] = Queue()
        self._time: AsyncResult[float] = AsyncResult()
        self._closed = Event()
        self._closed.set()
        self._ship: Path | None = None  # a journal that whoever keeps the run lacks
        self._shipped = 0
        runner.register_message(messages.ORDER, self._on_order)
        environment.events.test_stopping.add_listener(lambda **_: self._leave())
        self.serve()
        gevent.spawn(self._obey_all).link_exception(lambda _: self._give_up())

    def say(self, what: str, **facts: Any) -> None:
        self.runner.send_message(messages.REPORT, {"say": what, "process": self.process, **facts})

    def classes_of(self, plan: LoadPlan) -> list[type[StreamUser]]:
        there = {each.__name__: each for each in stream_users(self.environment)}
        return [there[name] for name in plan.users]

    def start_users(self, running: RunningLevel, *, begun: bool) -> None:
        """Locust does."""

    def stop_users(self) -> None:
        """Before the journal is closed: a user that still reads an answer would write into it."""
        self.runner.user_greenlets.kill(block=True)

    def obey(self, order: dict[str, Any]) -> None:
        if order["do"] == "plan":
            self.process = order["process"]
            self._join(order)
        else:
            super().obey(order)

    def _on_order(self, environment: Any, msg: Any, **_: Any) -> None:
        """At once what an order in work may wait for, the rest one after another."""
        if msg.data["do"] == "time":
            self._time.set(msg.data["at"])
            return
        if msg.data["do"] == "plan":
            self._closed.clear()
        self._orders.put(msg.data)

    def _obey_all(self) -> None:
        for order in self._orders:
            try:
                self.obey(order)
            except UsageError as error:  # of this machine's environment, which nobody looked at before
                logger.error("%s", error)
                self.say("refused", found=error.found, where=error.where, advice=error.advice)
                self.environment.process_exit_code = error.exit_code
                self._give_up()
                return

    def _give_up(self) -> None:
        """An order could not be obeyed: whoever runs the levels goes on without this process."""
        self._closed.set()
        gevent.spawn(self.runner.quit)

    def _join(self, order: dict[str, Any]) -> None:
        """Take part in a run, with its clock, and with a folder of its own where its folder is not here."""
        plan = LoadPlan.from_dict(order["plan"])
        here = plan if messages.same_clock(messages.machine(), tuple(order["machine"])) else self._with_own_clock(plan)
        folder = None if _sees(plan) else Path(tempfile.mkdtemp(prefix="harness-"))
        self._ship, self._shipped = None if folder is None else RunFolder(folder).journal(self.process), 0
        self.plan(
            replace(
                here,
                folder=plan.folder if folder is None else str(folder),
                run_id=RunFolder(Path(plan.folder)).run_id,
            )
        )

    def _leave(self) -> None:
        """Locust is about to take the users away: no more requests, and their answers are awaited."""
        if not self._closed.is_set():
            self.end("stopped")
            self._closed.wait(_CLOSED_WITHIN)

    def close(self) -> None:
        """Hand in the journal."""
        if self.session is None:
            return
        super().close()
        self.flushed()
        if self._ship is not None:
            shutil.rmtree(self._ship.parent, ignore_errors=True)
        self._ship = None
        self.say("closed")
        self._closed.set()

    def level_over(self) -> None:
        self.close()  # what ends a level for good is the end of the run

    def flushed(self) -> None:
        """What was written since the last time, to whoever keeps the run."""
        if self._ship is None:
            return
        with self._ship.open("rb") as file:
            file.seek(self._shipped)
            content = file.read()
        if content:
            self._shipped += len(content)
            self.say("journal", content=content)

    def _with_own_clock(self, plan: LoadPlan) -> LoadPlan:
        """The run's zero on this machine's clock: halfway between question and answer, of the quickest answer."""
        readings = [self._ask_time() for _ in range(_CLOCK_READINGS)]
        took, ahead = min(readings)
        logger.info("the run's clock is another machine's; known to within %.1f ms", took / 2 * 1000)
        return replace(plan, clock_monotonic=plan.clock_monotonic - ahead)

    def _ask_time(self) -> tuple[float, float]:
        """Seconds that the answer took, and how far the other clock is ahead of ours."""
        self._time = AsyncResult()
        asked = time.monotonic()
        self.say("ask_time")
        there = self._time.get(timeout=_CLOCK_WITHIN)
        answered = time.monotonic()
        return answered - asked, there - (asked + answered) / 2


def _sees(plan: LoadPlan) -> bool:
    """Whether the run's folder lies here: its manifest tells the same zero."""
    try:
        return float(read_manifest(RunFolder(Path(plan.folder))).clock["monotonic"]) == plan.clock_monotonic
    except (UsageError, OSError):
        return False
