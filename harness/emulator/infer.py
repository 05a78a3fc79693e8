"""From a valid request to its answer: the concurrency limit, the turns of long answers, and who gets each token.

router/src/infer/mod.rs. A Generation is one answer being made; its listener is the HTTP side that wants it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from harness.emulator.bodies import Ask
from harness.emulator.engine import Engine, Turn
from harness.emulator.log import Log, Span, request_fields
from harness.emulator.metrics import Metrics
from harness.emulator.problems import OVERLOADED, Refused
from harness.emulator.tokens import AnswerToken, Speech, alternatives, logprob
from harness.emulator.validation import MeasuredRequest, Validation, ValidRequest, check_best_of


@dataclass(frozen=True, slots=True)
class FinishedAnswer:
    """A finished answer. seed: None when greedy. queued, started: moments of the first turn, clock of the loop."""

    text: str
    finish_reason: str
    generated_tokens: int
    seed: int | None
    input_length: int
    queued: float
    started: float
    tokens: list[AnswerToken] = field(default_factory=list)
    top_tokens: list[list[AnswerToken]] = field(default_factory=list)
    prefill: list[tuple[int, str, float | None]] = field(default_factory=list)


class Listener(Protocol):
    """Who wants the tokens. index counts from 0. `last` carries the last token; nothing comes after it or a failure."""

    def token(self, generation: Generation, index: int) -> None: ...
    def last(self, generation: Generation, index: int, answer: FinishedAnswer) -> None: ...
    def failed(self, problem: Refused) -> None: ...


class Generation:
    """One answer being made, over one or more turns in the queue."""

    __slots__ = (
        "ask", "engine", "eos_after", "first", "has_place", "infer", "input_length", "listener", "plan", "plan_base",
        "produced", "queued", "seed", "speech", "start", "started", "texts", "top_n", "turn", "valid", "wanted",
    )  # fmt: skip

    def __init__(self, infer: Infer, ask: Ask, valid: ValidRequest, listener: Listener) -> None:
        self.infer, self.ask, self.listener = infer, ask, listener
        self.valid = valid
        self.speech = infer.speech
        self.input_length = valid.input_length
        self.wanted = valid.wanted
        self.seed = valid.seed if valid.sampling else None
        self.top_n = valid.top_n_tokens
        self.start = infer.speech.start(valid.encoding.ids, self.seed)
        self.eos_after = infer.eos_after(self.start)
        self.plan = infer.planned(valid.plan)
        self.produced = 0
        self.texts: list[str] = []
        self.queued = self.started = 0.0
        self.has_place = True
        self._queue(valid)

    def spoken(self, index: int) -> AnswerToken:
        """The token at this place of the answer."""
        if self.plan is not None:
            return self.plan[index] if index < len(self.plan) else self.speech.end
        if self.eos_after and index + 1 >= self.eos_after:
            return self.speech.end
        return self.speech.at(self.start + index)

    def top(self, index: int) -> list[AnswerToken]:
        """The likeliest tokens at this place; empty unless they were asked for."""
        return alternatives(self.spoken(index), index, self.top_n, self.speech) if self.top_n else []

    def _queue(self, valid: ValidRequest) -> None:
        cacheable = not self.ask.parameters.decoder_input_details
        turn = Turn(self, valid.encoding.ids, valid.max_new_tokens, cacheable)
        turn.stop_after, turn.stop_reason = self._stop(valid.max_new_tokens)
        self.turn = turn
        self.infer.engine.submit(turn)

    def _stop(self, most: int) -> tuple[int, str]:
        """After how many tokens this turn stops, and why, in the shard's order: length, end of sequence, stop text."""
        end = most
        if self.plan is not None:
            end = min(most, len(self.plan) + 1 - self.produced)
        elif self.eos_after:
            end = min(most, max(1, self.eos_after - self.produced))
        stops = self.ask.parameters.stop
        if stops:
            said = ""
            for count in range(1, end):
                said = (said + self.spoken(self.produced + count - 1).text)[-300:]
                if any(said.endswith(stop) or said.removesuffix("\n").endswith(stop) for stop in stops):
                    return count, "stop_sequence"
        return end, "eos_token" if end < most else "length"

    def advance(self, tokens: int, finished: str | None) -> None:
        """The engine made `tokens` tokens; finished says why the turn ended, if it did."""
        listener, index = self.listener, self.produced
        self.produced = index + tokens
        if finished is None:
            if tokens == 1:
                listener.token(self, index)
                return
            for each in range(index, self.produced):
                listener.token(self, each)
            return
        for each in range(index, self.produced - 1):
            listener.token(self, each)
        self._turn_ended(finished)

    def _turn_ended(self, finished: str) -> None:
        turn = self.turn
        if not self.texts:
            self.queued, self.started = turn.queued_at, turn.taken_at or turn.queued_at
        first = self.produced - turn.generated
        said = [self.spoken(index) for index in range(first, self.produced)]
        self.texts.append("".join(each.text for each in said if not each.special))
        if finished == "length" and self.produced < self.wanted and self._again():
            self.listener.token(self, self.produced - 1)
            return
        self.release()
        self.listener.last(self, self.produced - 1, self._answer(finished))

    def _again(self) -> bool:
        """Queue the grown prompt; False where it would break a limit, which ends the answer as it is."""
        parameters = replace(self.ask.parameters, seed=self.valid.seed)
        self.ask = replace(self.ask, inputs=self.ask.inputs + self.texts[-1], parameters=parameters)
        try:
            measured = self.infer.validation.measure(self.ask)
        except Refused:
            return False
        valid = self.infer.validation.complete(measured)
        self.infer.metrics.record("tgi_request_input_length", valid.input_length)
        self.infer.metrics.record("tgi_request_max_new_tokens", valid.max_new_tokens)
        self._queue(valid)
        return True

    def _answer(self, finished: str) -> FinishedAnswer:
        text, count = "".join(self.texts), self.produced
        return FinishedAnswer(text, finished, count, self.seed, self.input_length, self.queued, self.started)

    def prefill(self) -> list[tuple[int, str, float | None]]:
        """Prompt tokens with log probabilities, where the request and the server ask for them."""
        if not (self.ask.parameters.decoder_input_details and self.infer.prefill_logprobs):
            return []
        encoding = self.valid.encoding
        pairs = zip(encoding.ids, encoding.pieces, strict=True)
        return [(number, piece, logprob(number, i) if i else None) for i, (number, piece) in enumerate(pairs)]

    def fail(self, problem: Refused) -> None:
        """The shard's call failed."""
        self.infer.healthy = False
        self.release()
        self.listener.failed(problem)

    def release(self) -> None:
        """Give its place back, once."""
        if self.has_place:
            self.has_place = False
            self.infer.free_places += 1

    def abandon(self) -> None:
        """The client is gone: the engine notices at the next token."""
        if self.has_place:
            self.release()
            self.infer.engine.leave(self.turn)


