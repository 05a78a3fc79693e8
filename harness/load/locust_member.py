"""A process in which Locust's users ask: its session and journal while a run lasts.

A journal is written into the run's folder where this process sees it; on another machine it is written to a folder of
its own and its bytes are handed to the keeper as they come.
"""

from __future__ import annotations

import gc
import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gevent
from gevent.event import AsyncResult, Event

from harness.errors import UsageError
from harness.load import locust_messages as say
from harness.load.plan import LoadPlan
from harness.load.session import Session
from harness.load.turns import play
from harness.load.user import StreamUser
from harness.load.watch import Watch
from harness.measure.record import RequestRecord
from harness.measure.run_folder import RunFolder, read_manifest
from harness.workload.mix import SLOTS, Mix

logger = logging.getLogger("harness")

_SEEDS_APART = 1_000_003  # between two processes, which must ask neither the same lengths nor under the same ids
_FLUSH_EVERY, _LOOK_EVERY = 0.25, 1.0
_CLOCK_READINGS, _CLOCK_WITHIN = 10, 5.0


@dataclass
class Running:
    """A run as this process sees it. slots: user class -> place in the mix. ship: a journal that the keeper lacks."""

    session: Session
    slots: Mapping[str, int]
    grace: float
    ship: Path | None
    taken: dict[str, int] = field(default_factory=dict)
    over: Event = field(default_factory=Event)
    closing: Event = field(default_factory=Event)
    shipped: int = 0
    greenlets: list[Any] = field(default_factory=list)


