"""Turns what was read into records: decodes between the reads, in pieces too short to delay the next read.

Answers in flight are decoded more than once a second, so that what waits stays bounded however long they become, and
their tokens are noted in the journal; finished ones become a record there at once.
"""

from __future__ import annotations

import re
import time
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from gevent.hub import get_hub

from harness.engines.answer import Answer, AnswerReader
from harness.engines.answer_text import AnswerText
from harness.engines.api import Api
from harness.load.connection import Exchange
from harness.load.framing import Head, ProtocolError
from harness.load.transport import ABSENCE, BACKLOG_READS, PAUSE, Absences, Transport
from harness.measure.journal import JournalWriter
from harness.measure.record import CUT_AFTER_END, INVISIBLE, NOT_STREAMED, RequestRecord, from_first_text
from harness.redaction import redact
from harness.text import one_line

_TICK = 0.02  # seconds between two looks at deadlines and the clock
_SWEEP_EVERY = 0.7  # with a flush every quarter of a second, a kill costs less than a second of any answer
_NO_PAUSE_FOR = 10.0  # seconds in which the reader does not pause, after gaps shorter than a pause were seen
_ENOUGH_EVENTS = 2000  # to judge the pause by
_GLUED_MOST = 0.005  # share of events that may be glued before the pause is suspected
_HURRY = 4096  # finished answers at which records come before reading
# Finished answers that have waited so long, in seconds, are recorded before the next read: a client that never is idle
# would otherwise keep them in memory, and lose them when it is killed. So much of each tick goes to them then.
# A reader that is away for longer than a pause loses moments, so it is no more at a time while there is hope.
_OVERDUE, _CATCH_UP = 0.25, PAUSE
_HOPELESS, _CATCH_UP_THEN = 0.75, 0.02
_SMALL_SHARE = 0.05  # of a wait: an error that no quantile of waits shows
_SENDING_MOST = 0.02  # of TTFT
_OUR_END = ("timeout", "in_flight", "dropped", "refused")  # nothing was heard of the server then
_LINGER = 2.0  # seconds that a connection may stay open behind the last message of its answer
_NO_TYPE = re.compile(rb"[^\w/+.-]")


@dataclass(slots=True)
class RequestInProgress:
    """A request under way: its record as far as it goes, and how its answer is being read.

    moments: of the slices decoded so far, CLOCK_MONOTONIC seconds. planned: it had a moment to be sent at. then: is
    called when the answer is over. events: token events decoded so far; noted: those of them in the journal.
    recorded: it is over, and its record is complete. text:
    gathers the answer's text where the workload wants it.
    """

    record: RequestRecord
    stream: bool
    planned: bool = False
    events: int = 0
    noted: int = 0
    recorded: bool = False
    text: AnswerText | None = None
    then: Callable[[Exchange], None] = lambda exchange: None
    reading: AnswerReader | None = None
    moments: array[float] = field(default_factory=lambda: array("d"))


