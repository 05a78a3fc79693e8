"""Once a second, the health of a load process, for the validity of the run, and its figures for the live view."""

from __future__ import annotations

import dataclasses
import time
from itertools import islice
from typing import Any

import gevent
import numpy as np

from harness.load.contention import Contention
from harness.load.live import RECENT
from harness.load.session import Session
from harness.measure.client import ClientSample
from harness.measure.record import NOT_STREAMED, RequestRecord

_LAG_EVERY = 0.01
_RECORDS_MOST, _GAPS_OF, _POINTS = 512, 64, 101  # records, records whose gaps are pooled, quantiles told of them


class Watch:
    """Samples one session. `look` is called about once a second."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lag = 0.0
        self._cpu, self._at = time.thread_time(), time.monotonic()
        self._contention = Contention.now(session.transport.run_queue)
        self._counted = (0, 0, 0, 0)
        self._decoded_at = time.monotonic()
        self._lag_meter = gevent.spawn(self._measure_lag)

    def close(self) -> None:
        self._lag_meter.kill(block=False)

    def look(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The client sample for the journal, and the live figures for the parent."""
        now, cpu, session, recorder = time.monotonic(), time.thread_time(), self._session, self._session.recorder
        passed = max(1e-9, now - self._at)
        counted = recorder.events, recorder.late, recorder.answers, recorder.late_answers
        events, late_events, answers, late_answers = (after - before for after, before in zip(counted, self._counted))
        contention = Contention.now(session.transport.run_queue)
        sample = ClientSample(
            at=session.now(),
            process=str(session.process),
            cpu_fraction=(cpu - self._cpu) / passed,
            loop_lag_max=self._lag,
            streams=len(session.open),
            events=events,
            late_events=late_events,
            answers=answers,
            late_answers=late_answers,
            backlog=session.transport.backlog,
            **dataclasses.asdict(contention.since(self._contention)),
        )
        self._contention = contention
        self._cpu, self._at, self._lag = cpu, now, 0.0
        self._counted = counted
        return dataclasses.asdict(sample), self._live(now)

    def _live(self, now: float) -> dict[str, Any]:
        session = self._session
        fresh = self._fresh()
        return {
            "level": session.level,
            "at": session.now(),
            "open": len(session.open),
            "decoded": session.recorder.decoded,
            "each_a_token": session.counts_events,
            "waiting": sum(not each.asked.events and not each.stamps for each in session.open.values()),
            "counts": dict(session.counts),
            "ttft": [round(each.token_at[0] - each.scheduled_at, 6) for each in fresh if each.token_at],
            "itl": _gap_quantiles(fresh[:_GAPS_OF]),
            "silent": self._silence(now),
            "refused_in_a_row": session.refused_in_a_row,
        }

    def _fresh(self) -> list[RequestRecord]:
        """The latest completed records of streamed answers, newest first."""
        if not self._session.plan.stream:
            return []
        since = self._session.now() - RECENT
        latest = islice(reversed(self._session.recent), _RECORDS_MOST)
        return [
            each
            for each in latest
            if each.status == "completed"
            and (each.finished_at or 0.0) >= since
            and NOT_STREAMED not in (each.notes or "")
        ]

    def _silence(self, now: float) -> float:
        """Seconds since any open request got a token; 0 while none is open, and where answers come whole: of those
        nothing can be heard before their end.
        """
        if not self._session.open or not self._session.plan.stream:
            self._decoded_at = now
        self._decoded_at = max(self._decoded_at, self._session.recorder.decoded_at)
        return max(0.0, now - self._decoded_at)

    def _measure_lag(self) -> None:
        while True:
            due = time.monotonic() + _LAG_EVERY
            gevent.sleep(_LAG_EVERY)
            self._lag = max(self._lag, time.monotonic() - due)


def _gap_quantiles(records: list[RequestRecord]) -> list[float]:
    """Evenly spaced quantiles of all gaps between token events, so that processes can be pooled. An answer that came in
    one read has none.
    """
    gaps = [np.diff(each.token_at) for each in records if each.token_at and each.token_at[-1] > each.token_at[0]]
    if not gaps:
        return []
    return [round(float(gap), 6) for gap in np.quantile(np.concatenate(gaps), np.linspace(0, 1, _POINTS))]
