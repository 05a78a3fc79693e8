"""Simulates a whole run in virtual time: requests with their lengths in, one record per request out.

The same scheduler that answers behind HTTP, with a clock that jumps from one event to the next. Every answer is as long
as was said, so a token's moment is the end of the forward that made it: the records' token moments are slices of one
clock of steps.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from harness.measure.record import RequestRecord
from harness.simulator.continuation import AnswerProgress, LengthLimits, TooLong, first_chunk, next_chunk
from harness.simulator.request import EngineRequest
from harness.simulator.scheduler import EngineSettings, Scheduler, StepShape

_BOS = 1


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request that is due at a moment, in seconds from the run's start.

    output_tokens: length of the answer. max_new_tokens: what was asked for, None for no more than the answer's length;
    an answer that is shorter ends with `eos_token`. prefix: names a beginning of `prefix_tokens` tokens that requests
    of the same name share.
    """

    at: float
    input_tokens: int
    output_tokens: int
    max_new_tokens: int | None = None
    prefix: str | int | None = None
    prefix_tokens: int = 0
    request_id: str | None = None
    session_id: str | None = None
    turn: int | None = None


class Cost(Protocol):
    """What virtual time needs to know of the hardware."""

    def seconds(self, step: StepShape) -> float: ...

    def request_seconds(self, input_tokens: int) -> float: ...


@dataclass(slots=True, eq=False)
class _Course:
    """A request on its way. parts: per queue entry the first token's moment, its tick, and the tokens that came."""

    planned: PlannedRequest
    record: RequestRecord
    tokens: list[int]
    answer: AnswerProgress | None
    left: int
    parts: list[tuple[float, int, int]] = field(default_factory=list)


def simulate(
    requests: Iterable[PlannedRequest],
    settings: EngineSettings,
    cost: Cost,
    *,
    until: float | None = None,
    limits: LengthLimits | None = None,
    max_concurrent_requests: int | None = None,
    follow_up: Callable[[RequestRecord, float], PlannedRequest | None] | None = None,
    level: int = 0,
) -> list[RequestRecord]:
    """Records of all requests, in the order in which they were due.

    until: the run's end in seconds; what is not answered by then is `in_flight`. limits: TGI's limits on lengths, whose
    violation fails a request (`validation`); None for no limits and no chunks of 1024 tokens. max_concurrent_requests:
    beyond them a request fails (`overloaded`). follow_up: asked after each answer, with the moment of its end, for a
    request that is due because of it (closed loop, conversations).
    """
    run = _Run(settings, cost, limits, max_concurrent_requests, follow_up, level)
    for request in requests:
        run.plan(request)
    run.until(float("inf") if until is None else until)
    return run.records()


