"""One load process at work: what it asks, over which connections, into which journal, and how it is getting on."""

from __future__ import annotations

import os
import resource
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.engines import APIS
from harness.load.plan import LoadPlan
from harness.load.recorder import Asked, Recorder
from harness.load.transport import Clock, Exchange, Pool
from harness.measure.journal import JournalWriter
from harness.measure.record import RequestRecord
from harness.measure.run_folder import RunFolder
from harness.workload.request import Request
from harness.workload.workload import Workload

_SPARE_DESCRIPTORS = 64
_LEVEL_NUMBERS = 10_000_000  # more than any level sends


@dataclass(slots=True)
class Prepared:
    """A request whose bytes are ready: what is left to do at its moment is one write."""

    request_id: str
    request: Request
    call: bytes


class Session:
    """All that one process's users share. level: the number of the load that is being held."""

    def __init__(
        self,
        plan: LoadPlan,
        workload: Workload,
        process: int,
        told: Callable[[RequestRecord], None] = lambda record: None,
    ) -> None:
        self.plan, self.workload, self.process = plan, workload, process
        self.level = 0
        self.open: dict[str, Exchange] = {}
        self.recent: deque[RequestRecord] = deque(maxlen=4096)
        self.counts: Counter[str] = Counter()
        self.clock = Clock()
        self.clock.renew()
        self._told = told
        self._api = APIS[plan.api]
        self._key = os.environ.get("HARNESS_API_KEY")
        self._pool = Pool(plan.url, self.clock, plan.timeout)
        self._journal = JournalWriter(RunFolder(Path(plan.folder)).journal(process))
        self.recorder = Recorder(self._api, self._journal, plan.clock_monotonic, self._finished)
        self._prefix = f"{os.urandom(5).hex()}-{process}-"
        self._most_open = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_DESCRIPTORS

    def now(self) -> float:
        """Seconds since the run's start."""
        return time.monotonic() - self.plan.clock_monotonic

    def prepare(self, index: int) -> Prepared:
        """The level's request of this number, as bytes.

        No prompt comes twice in a run: an engine would answer it from its prefix cache. A trace has one level.
        """
        request = self.workload.request(self.level * _LEVEL_NUMBERS + index)
        request_id = f"{self._prefix}{self.level}-{index}"
        call = self._api.encode(request, request_id, self.plan.model_name, stream=self.plan.stream)
        fields = {
            "host": self._pool.address.host_header.decode(),
            **call.headers,
            "content-length": str(len(call.body)),
        }
        if self._key:
            fields["authorization"] = f"Bearer {self._key}"
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return Prepared(
            request_id, request, f"{call.method} {call.path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + call.body
        )

    def ask(self, prepared: Prepared, scheduled_at: float | None = None) -> None:
        """Send it now and wait for its answer. scheduled_at: run-relative; None where nothing was scheduled."""
        sent_at = self.now()
        record = self._record(prepared, sent_at if scheduled_at is None else scheduled_at)
        if len(self.open) >= self._most_open:
            self._drop(record)
            return
        self._journal.begin(record.request_id, record.level, record.scheduled_at, sent_at)
        self.counts["sent"] += 1
        exchange = self.open[record.request_id] = Exchange()
        try:
            self._pool.ask(prepared.call, exchange)
        finally:
            del self.open[record.request_id]
        if exchange.error == "dropped":
            self.counts["sent"] -= 1
            self._drop(record)
            return
        if exchange.sent_at is None:
            exchange.sent_at = sent_at + self.plan.clock_monotonic
        elif scheduled_at is None:
            record.scheduled_at = exchange.sent_at - self.plan.clock_monotonic
        if not exchange.stamps or exchange.error == "timeout":
            record.finished_at = self.now()
        self.recorder.add(Asked(record, exchange, self.plan.stream))

    def flush(self) -> None:
        """Hand the journal to the kernel; called at least every half second."""
        self._journal.flush()

    def note(self, kind: str, content: Mapping[str, Any]) -> None:
        """What the process says of itself, into the journal."""
        self._journal.note(kind, content)

    def close(self) -> None:
        self.recorder.drain()
        self._journal.close()
        self._pool.close()

    def _record(self, prepared: Prepared, scheduled_at: float) -> RequestRecord:
        request = prepared.request
        return RequestRecord(
            prepared.request_id,
            self.level,
            scheduled_at,
            "in_flight",
            session_id=request.session_id,
            turn=request.turn,
            asked_input_tokens=request.input_tokens,
            asked_output_tokens=request.max_new_tokens,
        )

    def _drop(self, record: RequestRecord) -> None:
        record.status, record.error_kind = "dropped", "dropped"
        self._journal.end(record)
        self._finished(record)

    def _finished(self, record: RequestRecord) -> None:
        self.counts[record.status] += 1
        self.recent.append(record)
        self._told(record)