class Recorder:
    """Decodes what the transport has read and writes the records of what is over.

    start: CLOCK_MONOTONIC seconds that 0 stands for. told: is called with each record. events: token events so far, of
    answers that are over; late: those of them whose moment was noted too late to be true; answers and late_answers: the
    same of the first event of each answer. decoded: token events decoded so far, of all answers; decoded_at: when the
    latest of them arrived, or an answer's end, CLOCK_MONOTONIC seconds. ahead: work of others for idle time; does a
    piece of it and says whether more is left.
    """

    def __init__(
        self,
        api: Api,
        transport: Transport,
        journal: JournalWriter,
        start: float,
        told: Callable[[RequestRecord], None],
    ) -> None:
        self._api, self._transport, self._journal, self._start, self._told = api, transport, journal, start, told
        self._sweep: deque[Exchange] = deque()
        self._swept_at = time.monotonic()
        self._no_pause_until = 0.0
        self._recent = self._glued = 0
        self._all_recorded_at = time.monotonic()
        self.events = self.late = self.answers = self.late_answers = self.decoded = 0
        self.decoded_at = 0.0
        self.ahead: Callable[[], bool] = lambda: False
        transport.work = self.work
        self._timer = get_hub().loop.timer(_TICK, _TICK)
        self._timer.start(self._tick)

    def close(self) -> None:
        """Record all that is over; the timer ends."""
        self.drain()
        self._timer.stop()
        self._timer.close()

    def drain(self) -> None:
        """Record all that is over."""
        while self._transport.finished:
            self._record(self._transport.finished.popleft())

    def work(self, until: float) -> bool:
        """Work until this moment of CLOCK_MONOTONIC, or for one answer; whether more is left."""
        finished, sweep = self._transport.finished, self._sweep
        more_ahead = True
        while True:
            if finished:
                self._record(finished.popleft())
            elif sweep:
                exchange = sweep.pop()
                if not exchange.finished:
                    self._decode(exchange)
                    self._note(exchange.asked)
                    self._end_if_over(exchange)
            elif more_ahead:
                more_ahead = self.ahead()
            else:
                return False
            if time.monotonic() >= until and len(finished) < _HURRY:
                return bool(finished or sweep or more_ahead)

    def _tick(self) -> None:
        now, transport = time.monotonic(), self._transport
        transport.clock.anchor()
        transport.expire()
        if now - self._swept_at >= _SWEEP_EVERY and not self._sweep:
            self._swept_at = now
            transport.recount()
            self._sweep.extend(transport.active.values())
        if self._recent >= _ENOUGH_EVENTS:
            self._judge_pause(now)
        if not transport.finished:
            self._all_recorded_at = now
        elif now - self._all_recorded_at > _HOPELESS or transport.backlog > BACKLOG_READS:
            self.work(now + _CATCH_UP_THEN)
        elif now - self._all_recorded_at > _OVERDUE:
            self.work(now + _CATCH_UP)
        if self._sweep or transport.finished:
            transport.wake()

    def _judge_pause(self, now: float) -> None:
        """Where gaps are shorter than the pause, a stamp for each event is worth more than the CPU time saved."""
        transport = self._transport
        if self._glued > _GLUED_MOST * self._recent and not transport.behind:
            self._no_pause_until = now + _NO_PAUSE_FOR
        transport.pause = 0.0 if now < self._no_pause_until else PAUSE
        self._recent = self._glued = transport.behind = 0

    def _decode(self, exchange: Exchange) -> None:
        """What was read of this answer since the last time."""
        try:
            exchange.frame()
        except ProtocolError:
            self._transport.cancel(exchange, "protocol")
            return
        slices, asked, head = exchange.slices, exchange.asked, exchange.head
        if not slices or head is None:
            return
        if asked.reading is None:
            asked.reading = self._api.reading(head.status, stream=asked.stream)
        moments = self._transport.clock.seconds(exchange.moments)
        asked.moments.frombytes(moments.tobytes())
        asked.reading.feed(slices)
        if asked.text is not None:
            asked.text.feed(slices)
        self._transport.absorbed += len(slices)
        if asked.reading.too_large and not exchange.finished:
            self._transport.cancel(exchange, "too_large")
        events = asked.reading.events - asked.events
        if events:
            asked.events += events
            self.decoded += events
            self.decoded_at = max(self.decoded_at, asked.moments[-1])
        exchange.slices, exchange.moments = [], []

    def _end_if_over(self, exchange: Exchange) -> None:
        """A server that never ends the stream behind its last message would hold its user until the timeout."""
        reading, moments = exchange.asked.reading, exchange.asked.moments
        if reading is not None and reading.over and moments and time.monotonic() - moments[-1] > _LINGER:
            self._transport.cancel(exchange, "stream_broken")

    def _note(self, asked: RequestInProgress) -> None:
        """Into the journal what an answer in flight got since the last time."""
        if asked.reading is None:
            return
        slices, tokens, until = asked.reading.since(asked.noted)
        if not tokens:
            return
        asked.noted = until
        if isinstance(slices, range):
            moments = np.frombuffer(asked.moments[slices.start : slices.stop])
        else:
            moments = np.array([asked.moments[index] for index in slices])
        self._journal.tokens(asked.record.request_id, (moments - self._start).tobytes(), array("i", tokens).tobytes())

    def settle(self, exchange: Exchange) -> None:
        """Record an exchange that is over now, ahead of those that wait, for whoever goes on with its answer."""
        if not exchange.asked.recorded:
            self._record(exchange)

    def _record(self, exchange: Exchange) -> None:
        """The record of an exchange that is over, into the journal, once."""
        asked: RequestInProgress = exchange.asked
        if asked.recorded:
            return
        asked.recorded = True
        self._decode(exchange)
        record, head = asked.record, exchange.head
        error = exchange.error
        if error is not None and asked.reading is not None and asked.reading.over:
            error = None  # the answer was whole before its connection ended out of order
        self._take_moments(record, exchange, error)
        if head is None:
            record.status, record.error_kind = "failed", exchange.error or "stream_broken"
        else:
            record.http_status = head.status
            reading = asked.reading or self._api.reading(head.status, stream=asked.stream)
            answer = reading.finish(complete=exchange.error is None)
            moments = [asked.moments[index] for index in answer.slice_of_event]
            self._count(answer, moments, exchange)
            _take(record, answer, [moment - self._start for moment in moments])
            _take_headers(record, head.fields)
            if record.error_kind is not None:
                record.error_message = _headers_message(head) or record.error_message
            told = _notes(record, answer, head.fields, cut=error is None and exchange.error is not None)
            record.notes = ",".join(filter(None, (record.notes, told))) or None
        if error not in _OUR_END and record.finished_at is not None:
            self.decoded_at = max(self.decoded_at, record.finished_at + self._start)
        if error is not None:
            _take_error(record, error)
        self._journal.end(record)
        self._told(record)

    def _take_moments(self, record: RequestRecord, exchange: Exchange, error: str | None) -> None:
        sent_at = exchange.attempted_at
        record.sent_at = None if sent_at is None else sent_at - self._start
        if exchange.first_byte is not None and exchange.last_byte is not None:
            first, last = self._transport.clock.seconds([exchange.first_byte, exchange.last_byte]).tolist()
            record.first_byte_at, record.finished_at = first - self._start, last - self._start
        if record.finished_at is None or error == "timeout":
            record.finished_at = time.monotonic() - self._start

    def _count(self, answer: Answer, moments: list[float], exchange: Exchange) -> None:
        self.events += len(moments)
        self._recent += len(moments)
        self._glued += answer.glued_events
        self.answers += bool(moments)
        late = late_events(moments, self._transport.absences, exchange.sent_at or 0.0) if answer.glued_events else []
        self.late += len(late)
        self.late_answers += (bool(late) and late[0] == 0) or sent_late(exchange, moments)


