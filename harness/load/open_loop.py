"""Open loop: arrivals follow a clock. Each request starts at its moment, however many are waiting for answers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import islice
from typing import Any

import gevent
from gevent import monkey
from gevent.event import Event

from harness.load.arrivals import moments
from harness.load.connection import Exchange
from harness.load.running_level import RunningLevel
from harness.load.session import PreparedRequest
from harness.measure.arrivals import POISSON
from harness.workload.traces.waits import NOTHING, Wait
from harness.workload.workload import ReplayedWorkload

_AHEAD = 64  # requests whose bytes are ready before their moment
# libev's timers are late by up to two milliseconds, so the last three are waited out in naps, with a look at the event
# loop in between. A nap itself is late by up to a tenth of a millisecond, which is spun away.
_WAKE_EARLY, _NAP, _NAP_LATE = 0.003, 0.0005, 0.0001
_LOOK_EVERY = 0.25  # seconds between two looks whether the level was ended

_sleep = monkey.get_original("time", "sleep")


def level_moments(running: RunningLevel) -> Iterator[float]:
    """When this level's requests are due, in seconds from its start, for all processes together."""
    level = running.level
    if level.replays:
        return islice(running.session.workload.offsets or (), level.requests)
    seed = running.session.plan.seed * 1000 + level.level
    most = level.sessions if running.converses else level.requests
    return moments(level.arrival or POISSON, level.rate or 1.0, seed, duration=level.duration, requests=most)


def _share(running: RunningLevel, waits: tuple[Wait, ...]) -> Iterator[tuple[int, float]]:
    """The arrivals of this process, by number, with their moments: every Nth of the one schedule; sessions of a trace,
    sub-agents included, go with their first request. waits: as ReplayedWorkload has them.
    """
    if not any(wait.answers for wait in waits):
        every = islice(enumerate(level_moments(running)), running.share, None, running.processes)
        yield from every
        return
    owners: list[int] = []
    for number, moment in enumerate(level_moments(running)):
        answers = waits[number].answers
        owners.append(owners[answers[0]] if answers else number % running.processes)
        if owners[-1] == running.share:
            yield number, moment