class Member:
    """Takes part in the runs that the keeper announces."""

    def __init__(self, environment: Any, runner: Any) -> None:
        self._environment, self._runner = environment, runner
        self._begun: AsyncResult[Running] = AsyncResult()
        self._closed = Event()
        self._plan = ""
        self._time: AsyncResult[float] = AsyncResult()
        runner.register_message(say.RUN, self._on_run)
        runner.register_message(say.LEVEL, self._on_level)
        runner.register_message(say.END, self._on_end)
        runner.register_message(say.TIME, self._on_time)
        environment.events.test_stopping.add_listener(lambda **_: self.end())

    @property
    def process(self) -> int:
        """This process's number in the run: the index that the master gave it."""
        return max(0, self._runner.worker_index)

    def use(self, user: StreamUser) -> None:
        """One conversation or request of a user, with its answers; at rest while the run ends."""
        running = self._begun.get()
        if running.over.is_set():
            gevent.sleep(0.05)
            return
        name, session = type(user).__name__, running.session
        taken = running.taken.get(name, 0)
        running.taken[name] = taken + 1
        prepared = session.prepare(taken * SLOTS + running.slots[name], user.script if user.scripts else None)
        play(session, prepared, running.over)
        if pause := session.pause_after(prepared):
            running.over.wait(pause)

    def end(self) -> None:
        """No more requests; wait for the open answers, end the users, hand in the journal. Once, whoever calls."""
        if not self._begun.ready():
            return
        running = self._begun.get()
        if running.over.is_set():
            self._closed.wait()
            return
        running.over.set()
        until = time.monotonic() + running.grace
        while running.session.open and time.monotonic() < until:
            gevent.sleep(0.02)
        # Before the journal is closed: a user that still reads an answer would write into it.
        self._runner.user_greenlets.kill(block=True)
        running.closing.set()
        gevent.joinall(running.greenlets)
        running.session.close()
        self._ship(running)
        if running.ship is not None:
            shutil.rmtree(running.ship.parent, ignore_errors=True)
        self._runner.send_message(say.DONE, {"process": self.process})
        self._begun = AsyncResult()
        self._closed.set()

    def _on_run(self, environment: Any, msg: Any, **_: Any) -> None:
        if msg.data["plan"] == self._plan:
            return  # announced twice: to all, and to one that joined meanwhile
        self._plan = msg.data["plan"]
        if msg.node_id == "local":
            self._begin(msg.data)
        else:
            gevent.spawn(self._begin, msg.data)  # the clocks are compared by messages, which this greenlet receives

    def _begin(self, run: Mapping[str, Any]) -> None:
        plan = LoadPlan.from_json(run["plan"])
        here = plan if say.same_clock(say.machine(), tuple(run["machine"])) else self._with_own_clock(plan)
        ship = None if _sees(plan) else Path(tempfile.mkdtemp(prefix="harness-"))
        here = replace(
            here,
            folder=plan.folder if ship is None else str(ship),
            run_id=RunFolder(Path(plan.folder)).run_id,
            seed=plan.seed + _SEEDS_APART * self.process,
        )
        mix = Mix.from_dict(plan.workload).with_seeds(_SEEDS_APART * self.process)
        session = Session(here, mix, self.process, self._fire, sessions=f"{self.process}-")
        session.level = run["level"]
        journal = None if ship is None else RunFolder(ship).journal(self.process)
        running = Running(session, run["slots"], run["grace"], journal)
        running.greenlets = [gevent.spawn(self._flush, running), gevent.spawn(self._look, running)]
        gc.collect()
        gc.freeze()
        self._closed.clear()
        self._runner.send_message(say.JOINED, {"process": self.process})
        self._begun.set(running)

    def _with_own_clock(self, plan: LoadPlan) -> LoadPlan:
        """The run's zero on this machine's clock: halfway between question and answer, of the quickest answer."""
        readings = [self._ask_time() for _ in range(_CLOCK_READINGS)]
        took, ahead = min(readings)
        logger.info("the run's clock is another machine's; known to within %.1f ms", took / 2 * 1000)
        return replace(plan, clock_monotonic=plan.clock_monotonic - ahead)

    def _ask_time(self) -> tuple[float, float]:
        """Seconds that the answer took, and how far the keeper's clock is ahead of ours."""
        self._time = AsyncResult()
        asked = time.monotonic()
        self._runner.send_message(say.ASK_TIME, {})
        there = self._time.get(timeout=_CLOCK_WITHIN)
        answered = time.monotonic()
        return answered - asked, there - (asked + answered) / 2

    def _on_time(self, environment: Any, msg: Any, **_: Any) -> None:
        self._time.set(msg.data["at"])

    def _on_level(self, environment: Any, msg: Any, **_: Any) -> None:
        if self._begun.ready():
            self._begun.get().session.level = msg.data["level"]

    def _on_end(self, environment: Any, msg: Any, **_: Any) -> None:
        gevent.spawn(self.end)

    def _flush(self, running: Running) -> None:
        while not running.closing.wait(_FLUSH_EVERY):
            running.session.flush()
            self._ship(running)

    def _ship(self, running: Running) -> None:
        """What was written since the last time, to the keeper."""
        if running.ship is None:
            return
        with running.ship.open("rb") as file:
            file.seek(running.shipped)
            content = file.read()
        if content:
            running.shipped += len(content)
            self._runner.send_message(say.JOURNAL, {"process": self.process, "content": content})

    def _look(self, running: Running) -> None:
        watch = Watch(running.session)
        while not running.closing.wait(_LOOK_EVERY):
            sample, _ = watch.look()
            running.session.note("sample", sample)
        watch.close()

    def _fire(self, record: RequestRecord) -> None:
        """Tell Locust, whose own page and statistics follow its events. Its times are of its own making: whole
        milliseconds, two digits; the records hold what was measured.
        """
        if record.status == "in_flight":
            return  # given up by us: neither answered nor failed
        ended = record.finished_at if record.finished_at is not None else record.scheduled_at
        self._environment.events.request.fire(
            request_type="stream",
            name=f"level {record.level}",
            response_time=(ended - record.scheduled_at) * 1000,
            response_length=sum(record.token_count),
            exception=None if record.status == "completed" else RuntimeError(record.error_kind),
            context={},
        )


def _sees(plan: LoadPlan) -> bool:
    """Whether the run's folder lies here: its manifest tells the same zero."""
    try:
        return float(read_manifest(RunFolder(Path(plan.folder))).clock["monotonic"]) == plan.clock_monotonic
    except (UsageError, OSError):
        return False
