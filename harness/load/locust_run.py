"""A run under Locust's own command: turns a Locust test into levels with the same rules and records as any other run.

Lives in Locust's master, or in its only process. A level is a target number of users: changing it, on Locust's page, by
key or by a LoadTestShape, begins the next level. The ramp to the target belongs to the level's warm-up.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import gevent
from gevent.event import Event
from locust.runners import STATE_SPAWNING

from harness.errors import HarnessError, ServiceError
from harness.load import runner
from harness.load.floor import floor_of
from harness.load.locust_plan import GRACE, LocustSettings, plan_run, settings_of
from harness.load.locust_pool import LocustPool
from harness.load.messages import USERS_CHANGED
from harness.load.stream_user import StreamUser
from harness.load.worker_pool import PREPARED_WITHIN
from harness.measure.client import Floor
from harness.measure.records import COMPLETED, FAILED, MISSING, Records
from harness.measure.run_folder import Level

logger = logging.getLogger("harness")

_HOLD_EVERY = 0.05  # seconds
_RAMP_LEAST = 1.0  # seconds; a shorter ramp is left to the default rule of the warm-up
_WARMUP_SHARE, _WARMUP_MOST = 0.1, 30.0  # after the ramp, as stats/window.py has it from the level's start


class LocustRuns:
    """Begins a run when Locust starts a test, and closes it when the test has ended."""

    def __init__(self, environment: Any, runner: Any, users: Callable[[Any], Sequence[type[StreamUser]]]) -> None:
        """users: gives the environment's user classes when a test starts."""
        self._environment, self._runner, self._users = environment, runner, users
        self._pool = LocustPool(runner)
        self._run: LocustRun | None = None
        self._began = self._quitting = False
        self._started = Event()  # no test is about to begin
        self._started.set()
        events = environment.events
        events.test_start.add_listener(lambda **_: self._start())
        events.spawning_complete.add_listener(lambda **_: self._run and self._run.ramped())
        events.test_stopping.add_listener(lambda **_: self._stopping())
        events.test_stop.add_listener(lambda **_: self._stop())
        events.quitting.add_listener(lambda **_: self._quit())
        events.worker_connect.add_listener(lambda client_id, **_: self._run and self._pool.join(client_id))

    @property
    def headless(self) -> bool:
        options = self._environment.parsed_options
        return options is not None and bool(options.headless)

    def _start(self) -> None:
        """Locust's users come when this returns. Its limit may end before that, of which it tells only who is starting
        users already.
        """
        self._runner.update_state(STATE_SPAWNING)
        self._started.clear()
        holding = gevent.spawn(self._hold_shape)
        try:
            self._begin()
        finally:
            self._started.set()
            holding.join()

    def _hold_shape(self) -> None:
        """The stages of a shape begin with the load, not while it is prepared, when Locust asks for them already."""
        shape = self._environment.shape_class
        while shape is not None:
            shape.reset_time()
            if self._started.wait(_HOLD_EVERY):
                return

    def _begin(self) -> None:
        try:
            settings = settings_of(self._users(self._environment))
            options = self._environment.parsed_options
            run_time = float(options.run_time) if options is not None and options.run_time else None
            target = lambda: int(self._runner.target_user_count)  # noqa: E731
            host = str(self._environment.host or "")
            self._run = LocustRun(self._pool, settings, host, target, run_time, headless=self.headless)
        except HarnessError as error:
            self._end(error)
            return
        self._began = True
        logger.info("writing to %s", self._run.recorder.folder.path)
        self._run.begin(self._end)

    def _end(self, error: HarnessError) -> None:
        """Locust's exit code becomes ours."""
        logger.error("%s", error)
        self._environment.process_exit_code = error.exit_code
        gevent.spawn(self._runner.quit if self.headless else self._runner.stop)

    def _stopping(self) -> None:
        if not self._quitting:
            self._started.wait(PREPARED_WITHIN)
        if self._run is not None:
            self._run.stop(by_hand=self._quitting)

    def _stop(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.close()

    def _quit(self) -> None:
        """A limit that is over before the service has answered leaves nothing, which must not look like a success."""
        self._quitting = True
        if self.headless and not self._began and not self._environment.process_exit_code:
            error = ServiceError("the run ended before it began: nothing was recorded", advice="Lengthen -t.")
            logger.error("%s", error)
            self._environment.process_exit_code = error.exit_code


class LocustRun:
    """One run, from its first level to its store of records. Raises HarnessErrors where it cannot begin."""

    def __init__(
        self,
        pool: LocustPool,
        settings: LocustSettings,
        host: str,
        target: Callable[[], int],
        run_time: float | None,
        *,
        headless: bool,
    ) -> None:
        """target: how many users Locust aims at now."""
        self._pool, self._target, self._run_time = pool, target, run_time
        self._test_began = time.monotonic()  # when Locust begins to count the test's time
        self._under_way = Event()  # the first level has begun, or never will
        self._stopping = Event()
        self._headless = headless
        self._ended: str | None = None  # why Locust ends the test
        self._early = False
        self._ramped_at: float | None = None
        self._by_ourselves: str | None = None
        self._streams = 0
        first = Level(0, users=target(), duration=run_time)
        self.recorder, self._plan = plan_run(settings, host, first, len(pool.there))

    @property
    def _level(self) -> Level:
        return self.recorder.manifest.levels[-1]

    def begin(self, failed: Callable[[HarnessError], None]) -> None:
        """Returns when the first level has begun: Locust's users, and the stages of a shape, come after that. failed:
        is told why the test cannot go on.
        """
        self.recorder.__enter__()
        self._levels = gevent.spawn(self._run_levels, failed)
        self._under_way.wait(PREPARED_WITHIN)

    def _run_levels(self, failed: Callable[[HarnessError], None]) -> None:
        try:
            outcome = runner.run(
                self._plan,
                self._asked(),
                pool=self._pool,
                on_level=self._note,
                show=lambda text: None,
                ended=self._why_ended,
            )
        except HarnessError as error:
            failed(error)
            return
        finally:
            self._under_way.set()
        self._streams = outcome.streams
        self._by_ourselves = runner.CUT_OFF.get(outcome.levels[-1].ended_by or "")
        if self._by_ourselves is not None:
            failed(ServiceError(f"the run was ended: {self._by_ourselves}", where=self._plan.url))

    def _asked(self) -> Iterator[Level]:
        """A level for each target of users."""
        yield self._level
        while self._ended is None and self._level.ended_by != "duration":
            self._ramped_at = None
            yield Level(self._level.level + 1, users=self._target())

    def _why_ended(self, level: Level) -> str | None:
        return self._ended or (USERS_CHANGED if self._target() != level.users else None)

    def _note(self, level: Level) -> None:
        """A level began or has ended."""
        self._under_way.set()
        if level.ended_at is not None:
            ended_by = self._ended if self._ended and level.ended_by == "stopped" else level.ended_by
            level = replace(level, ended_by=ended_by, duration=None if ended_by == USERS_CHANGED else level.duration)
        self.recorder.note(self._with_warmup(level))

    def ramped(self) -> None:
        """All users of the target are there."""
        if self._ramped_at is None and self._ended is None:
            self._ramped_at = self.recorder.now()
            self.recorder.note(self._with_warmup(self._level))

    def _with_warmup(self, level: Level) -> Level:
        """The ramp and the usual share of what follows it; where there was no ramp to speak of, the default rule.

        In whole seconds, so that repeats of one command have the same warm-up and can be compared.
        """
        began, ramped = level.started_at, self._ramped_at
        if began is None or ramped is None or ramped - began <= _RAMP_LEAST:
            return level
        ramp = math.ceil(ramped - began + 0.5 + (level.spread or 0.0))
        ended = level.sending_ended_at if level.duration is None else began + level.duration
        rest = max(0.0, (ramped if ended is None else ended) - began - ramp)
        return replace(level, warmup=float(ramp + math.ceil(min(_WARMUP_SHARE * rest, _WARMUP_MOST))))

    def stop(self, *, by_hand: bool) -> None:
        """Locust ends the test. by_hand: it quits before its time was over."""
        if not by_hand:
            self._await_limit()
        if self._ended is not None:
            return
        self._early = self._is_early(by_hand)
        self._ended = "interrupted" if self._early else "stopped" if self._run_time is None else "duration"
        self._stopping.set()

    def _await_limit(self) -> None:
        """Locust's limit counts from before the first level was prepared, and comes early by itself on a busy machine,
        since it counts from when Locust was last at rest. The run has its whole time all the same.
        """
        if self._run_time is None or not (
            self._headless or time.monotonic() - self._test_began >= self._run_time - 1.0
        ):
            return
        self._under_way.wait(PREPARED_WITHIN)
        left = self._run_time - self._lasted
        gevent.get_hub().loop.update_now()  # or a time-out counts from when the loop last ran
        gevent.wait([self._stopping, self._levels], timeout=max(0.0, left), count=1)

    @property
    def _lasted(self) -> float:
        """Seconds since the first level began."""
        began = self.recorder.manifest.levels[0].started_at
        return 0.0 if began is None else self.recorder.now() - began

    def _is_early(self, quitting: bool) -> bool:
        """Before its limit, by hand: Locust then quits before the test has stopped, or somebody pressed its page's
        button.
        """
        if self._run_time is None or self._lasted >= self._run_time - 1.0:
            return False
        return quitting or not self._headless

    def _floor(self) -> Floor | None:
        """The client's own error at this load; it is another one on another machine, and none where a process died."""
        if not self._streams or self._pool.lost or self._pool.elsewhere:
            return None
        return floor_of(self._streams, self._pool.processes)

    def close(self) -> None:
        """The test has ended: collect all journals, write the records, say where they are."""
        until = time.monotonic() + GRACE + 5.0
        self._levels.join(timeout=GRACE + 5.0)
        self._levels.kill()
        self._pool.await_closed(until)
        self._pool.leave()
        self.recorder.__exit__()
        gone = self._by_ourselves == runner.CUT_OFF["service_gone"]
        self.recorder.close(interrupted=self._early, gone=gone, processes=self._pool.processes)
        run = self.recorder.keep(self._floor(), self._pool.lost)
        for number in self._pool.lost:
            logger.warning("worker %s was lost: its last second may be missing", number)
        if not run.records.having(COMPLETED).any() or self._by_ourselves is not None:
            logger.error("%s", _failures(run.records))
        path = self.recorder.folder.path
        logger.info("records are in %s; for the report: harness report %s", path, path)


def _failures(records: Records) -> str:
    """Why requests failed, in the service's own words where it has some."""
    failed = [index for index, each in enumerate(records.status) if each == FAILED]
    if not failed:
        return "no request was completed, and none failed"
    words = Counter(
        (records.error_kind[each], records.error_message[each], records.http_status[each]) for each in failed
    )
    (kind, message, status), count = words.most_common(1)[0]
    said = f"; the service says: {f'HTTP {status}: ' if status != MISSING else ''}{message}" if message else ""
    return f"{count} of {len(failed)} failed requests: {kind}{said}"
