"""Session: what one load process sends, over which connections, and into which journal it records."""

from __future__ import annotations

import os
import resource
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gevent
from gevent.hub import get_hub

from harness.engines import APIS
from harness.engines.answer_text import AnswerText
from harness.engines.api import Extras
from harness.engines.route import proxy, service_key
from harness.load.connection import Address, Exchange
from harness.load.plan import LoadPlan
from harness.load.recorder import Recorder, RequestInProgress
from harness.load.request_ids import request_id
from harness.load.stamps import Clock
from harness.load.transport import Transport
from harness.measure.journal import JournalWriter
from harness.measure.record import RequestRecord
from harness.measure.run_folder import RunFolder
from harness.workload.request import LEVEL_NUMBERS, Player, Reply, Request, Script
from harness.workload.workload import Workload

# Seconds that a user waits after an attempt that ended at once, for want of a listener or of a descriptor, or because
# the service turned it away: else it would ask thousands of times a second. After failures that came otherwise the wait
# grows with their number in a row, to as much.
UNSENT_WAIT, FAILED_WAIT = 1.0, 0.02
UNSENT = ("refused", "dropped")
_PAUSE_MOST = 30.0  # seconds that a service may ask for by Retry-After; a level is not to be slept through
_SPARE_DESCRIPTORS = 16  # for what the process may open besides connections


@dataclass(slots=True)
class PreparedRequest:
    """A request whose bytes are ready: what is left to do at its moment is one write.

    level, index: of the conversation, in the level in which it began. script: what asks it, and goes on with its
    answer. sent_before: how many requests of the conversation came before.
    """

    request_id: str
    request: Request
    call: bytes
    level: int
    index: int
    script: Script
    sent_before: int = 0


class _Waiter:
    """Lets a greenlet wait for one call of `wake`, which costs no turn of the event loop when it comes from the hub."""

    def __init__(self, hub: Any) -> None:
        self._hub, self._me = hub, gevent.getcurrent()
        self._woken = self._waiting = False

    def wait(self) -> None:
        if not self._woken:
            self._waiting = True
            try:
                self._hub.switch()
            finally:
                self._waiting = False

    def wake(self) -> None:
        self._woken = True
        if self._waiting and gevent.getcurrent() is self._hub:
            self._me.switch()
        elif self._waiting:
            self._hub.loop.run_callback(self._wake_later)

    def wake_behind(self) -> None:
        """The same, when what the hub is doing is done."""
        self._woken = True
        if self._waiting:
            self._hub.loop.run_callback(self._wake_later)

    def _wake_later(self) -> None:
        if self._waiting:
            self._me.switch()