@dataclass
class Infer:
    """What all requests of one server share. eos_after: tokens after which an answer ends by itself, 0 for never."""

    validation: Validation
    engine: Engine
    speech: Speech
    metrics: Metrics
    log: Log
    free_places: int
    prefill_logprobs: bool
    eos_after: Callable[[int], int]
    refuse: Callable[[], bool] = lambda: False
    healthy: bool = True

    def planned(self, text: str | None) -> list[AnswerToken] | None:
        """A text that must be said word for word, as tokens."""
        if text is None:
            return None
        special = self.validation.tokenizer.special_ids
        encoding = self.validation.tokenizer.encode(text, special_tokens=False)
        pairs = zip(encoding.ids, encoding.pieces, strict=True)
        return [
            AnswerToken(number, piece, logprob(number, i), number in special) for i, (number, piece) in enumerate(pairs)
        ]

    def begin(self, ask: Ask, listener: Listener) -> Generation:
        """Take a place, validate, queue. Raises Refused, counted and logged."""
        return self._start(self._admit(ask), listener)

    def _admit(self, ask: Ask) -> MeasuredRequest:
        """A place, and everything that is checked before the request counts as valid."""
        if self.free_places <= 0 or self.refuse():
            self.metrics.count("tgi_request_failure", 'err="overloaded"')
            self.log.router("ERROR", _TARGET, "router/src/infer/mod.rs:118", "no permits available", _spans(ask))
            raise Refused(OVERLOADED)
        self.free_places -= 1
        try:
            return self.validation.measure(ask)
        except Refused as refused:
            self._refused(ask, refused)
            raise

    def _start(self, measured: MeasuredRequest, listener: Listener) -> Generation:
        self.metrics.record("tgi_request_input_length", len(measured.encoding))
        try:
            valid = self.validation.complete(measured)
        except Refused as refused:
            self._refused(measured.ask, refused)
            raise
        self.metrics.record("tgi_request_max_new_tokens", valid.max_new_tokens)
        return Generation(self, measured.ask, valid, listener)

    def _refused(self, ask: Ask, refused: Refused) -> None:
        self.free_places += 1
        self.metrics.count("tgi_request_failure", 'err="validation"')
        self.log.router("ERROR", _TARGET, "router/src/infer/mod.rs:126", refused.detail, _spans(ask))

    async def answer(self, ask: Ask) -> FinishedAnswer:
        """The whole answer. Cancelling means that the client is gone. Raises Refused."""
        return (await self.answers([ask]))[0]

    async def answers(
        self, asks: list[Ask], told: Callable[[int, FinishedAnswer], None] | None = None
    ) -> list[FinishedAnswer]:
        """All answers, or the first failure. All are checked before one of them is queued.

        told: called with each answer's place as it comes.
        """
        admitted: list[MeasuredRequest] = []
        try:
            for ask in asks:
                admitted.append(self._admit(ask))
        except Refused:
            self.free_places += len(admitted)
            raise
        collectors = [_Collector(index, told) for index in range(len(asks))]
        started: list[Generation] = []
        try:
            for measured, collector in zip(admitted, collectors, strict=True):
                started.append(self._start(measured, collector))
            return list(await asyncio.gather(*(collector.done for collector in collectors)))
        except BaseException:
            # A prompt that was refused gave its place back; the ones behind it were never started.
            self.free_places += max(0, len(admitted) - len(started) - 1)
            for generation in started:
                generation.abandon()
            for collector in collectors:
                collector.done.cancel()
            raise

    async def best_of(self, ask: Ask, count: int) -> tuple[FinishedAnswer, list[FinishedAnswer]]:
        """The answer with the highest mean log probability, and the others. One failure fails all."""
        check_best_of(count, self.validation.limits)
        answers = await self.answers([ask] * count)
        best = max(range(count), key=lambda i: sum(t.logprob for t in answers[i].tokens) / len(answers[i].tokens))
        return answers[best], answers[:best] + answers[best + 1 :]


_TARGET = "text_generation_router::infer"


def _spans(ask: Ask) -> list[Span]:
    """The spans of a refused request's log line."""
    return [Span("generate", request_fields("generate", ask.parameters)), Span("generate"), Span("generate_stream")]


class _Collector:
    """The listener of a plain request: only the end matters."""

    __slots__ = ("_index", "_told", "done")

    def __init__(self, index: int, told: Callable[[int, FinishedAnswer], None] | None) -> None:
        self._index, self._told = index, told
        self.done: asyncio.Future[FinishedAnswer] = asyncio.get_running_loop().create_future()

    def token(self, generation: Generation, index: int) -> None:
        return

    def last(self, generation: Generation, index: int, answer: FinishedAnswer) -> None:
        if self.done.done():
            return
        said = range(answer.generated_tokens)
        whole = replace(
            answer,
            tokens=[generation.spoken(each) for each in said],
            top_tokens=[generation.top(each) for each in said] if generation.top_n else [],
            prefill=generation.prefill(),
        )
        if self._told is not None:
            self._told(self._index, whole)
        self.done.set_result(whole)

    def failed(self, problem: Refused) -> None:
        if not self.done.done():
            self.done.set_exception(problem)
