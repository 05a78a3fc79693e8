"""When the users of a closed loop start, and how they are kept from asking in step.

Users of equal lengths who begin within milliseconds are answered together, and ask together again, for as long as the
load lasts: each waits behind the prompts of all others. Real users do not. So their starts are spread over the time
that an answer takes, and each pauses for a random moment before it asks again. In virtual time (8B on an L4, 8 users,
300 tokens in and 60 out) the median TTFT is 520 ms in step and 140 ms spread, whether over a third of an answer's time
or twice that; without pauses it still is 160 ms. The pauses cost the share of the load that they last.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable

import gevent
from gevent.event import AsyncResult, Event

from harness.load.connection import Exchange
from harness.load.session import Session
from harness.measure.record import RequestRecord
from harness.workload.seeds import uniform

JITTER = 0.02  # of the answer's time: mean pause before a user asks again
STARTS_PER_SECOND = 5000.0  # of users: thousands of requests within a moment would measure the service's accept queue
_EVENTS_ENOUGH = 8  # token events of an answer, by which its whole time is estimated
_LOOK_EVERY, _LOOK_FOR = 0.02, 5.0  # seconds


class Starts:
    """The starts of one level in one process. users: of all processes. spread: seconds over which the users' starts are
    spread, from the level's first moment on; None until that is known.
    """

    def __init__(self, session: Session, users: int, *, spread: bool, over: Event) -> None:
        self._session, self._users, self._over = session, users, over
        self._wanted = spread and users > 1
        self._typical: AsyncResult[float] = AsyncResult()
        self.began_at = 0.0

    @property
    def spread(self) -> float | None:
        return self._typical.value if self._typical.ready() else None

    def begin(self, at: float) -> None:
        """at: the level's first moment, CLOCK_MONOTONIC."""
        self.began_at = at
        if self._wanted:
            gevent.spawn(self._estimate, list(self._session.recent))

    def wait(self, number: int) -> None:
        """Until the user of this number, among all processes', may ask. The first of each process asks at once."""
        gevent.sleep(max(0.0, self.began_at + number / STARTS_PER_SECOND - time.monotonic()))
        if self._wanted and number >= self._session.plan.processes:
            answer = self._typical.get()
            passed = time.monotonic() - self.began_at
            due = answer * number / self._users
            if due < passed and answer > 0:  # it took that long to know: its place in the round of the next answers
                due += answer * math.ceil((passed - due) / answer)
            self._over.wait(max(0.0, due - passed))

    def pause(self, number: int, answered: Exchange | None) -> float:
        """Seconds before a user who has just been answered asks again. number: of the request."""
        share = self._session.plan.jitter
        if not share or answered is None or answered.sent_at is None or answered.error is not None:
            return 0.0
        took = time.monotonic() - answered.sent_at
        return 2 * share * took * uniform(self._session.plan.seed, "jitter", self._session.level, number)

    def _estimate(self, before: Iterable[RequestRecord]) -> None:
        """How long an answer takes: as those of the level before, else as the first one promises to."""
        done = [each for each in before if each.status == "completed"]
        if done:
            took = [(each.finished_at or each.scheduled_at) - each.scheduled_at for each in done]
            self._typical.set(statistics.median(took))
            return
        while (passed := time.monotonic() - self.began_at) < _LOOK_FOR and not self._over.is_set():
            seconds = self._first_answer()
            if seconds is not None:
                self._typical.set(seconds)
                return
            gevent.sleep(_LOOK_EVERY)
        self._typical.set(min(passed, _LOOK_FOR))

    def _first_answer(self) -> float | None:
        session = self._session
        for record in session.recent:
            if record.finished_at is not None:
                return record.finished_at - record.scheduled_at
        for exchange in list(session.open.values()):
            moments, asked = exchange.asked.moments, exchange.asked.record.asked_output_tokens
            if len(moments) >= _EVENTS_ENOUGH and exchange.sent_at is not None and asked:
                each = (moments[-1] - moments[0]) / (len(moments) - 1)
                return moments[0] - exchange.sent_at + each * (asked - 1)
        return None