class Dispatcher:
    """Sends this process's share of a level: of N processes each takes every Nth arrival of the one schedule.

    An arrival begins a conversation; what follows in it comes back here with its own moment, an answer and a pause
    later. In a trace a turn is sent at its own moment, or, where that comes later, when what it waits for is answered
    and the pause behind it is over.
    Moments are CLOCK_MONOTONIC seconds.
    """

    def __init__(self, running: RunningLevel, environment: Any) -> None:
        """environment: Locust's, for users that come with an arrival."""
        self._running, self._session, self._environment = running, running.session, environment
        workload = running.session.workload
        self._waits = workload.waits if isinstance(workload, ReplayedWorkload) else ()
        self._awaited = {number for wait in self._waits for number in wait.answers}
        self._answered_at: dict[int, float] = {}  # of those that are awaited
        self._waiting: dict[
            int, list[tuple[float, PreparedRequest]]
        ] = {}  # turns that are due, by whose answer they wait for
        self._free: set[int] = set()  # turns that have waited
        self._unplanned: set[int] = set()  # those of them that are sent as soon as they are
        self._moments = _share(running, self._waits)
        self._ready: deque[tuple[float, PreparedRequest]] = deque()
        self._later: list[tuple[float, str, PreparedRequest]] = []  # a heap; request ids keep equal moments apart
        self._talking = 0  # conversations that wait for an answer
        self._news = Event()  # a conversation has gone on, or ended

    def run(self) -> None:
        """Returns when the last request has been sent, of conversations the last answered, or the level is over."""
        self._running.begun.wait()
        recorder, transport = self._session.recorder, self._session.transport
        recorder.ahead = self._fill
        try:
            if self._running.converses or self._awaited:
                self._run_conversations()
            else:
                self._run_requests()
        finally:
            recorder.ahead = lambda: False
            transport.next_due = float("inf")
        self._running.end(self._why())

    def _run_requests(self) -> None:
        while not self._running.over.is_set() and (self._ready or self._fill()):
            due, prepared = self._ready[0]
            if self._wait_until(due):
                self._ready.popleft()
                self._session.begin(prepared, due - self._session.plan.clock_monotonic)
                self._session.transport.wake()

    def _run_conversations(self) -> None:
        """Until the level is over, or all conversations that were to begin have ended."""
        over = self._running.over
        while not over.is_set():
            self._news.clear()
            arrives = self._ready[0][0] if self._ready or self._fill() else float("inf")
            due = min(arrives, self._later[0][0] if self._later else float("inf"))
            if due == float("inf"):
                if not self._talking and (self._running.level.duration is None or self._running.level.replays):
                    return
                self._session.transport.next_due = float("inf")
                self._news.wait(_LOOK_EVERY)
            elif self._wait_until(due):
                prepared = self._ready.popleft()[1] if due == arrives else heappop(self._later)[2]
                if self._may_go(prepared, due):
                    self._send(prepared, due)
                self._session.transport.wake()
        for _, _, prepared in self._later:
            self._session.leave(prepared)

    def _send(self, prepared: PreparedRequest, due: float) -> None:
        """A later turn without a pause has no moment of its own: it is sent as soon as its answer is read."""
        planned = prepared.sent_before == 0 or bool(prepared.request.delay)
        if self._waits and prepared.index in self._unplanned:
            planned = False
        moment = due - self._session.plan.clock_monotonic if planned else None
        if self._waits and prepared.index not in self._awaited:
            self._session.begin(prepared, moment)  # nothing waits for its answer
            return
        self._talking += 1
        if self._session.begin(prepared, moment, lambda exchange: self._answered(prepared, exchange)) is None:
            gevent.spawn(self._go_on, prepared, None)

    def _answered(self, prepared: PreparedRequest, exchange: Exchange) -> None:
        gevent.spawn(self._go_on, prepared, exchange)  # a script is no business of the hub's

    def _go_on(self, prepared: PreparedRequest, exchange: Exchange | None) -> None:
        """The conversation's next request, at its moment; or its end."""
        self._talking -= 1
        if self._waits:
            self._release(prepared.index)
            return
        if self._running.over.is_set() and exchange is not None and exchange.error == "in_flight":
            self._session.leave(prepared)
            return
        following = self._session.follow(prepared, exchange)
        if following is not None and self._running.over.is_set():
            self._session.leave(following)
        elif following is not None:
            ended = None if exchange is None else exchange.asked.record.finished_at
            since = time.monotonic() if ended is None else ended + self._session.plan.clock_monotonic
            heappush(self._later, (since + (following.request.delay or 0.0), following.request_id, following))
        self._news.set()

    def _may_go(self, prepared: PreparedRequest, due: float) -> bool:
        """Whether a request that is due may be sent now; if not, it is when what it waits for is over."""
        number = prepared.index
        wait = self._waits[number] if self._waits else NOTHING
        if not wait.answers or number in self._free:
            return True
        missing = next((each for each in wait.answers if each not in self._answered_at), None)
        if missing is not None:
            self._waiting.setdefault(missing, []).append((due, prepared))
            return False
        self._free.add(number)
        earliest = max(self._answered_at[each] for each in wait.answers) + (wait.pause or 0.0)
        if earliest <= due:
            return True
        self._running.moved.append(earliest - due)
        if not wait.pause:
            self._unplanned.add(number)
        heappush(self._later, (earliest, prepared.request_id, prepared))
        return False

    def _release(self, number: int) -> None:
        """This request of a trace is answered: those that waited for it alone come next."""
        self._answered_at[number] = time.monotonic()
        for due, prepared in self._waiting.pop(number, ()):
            if self._may_go(prepared, due):
                heappush(self._later, (due, prepared.request_id, prepared))
        self._news.set()

    def _why(self) -> str:
        """What ended the schedule: its duration, unless this many requests came first."""
        level = self._running.level
        if level.replays:
            return "trace"
        if self._running.converses:
            return "duration" if level.sessions is None else "sessions"
        return "duration" if level.requests is None else "requests"

    def _fill(self) -> bool:
        """Prepare one request more; False when enough are ready or none is left."""
        if len(self._ready) >= _AHEAD:
            return False
        number, moment = next(self._moments, (None, 0.0))
        if number is None:
            return False
        prepared = self._running.arrival(number, self._environment)
        self._ready.append((self._running.began_at + moment, prepared))
        return True

    def _wait_until(self, due: float) -> bool:
        """Give way to others until this moment of CLOCK_MONOTONIC; False when the level is over before, or something
        else may be due before.
        """
        transport, over = self._session.transport, self._running.over
        transport.next_due = due - _WAKE_EARLY
        while (rest := due - time.monotonic()) > _WAKE_EARLY:
            if over.is_set() or self._news.is_set():
                return False
            pause = min(rest - _WAKE_EARLY, _LOOK_EVERY)
            if self._talking:
                self._news.wait(pause)
            else:
                gevent.sleep(pause)
        transport.next_due = 0.0  # no pauses of the reader from here on: the naps are pause enough
        while (rest := due - time.monotonic()) > _NAP_LATE:
            _sleep(min(rest - _NAP_LATE, _NAP))
            gevent.sleep(0)
        while time.monotonic() < due:
            pass
        return not over.is_set()