class Session:
    """All that one process's users share.

    level: the number of the one that is running. open: what is being answered, by request id. recent: the latest
    records. counts: of the running level's records, by status. refused_in_a_row: requests that found nobody, since
    the last one that did. failed_in_a_row: requests that failed, since the last one that did not. counts_events: each
    event that is read is one token.
    """

    def __init__(
        self,
        plan: LoadPlan,
        workload: Workload,
        process: int,
        told: Callable[[RequestRecord], None] = lambda record: None,
    ) -> None:
        """told: is called with each record."""
        self.plan, self.workload, self.process = plan, workload, process
        self.level = 0
        self.open: dict[str, Exchange] = {}
        self.recent: deque[RequestRecord] = deque(maxlen=4096)
        self.counts: Counter[str] = Counter()
        self.refused_in_a_row = self.failed_in_a_row = 0
        self._not_before = 0.0  # CLOCK_MONOTONIC seconds; until then the service wants no further attempts
        self._hub = get_hub()
        self._told = told
        self._api = APIS[plan.api]
        self._key = service_key()  # of this machine's environment: a Locust worker may run elsewhere
        self.transport = Transport(Address.of(plan.url, proxy()), Clock(), plan.timeout)
        self._journal = JournalWriter(RunFolder(Path(plan.folder)).journal(process))
        self.counts_events = self._api.counts_events and plan.stream
        if self.counts_events:
            self._journal.note("counting", {"count_told": "per_event"})
        self.recorder = Recorder(self._api, self.transport, self._journal, plan.clock_monotonic, self._finished)
        self._extras = Extras(**plan.extras)
        self._run_id = plan.run_id or RunFolder(Path(plan.folder)).run_id
        taken = len(os.listdir("/proc/self/fd")) + _SPARE_DESCRIPTORS
        self._most_open = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - taken)

    def now(self) -> float:
        """Seconds since the run's start."""
        return time.monotonic() - self.plan.clock_monotonic

    def begin_level(self, level: int) -> None:
        """What is asked and counted from now on is of this level."""
        self.level = level
        self.counts.clear()

    def open_ahead(self, count: int) -> None:
        """Open this many connections before they are needed, as far as the limit of open files allows."""
        self.transport.open_ahead(min(count, self._most_open))

    def prepare(self, level: int, index: int, player: Player | None = None) -> PreparedRequest:
        """A level's request of this number, or the first one of its conversation, as bytes.

        No prompt comes twice in a run: an engine would answer it from its prefix cache. A trace has one level. player:
        plays the conversation, in place of the usual one.
        """
        script = self.workload.start(level * LEVEL_NUMBERS + index, player)
        return self._encode(script, next(script), level, index, 0)

    def follow(self, prepared: PreparedRequest, exchange: Exchange | None) -> PreparedRequest | None:
        """What the conversation asks after this answer; None when it is over. exchange: None for one that was dropped.

        Only scripts that listen are handed their answers: nothing is decoded for the others.
        """
        if not prepared.request.wants_answer:
            return None
        try:
            request = prepared.script.send(self._reply(exchange))
        except StopIteration as end:
            self._note_end(prepared, end.value or "completed")
            return None
        session_id, level = prepared.request.session_id, prepared.level
        return self._encode(prepared.script, request, level, prepared.index, prepared.sent_before + 1, session_id)

    def back_off(self, exchange: Exchange | None) -> float:
        """Seconds that a user waits after a request that failed, before it asks again."""
        if exchange is None or exchange.error in UNSENT or self._turned_away(exchange):
            return self.pause
        return min(UNSENT_WAIT, FAILED_WAIT * self.failed_in_a_row)

    def pause_after(self, prepared: PreparedRequest) -> float:
        """Seconds before the same user begins anew."""
        return self.workload.pause_after(prepared.level * LEVEL_NUMBERS + prepared.index)

    def leave(self, prepared: PreparedRequest) -> None:
        """The level is over before this request of a conversation was sent, or answered."""
        if prepared.request.wants_answer:
            prepared.script.close()
            self._note_end(prepared, "cut")

    def _note_end(self, prepared: PreparedRequest, how: str) -> None:
        self.note("session", {"level": self.level, "ended": how})

    def _reply(self, exchange: Exchange | None) -> Reply:
        if exchange is None:
            return Reply(error="dropped")
        self.recorder.settle(exchange)
        record, text = exchange.asked.record, exchange.asked.text
        return Reply(
            "" if text is None else text.finish(),
            record.error_kind or (None if record.status == "completed" else record.status),
            record.input_tokens,
            record.output_tokens,
            record.finish_reason,
        )

    def _encode(
        self, script: Script, request: Request, level: int, index: int, sent_before: int, session_id: str | None = None
    ) -> PreparedRequest:
        name = request_id(self._run_id, self.plan.seed, level, index, sent_before)
        if request.wants_answer and request.session_id is None:
            request = replace(request, session_id=session_id or f"{level}-{index}")
        call = self._api.encode(request, name, self.plan.model_name, stream=self.plan.stream, extras=self._extras)
        address = self.transport.address
        fields = {
            "host": address.host_header,
            **call.headers,
            "content-length": str(len(call.body)),
        }
        if request.session_id is not None:
            fields["x-session-id"] = quote(request.session_id, safe="/")
        if self._key:
            fields["authorization"] = f"Bearer {self._key}"
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return PreparedRequest(
            name,
            request,
            f"{call.method} {address.prefix}{call.path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + call.body,
            level,
            index,
            script,
            sent_before,
        )

    def ask(self, prepared: PreparedRequest) -> Exchange | None:
        """Send it now and wait for its answer; None where it was dropped at once."""
        waiter = _Waiter(self._hub)
        # What is decoded for a script is decoded behind the read that ended the answer, not within it.
        wake = waiter.wake_behind if prepared.request.wants_answer else waiter.wake
        exchange = self.begin(prepared, None, lambda _: wake())
        if exchange is None:
            return None
        waiter.wait()  # a user that is taken away here leaves its answer to come, and to be recorded
        return exchange

    @property
    def pause(self) -> float:
        """Seconds that a user waits whose request was not taken: as long as the service asks, else UNSENT_WAIT."""
        return max(UNSENT_WAIT, min(_PAUSE_MOST, self._not_before - time.monotonic()))

    def _turned_away(self, exchange: Exchange) -> bool:
        """The answer has the status of an error; how long it asks to wait is noted (RFC 9110, 10.2.3)."""
        head = exchange.head
        if head is None or head.status < 300:
            return False
        asked = head.fields.get(b"retry-after", b"")
        if asked.isdigit() and len(asked) < 6:
            self._not_before = max(self._not_before, time.monotonic() + int(asked))
        return True

    def begin(
        self,
        prepared: PreparedRequest,
        scheduled_at: float | None,
        then: Callable[[Exchange], None] = lambda exchange: None,
    ) -> Exchange | None:
        """Send it now. scheduled_at: None where nothing was scheduled. then: is called in the hub when the answer is
        over. None where it was dropped at once.
        """
        record = self._record(prepared, self.now() if scheduled_at is None else scheduled_at)
        if len(self.open) >= self._most_open:
            self._drop(record)
            return None
        asked = RequestInProgress(record, self.plan.stream)
        if prepared.request.wants_answer:
            asked.text = AnswerText(self._api, stream=self.plan.stream)
        exchange = Exchange(prepared.call, asked, self._over)
        asked.then, asked.planned = then, scheduled_at is not None
        self.open[record.request_id] = exchange
        self.transport.send(exchange)
        sent_at = self.now() if exchange.sent_at is None else exchange.sent_at - self.plan.clock_monotonic
        self._journal.begin(record.request_id, record.level, record.scheduled_at, sent_at)
        return exchange

    def abandon(self) -> None:
        """Give up all open requests; they are recorded as in flight, with the tokens that they got."""
        for exchange in list(self.open.values()):
            self.transport.cancel(exchange, "in_flight")

    def _over(self, exchange: Exchange) -> None:
        """An exchange has ended, in whatever way; called in the hub."""
        asked: RequestInProgress = exchange.asked
        del self.open[asked.record.request_id]
        if not asked.planned and exchange.attempted_at is not None:
            asked.record.scheduled_at = exchange.attempted_at - self.plan.clock_monotonic
        self.refused_in_a_row = self.refused_in_a_row + 1 if exchange.error == "refused" else 0
        asked.then(exchange)

    def flush(self) -> None:
        """Hand the journal to the kernel; called at least every half second."""
        self._journal.flush()

    def note(self, kind: str, content: Mapping[str, Any]) -> None:
        """What the process says of itself, into the journal."""
        self._journal.note(kind, content)

    def close(self) -> None:
        """Give up what is still open, write all records, close all connections."""
        self.abandon()
        self.recorder.close()
        self._journal.close()
        self.transport.close()

    def _record(self, prepared: PreparedRequest, scheduled_at: float) -> RequestRecord:
        request = prepared.request
        return RequestRecord(
            prepared.request_id,
            self.level,
            scheduled_at,
            "in_flight",
            session_id=request.session_id,
            turn=request.turn,
            history_tokens=request.history_tokens,
            notes=request.purpose,
            asked_input_tokens=request.input_tokens if request.counted else None,
            asked_output_tokens=request.max_new_tokens,
        )

    def _drop(self, record: RequestRecord) -> None:
        record.status, record.error_kind = "dropped", "dropped"
        self._journal.end(record)
        self._finished(record)

    def _finished(self, record: RequestRecord) -> None:
        self.counts[record.status] += 1
        if record.status != "in_flight":
            self.failed_in_a_row = 0 if record.status == "completed" else self.failed_in_a_row + 1
        self.recent.append(record)
        self._told(record)
