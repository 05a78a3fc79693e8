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
from harness.load.running_level import RunningLevel
from harness.load.session import Prepared
from harness.load.transport import Exchange
from harness.measure.arrivals import POISSON
from harness.workload.workload import Replayed

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


def _share(running: RunningLevel, follows: tuple[int | None, ...]) -> Iterator[tuple[int, float]]:
    """The arrivals of this process, by number, with their moments: every Nth of the one schedule; sessions of a trace
    go with their first request. follows: as Replayed has it, empty where there are no sessions.
    """
    if not any(each is not None for each in follows):
        every = islice(enumerate(level_moments(running)), running.share, None, running.processes)
        yield from every
        return
    owners: list[int] = []
    for number, moment in enumerate(level_moments(running)):
        before = follows[number]
        owners.append(number % running.processes if before is None else owners[before])
        if owners[-1] == running.share:
            yield number, moment


class Dispatcher:
    """Sends this process's share of a level: of N processes each takes every Nth arrival of the one schedule.

    An arrival begins a conversation; what follows in it comes back here with its own moment, an answer and a pause
    later. In a trace a turn is sent at its own moment, or when the answer before it is in where that comes later.
    Moments are CLOCK_MONOTONIC seconds.
    """

    def __init__(self, running: RunningLevel, environment: Any) -> None:
        """environment: Locust's, for users that come with an arrival."""
        self._running, self._session, self._environment = running, running.session, environment
        workload = running.session.workload
        self._follows = workload.follows if isinstance(workload, Replayed) else ()
        self._followed = {before for before in self._follows if before is not None}
        self._answers: set[int] = set()  # of those that are followed, the ones that are over
        self._waiting: dict[int, tuple[float, Prepared]] = {}  # turns that are due, by whose answer they wait for
        self._moved: set[str] = set()
        self._moments = _share(running, self._follows)
        self._ready: deque[tuple[float, Prepared]] = deque()
        self._later: list[tuple[float, str, Prepared]] = []  # a heap; request ids keep equal moments apart
        self._talking = 0  # conversations that wait for an answer
        self._news = Event()  # a conversation has gone on, or ended

    def run(self) -> None:
        """Returns when the last request has been sent, of conversations the last answered, or the level is over."""
        self._running.begun.wait()
        recorder, transport = self._session.recorder, self._session.transport
        recorder.ahead = self._fill
        try:
            if self._running.converses or self._followed:
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
                before = self._before(prepared)
                if before is None or before in self._answers:
                    self._send(prepared, due)
                else:
                    self._waiting[before] = due, prepared
                self._session.transport.wake()
        for _, _, prepared in self._later:
            self._session.leave(prepared)

    def _send(self, prepared: Prepared, due: float) -> None:
        """A later turn without a pause has no moment of its own: it is sent as soon as its answer is read."""
        planned = prepared.sent_before == 0 or bool(prepared.request.delay)
        planned = planned and prepared.request_id not in self._moved
        moment = due - self._session.plan.clock_monotonic if planned else None
        if self._follows and prepared.index not in self._followed:
            self._session.begin(prepared, moment)  # nothing waits for its answer
            return
        self._talking += 1
        if self._session.begin(prepared, moment, lambda exchange: self._answered(prepared, exchange)) is None:
            gevent.spawn(self._go_on, prepared, None)

    def _answered(self, prepared: Prepared, exchange: Exchange) -> None:
        gevent.spawn(self._go_on, prepared, exchange)  # a script is no business of the hub's

    def _go_on(self, prepared: Prepared, exchange: Exchange | None) -> None:
        """The conversation's next request, at its moment; or its end."""
        self._talking -= 1
        if self._follows:
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

    def _before(self, prepared: Prepared) -> int | None:
        return self._follows[prepared.index] if self._follows else None

    def _release(self, number: int) -> None:
        """This turn of a trace has its answer; the one behind it may be sent, and is where it is due already."""
        self._answers.add(number)
        due, prepared = self._waiting.pop(number, (0.0, None))
        if prepared is not None:
            now = time.monotonic()
            self._running.moved.append(now - due)
            self._moved.add(prepared.request_id)
            heappush(self._later, (now, prepared.request_id, prepared))
        self._news.set()

    def _why(self) -> str:
        """What ended the schedule: its duration, unless so many requests came first."""
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