class _Run:
    def __init__(
        self,
        settings: EngineSettings,
        cost: Cost,
        limits: LengthLimits | None,
        max_concurrent_requests: int | None,
        follow_up: Callable[[RequestRecord, float], PlannedRequest | None] | None,
        level: int,
    ) -> None:
        self._scheduler = Scheduler(settings)
        self._cost, self._limits, self._follow_up, self._level = cost, limits, follow_up, level
        self._most = max_concurrent_requests
        self._matching = settings.prefix_cache and not settings.padded
        self._clock = array("d")
        self._courses: dict[int, _Course] = {}
        self._all: list[_Course] = []
        self._pending: list[tuple[float, int, _Course | EngineRequest]] = []
        self._events = 0
        self._open = self._queued = 0
        self._prefixes: dict[tuple[str | int, int], list[int]] = {}

    def plan(self, planned: PlannedRequest) -> None:
        number = len(self._all)
        record = RequestRecord(
            request_id=planned.request_id or f"v{number}",
            level=self._level,
            scheduled_at=planned.at,
            sent_at=planned.at,
            status="in_flight",
            session_id=planned.session_id,
            turn=planned.turn,
            asked_input_tokens=planned.input_tokens,
            asked_output_tokens=planned.output_tokens,
        )
        course = _Course(planned, record, [], None, planned.output_tokens)
        self._all.append(course)
        self._push(planned.at, course)

    def _push(self, at: float, event: _Course | EngineRequest) -> None:
        self._events += 1
        heapq.heappush(self._pending, (at, self._events, event))

    def until(self, end: float) -> None:
        scheduler, cost, pending = self._scheduler, self._cost, self._pending
        now = 0.0
        while now <= end:
            self._take_arrivals(now)
            call = scheduler.next_call(now)
            if call is None:
                if not pending:
                    break
                now = pending[0][0]
                continue
            now += cost.seconds(call.step)
            if now > end:
                break
            self._take_arrivals(now)
            if call.of_run:
                self._clock.append(now)
            for request in scheduler.complete_by_length(call, now):
                self._finished(request, now)

    def _take_arrivals(self, now: float) -> None:
        pending = self._pending
        while pending and pending[0][0] <= now:
            at, _, event = heapq.heappop(pending)
            if isinstance(event, _Course):
                self._arrive(event, at)
            else:
                self._scheduler.enqueue(event, at)

    def _arrive(self, course: _Course, at: float) -> None:
        """A request reaches the router: the concurrency limit, validation, queue."""
        planned = course.planned
        if self._most is not None and self._open >= self._most:
            self._refuse(course, "overloaded", at)
            return
        asked = planned.output_tokens if planned.max_new_tokens is None else planned.max_new_tokens
        chunk = asked
        if self._limits is not None:
            try:
                course.answer, chunk = first_chunk(self._limits, asked, planned.input_tokens)
            except TooLong:
                self._refuse(course, "validation", at)
                return
        self._open += 1
        course.tokens = self._prompt(self._queued, planned)
        self._queue(course, chunk, at)

    def _prompt(self, number: int, planned: PlannedRequest) -> list[int]:
        """Token ids that match where prefixes are shared, and differ from the first token after it."""
        if not self._matching:
            return [0] * planned.input_tokens
        shared = 1 if planned.prefix is None else max(1, min(planned.prefix_tokens, planned.input_tokens))
        own = [-1 - number] * (planned.input_tokens - shared)
        if planned.prefix is None:
            return [_BOS, *own]
        key = (planned.prefix, shared)
        if key not in self._prefixes:
            name = 2 + len({prefix for prefix, _ in self._prefixes} - {planned.prefix})
            self._prefixes[key] = [_BOS] + [name] * (shared - 1)
        return self._prefixes[key] + own

    def _queue(self, course: _Course, chunk: int, now: float) -> None:
        number, self._queued = self._queued, self._queued + 1
        self._courses[number] = course
        request = EngineRequest(number, course.tokens, chunk, answer_tokens=course.left)
        self._push(now + self._cost.request_seconds(len(course.tokens)), request)

    def _refuse(self, course: _Course, kind: str, now: float) -> None:
        record = course.record
        record.status, record.error_kind, record.first_byte_at, record.finished_at = "failed", kind, now, now
        self._follow(record, now)

    def _finished(self, request: EngineRequest, now: float) -> None:
        course = self._courses.pop(int(request.id))
        self._note(course, request)
        course.left -= request.generated
        finished = "length" if request.generated >= request.max_new_tokens else "eos_token"
        if course.answer is not None and course.left > 0:
            course.tokens = [*course.tokens, *[-1 - int(request.id)] * request.generated]
            course.answer, chunk = next_chunk(course.answer, finished, request.generated, len(course.tokens))
            if chunk is not None:
                self._queue(course, chunk, now)
                return
        self._open -= 1
        record = course.record
        record.status, record.finish_reason, record.finished_at = "completed", finished, now
        record.http_status = 200
        self._follow(record, now)

    def _note(self, course: _Course, request: EngineRequest) -> None:
        assert request.first_token_at is not None
        course.parts.append((request.first_token_at, request.first_tick, request.generated))
        if len(course.parts) == 1 and request.taken_at is not None:
            course.record.queue_time = request.taken_at - request.queued_at

    def _follow(self, record: RequestRecord, now: float) -> None:
        following = self._follow_up(record, now) if self._follow_up is not None else None
        if following is not None:
            self.plan(following)

    def records(self) -> list[RequestRecord]:
        """Fill in the moments of all tokens."""
        ticks = len(self._clock)
        clock = np.frombuffer(self._clock, dtype=np.float64) if ticks else np.empty(0)
        ones = np.ones(max((course.planned.output_tokens for course in self._all), default=0) + 1, dtype=np.int32)
        self._note_unfinished(ticks)
        for course in self._all:
            record = course.record
            if course.parts:
                moments = [_moments(clock, *part) for part in course.parts]
                token_at: Any = moments[0] if len(moments) == 1 else np.concatenate(moments)
                record.token_at = token_at
                record.token_count = ones[: len(token_at)] if len(token_at) <= len(ones) else np.ones(len(token_at))  # type: ignore[assignment]
                record.first_byte_at = float(token_at[0])
                record.input_tokens = course.planned.input_tokens
            if record.status == "completed":
                record.output_tokens = len(record.token_at)
        return [course.record for course in sorted(self._all, key=lambda course: course.planned.at)]

    def _note_unfinished(self, ticks: int) -> None:
        for request in self._scheduler.members():
            if request.first_token_at is not None:
                request.generated = ticks - request.first_tick + 1
                self._note(self._courses[int(request.id)], request)


def _moments(clock: np.ndarray[Any, Any], first: float, tick: int, count: int) -> np.ndarray[Any, Any]:
    """Token moments: tick n of the running batch is clock[n - 1]; a first token may come from a prefill of its own."""
    at = tick - 1
    if at >= 0 and clock[at] == first:
        return clock[at : at + count]
    return np.concatenate(([first], clock[at + 1 : at + count]))


def closed_loop(
    users: int, lengths: Sequence[tuple[int, int]], count: int
) -> tuple[list[PlannedRequest], Callable[[RequestRecord, float], PlannedRequest | None]]:
    """Requests of users who ask again when answered: the first of each, and the follow_up for `simulate`.

    lengths: (input, output) tokens, taken in turn. count: requests in all.
    """
    asked = min(users, count)

    def follow_up(record: RequestRecord, now: float) -> PlannedRequest | None:
        nonlocal asked
        if asked >= count:
            return None
        asked += 1
        return PlannedRequest(now, *lengths[(asked - 1) % len(lengths)])

    return [PlannedRequest(0.0, *lengths[number % len(lengths)]) for number in range(asked)], follow_up
