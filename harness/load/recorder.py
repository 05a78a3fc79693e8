"""From the raw facts of an answer to a record in the journal: in idle time, one answer at a time, bounded backlog."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import gevent

from harness.engines.base import Answer, Api
from harness.load.framing import ProtocolError, body_slices
from harness.load.transport import Exchange
from harness.measure.journal import JournalWriter
from harness.measure.record import RequestRecord, from_first_text

BACKLOG_BYTES = 64 << 20  # beyond it answers are decoded at once: the client falls behind, and its lag says so


@dataclass(slots=True)
class Asked:
    """What is known of a request before its answer: the record as far as it goes, and the exchange."""

    record: RequestRecord
    exchange: Exchange
    stream: bool


class Recorder:
    """Decodes answers while the event loop has nothing else to do, and writes their records.

    start: CLOCK_MONOTONIC seconds that 0 stands for. told: is called with each finished record.
    """

    def __init__(self, api: Api, journal: JournalWriter, start: float, told: Callable[[RequestRecord], None]) -> None:
        self._api, self._journal, self._start, self._told = api, journal, start, told
        self._waiting: deque[Asked] = deque()
        self.backlog = 0
        self._idle = gevent.get_hub().loop.idle()

    def add(self, asked: Asked) -> None:
        """Take over a finished exchange."""
        self._waiting.append(asked)
        self.backlog += asked.exchange.total
        if self.backlog > BACKLOG_BYTES:
            self._next()
        elif not self._idle.active:
            self._idle.start(self._next)

    def drain(self) -> None:
        """Decode all that waits; the end of a level."""
        while self._waiting:
            self._next()

    def _next(self) -> None:
        if self._waiting:
            asked = self._waiting.popleft()
            self.backlog -= asked.exchange.total
            settle(asked, self._api, self._start)
            self._journal.end(asked.record)
            self._told(asked.record)
        if not self._waiting:
            self._idle.stop()


def settle(asked: Asked, api: Api, start: float) -> None:
    """Fill the record from the exchange: moments relative to the run's start, counts and outcome from the bytes."""
    record, exchange = asked.record, asked.exchange
    record.sent_at = None if exchange.sent_at is None else exchange.sent_at - start
    if exchange.stamps:
        record.first_byte_at = exchange.stamps[0] - start
        record.finished_at = exchange.stamps[-1] - start
    if exchange.framing is None:
        record.status, record.error_kind = "failed", exchange.error or "stream_broken"
        return
    record.http_status = exchange.framing.status
    try:
        body, whole = body_slices(exchange.slices, exchange.framing)
    except ProtocolError:
        record.status, record.error_kind = "failed", "protocol"
        return
    complete = whole and exchange.error is None
    answer = api.decode(exchange.framing.status, body, stream=asked.stream, complete=complete)
    _take(record, answer, [exchange.stamps[index] - start for index in answer.slice_of_event])
    _take_headers(record, exchange.framing.fields)
    if exchange.error is not None:
        record.status, record.error_kind = "failed", exchange.error


def _take_headers(record: RequestRecord, fields: Mapping[bytes, bytes]) -> None:
    """What TGI tells of a whole answer in its headers: the prompt's tokens, and milliseconds in the queue."""
    tokens, queued = fields.get(b"x-prompt-tokens", b""), fields.get(b"x-queue-time", b"")
    if record.input_tokens is None and tokens.isdigit():
        record.input_tokens = int(tokens)
    if queued.isdigit():
        record.queue_time = int(queued) / 1000


def _take(record: RequestRecord, answer: Answer, moments: list[float]) -> None:
    record.token_at, record.token_count = from_first_text(moments, answer.token_count, answer.first_content)
    record.input_tokens, record.output_tokens = answer.input_tokens, answer.output_tokens
    record.finish_reason, record.glued_events = answer.finish_reason, answer.glued_events
    record.error_kind = answer.error_kind
    record.status = "completed" if answer.error_kind is None else "failed"