def sent_late(exchange: Exchange, moments: list[float]) -> bool:
    """Whether the request left so long after its moment of sending was noted that TTFT is not the server's own."""
    if exchange.sent_at is None or not moments or exchange.sending < ABSENCE:
        return False
    return exchange.sending > _SENDING_MOST * (moments[0] - exchange.sent_at)


def late_events(moments: Sequence[float], absences: Absences, sent_at: float) -> list[int]:
    """Numbers of the events whose noted moment may be later than the true one by more than half of its gap.

    moments: of all events of an answer, rising; equal ones were read together. The stamp of a read is that of its last
    segment. So the others are in doubt where the reader had been away when they arrived: from the absence's beginning,
    or from the read before, up to the stamp. What a server held back comes in a rush, with gaps of microseconds; errors
    that are small beside the answer's usual gap, or beside the wait for the rush, spoil no figure then.
    """
    starts, ends = absences.starts, absences.ends
    if not moments:
        return []
    usual = (moments[-1] - moments[0]) / max(1, len(moments) - 1)
    late: list[int] = []
    first = 0
    while first < len(moments):
        stamp, end = moments[first], bisect_right(moments, moments[first], first)
        away = bisect_right(starts, stamp) - 1
        if end - first > 1 and away >= 0 and stamp <= ends[away]:
            since = stamp - (moments[first - 1] if first else sent_at)
            gap = since / (end - first) if first else usual
            error = min(stamp - starts[away], since)
            late += range(first, end - 1) if error > max(gap / 2, usual / 2, _SMALL_SHARE * since) else ()
        first = end
    return late


def _take(record: RequestRecord, answer: Answer, moments: list[float]) -> None:
    record.token_at, record.token_count = from_first_text(moments, answer.token_count, answer.first_content)
    record.input_tokens, record.output_tokens = answer.input_tokens, answer.output_tokens
    # A reason is one of a few words, unless a server writes what it likes there.
    record.finish_reason = None if answer.finish_reason is None else redact(answer.finish_reason)
    record.glued_events = answer.glued_events
    record.count_told, record.first_share = answer.count_told, answer.first_share
    record.error_kind, record.error_message = answer.error_kind, answer.error_message
    record.status = "completed" if answer.error_kind is None else "failed"


def _notes(record: RequestRecord, answer: Answer, fields: Mapping[bytes, bytes], *, cut: bool) -> str | None:
    """What was odd about an answer that is not a failure."""
    words = []
    if not answer.streamed:
        kind = _NO_TYPE.sub(b"", fields.get(b"content-type", b"").partition(b";")[0])[:60].decode()
        words.append(f"{NOT_STREAMED}:{kind}" if kind else NOT_STREAMED)
    if cut:
        words.append(CUT_AFTER_END)
    if record.status == "completed" and answer.first_content is None:
        words.append(INVISIBLE)
    return ",".join(words) or None


def _headers_message(head: Head) -> str | None:
    """What the head of an answer that failed says by itself: where it redirects to, or how it is packed."""
    place, packed = head.fields.get(b"location"), head.fields.get(b"content-encoding", b"identity")
    if 300 <= head.status < 400 and place is not None:
        return f"redirects to {one_line(redact(place[:200].decode('latin-1')))}"
    if head.status < 300 and packed not in (b"identity", b""):
        return f"compressed stream (content-encoding {one_line(packed[:40].decode('latin-1'))})"
    return None


def _take_error(record: RequestRecord, error: str) -> None:
    """The exchange's own end outweighs what the bytes said."""
    record.status, record.error_kind = "failed", error
    if error == "dropped":
        record.status, record.finished_at = "dropped", None
    elif error == "in_flight":
        record.status, record.error_kind, record.finished_at = "in_flight", None, None


def _take_headers(record: RequestRecord, fields: Mapping[bytes, bytes]) -> None:
    """What TGI tells of a whole answer in its headers: the prompt's tokens, and milliseconds in the queue."""
    tokens, queued = fields.get(b"x-prompt-tokens", b""), fields.get(b"x-queue-time", b"")
    if record.input_tokens is None and _is_number(tokens):
        record.input_tokens = int(tokens)
    if _is_number(queued):
        record.queue_time = int(queued) / 1000


def _is_number(text: bytes) -> bool:
    """Digits, and so few that a record has room for them."""
    return text.isdigit() and len(text) <= 9
