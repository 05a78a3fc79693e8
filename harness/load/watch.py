"""How a load process is doing, once a second: its own health for the verdict, and figures for the live view."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import gevent

from harness.load.session import Session
from harness.measure.client import ClientSample

_LAG_EVERY = 0.01
_EVENT_BYTES = 24  # a keep-alive comment is shorter, an event with a token never is


class Watch:
    """Samples one session. `look` is called about once a second."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lag = 0.0
        self._cpu, self._at = time.thread_time(), time.monotonic()
        self._seen_events = 0
        self._seen_at = time.monotonic()
        self._bytes: dict[str, int] = {}
        gevent.spawn(self._measure_lag)

    def look(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The client sample for the journal, and the live figures for the parent."""
        now, cpu, session = time.monotonic(), time.thread_time(), self._session
        sample = ClientSample(
            at=session.now(),
            process=str(session.process),
            cpu_fraction=(cpu - self._cpu) / max(1e-9, now - self._at),
            loop_lag_max=self._lag,
            streams=len(session.open),
            events=sum(len(each.slices) for each in list(session.open.values())),
            late_events=0,
            backlog=session.recorder.backlog,
        )
        self._cpu, self._at, self._lag = cpu, now, 0.0
        return dataclasses.asdict(sample), self._live(now)

    def _live(self, now: float) -> dict[str, Any]:
        session = self._session
        recent, since = list(session.recent), session.now() - 10.0
        fresh = [each for each in recent if each.status == "completed" and (each.finished_at or 0.0) >= since]
        return {
            "level": session.level,
            "at": session.now(),
            "open": len(session.open),
            "counts": dict(session.counts),
            "ttft": [each.token_at[0] - each.scheduled_at for each in fresh if each.token_at],
            "itl": [
                (each.token_at[-1] - each.token_at[0]) / (len(each.token_at) - 1)
                for each in fresh
                if len(each.token_at) > 1
            ],
            "silent": self._silence(now),
        }

    def _silence(self, now: float) -> float:
        """Seconds since any open request got an event; 0 while none is open."""
        open_now = self._session.open
        if not open_now:
            self._seen_at = now
            return 0.0
        for each in list(open_now.values()):
            if each.slices and len(each.slices[-1]) > _EVENT_BYTES:
                self._seen_at = max(self._seen_at, each.stamps[-1])
        last = self._session.recent[-1].finished_at if self._session.recent else None
        if last is not None:
            self._seen_at = max(self._seen_at, last + self._session.plan.clock_monotonic)
        return now - self._seen_at

    def _measure_lag(self) -> None:
        while True:
            due = time.monotonic() + _LAG_EVERY
            gevent.sleep(_LAG_EVERY)
            self._lag = max(self._lag, time.monotonic() - due)
