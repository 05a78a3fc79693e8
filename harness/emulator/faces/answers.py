"""Makes an answer token by token and hands it to a listener; the same for every engine played here.

An answer's text is known from its beginning (tokens.Speech), so where it ends by itself, at a stop string or at its
length is known too; the scheduler only decides when its tokens come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from harness.emulator.clockwork import Clockwork
from harness.emulator.faces.wire import Problem
from harness.emulator.tokens import AnswerToken, AnyTokenizer, Speech
from harness.simulator.policies import PoolCall, PoolRequest, PoolScheduler
from harness.simulator.policies.base import FailedAnswer
from harness.simulator.request import EngineRequest
from harness.simulator.scheduler import Emission, EngineCall

_ids = count()


@dataclass(frozen=True)
class AnswerRequest:
    """One prompt to answer. most: tokens of the answer at most, cut to what the context leaves.

    least: before which it does not end by itself. cacheable: it may use the prefix cache.
    """

    ids: Sequence[int]
    most: int
    least: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    seed: int | None = None
    cacheable: bool = True


class Turn(PoolRequest):
    """A generation's place in the scheduler."""

    __slots__ = ("owner", "stop_after", "stop_reason")

    def __init__(self, owner: Generation, wanted: AnswerRequest, whole: bool) -> None:
        super().__init__(next(_ids), wanted.ids, wanted.most, wanted.cacheable, whole=whole)
        self.owner = owner
        self.stop_after, self.stop_reason = wanted.most, "length"


class Listener(Protocol):
    """Who wants the tokens. index: from 0; finished: why the answer ends with this one, None where it goes on."""

    def started(self, generation: Generation) -> None: ...
    def token(self, generation: Generation, index: int, finished: str | None) -> None: ...
    def failed(self, generation: Generation, problem: Problem) -> None: ...


class Generation:
    """One answer being made. entered: when its request was read, on the clock of time.monotonic()."""

    __slots__ = (
        "_cut", "_engine", "_eos_at", "_listener", "_said", "_speech", "_start", "done", "ended_at", "entered",
        "failure", "started", "turn", "wanted",
    )  # fmt: skip

    def __init__(self, engine: PoolEngine, wanted: AnswerRequest, listener: Listener, entered: float) -> None:
        self._engine, self._speech, self._listener = engine, engine.speech, listener
        self.wanted, self.entered = wanted, entered
        self._start = self._speech.start(wanted.ids, wanted.seed)
        own = 0 if wanted.ignore_eos else engine.eos_after(self._start)
        self._eos_at = max(own, wanted.least + 1) if own else 0
        self._said, self._cut = 0, -1
        self.started = self.done = False
        self.failure: Problem | None = None
        self.ended_at = 0.0
        self.turn = Turn(self, wanted, wanted.ignore_eos or wanted.least >= wanted.most)
        self._find_end()

    def begin(self) -> None:
        self._engine.submit(self.turn)

    def spoken(self, index: int) -> AnswerToken:
        """The token at this place."""
        if self._eos_at and index + 1 >= self._eos_at:
            return self._speech.end
        return self._speech.at(self._start + index)

    def _find_end(self) -> None:
        """Where it stops and why: at its own end or at a stop text, whichever comes first, else at its length."""
        turn, most = self.turn, self.wanted.most
        end = min(most, self._eos_at) if self._eos_at else most
        if self._eos_at and self._eos_at <= most:
            turn.stop_after, turn.stop_reason = end, "stop"
        said = ""
        for index in range(end if self.wanted.stop else 0):
            said += self.piece(index)
            found = [at for at in (said.find(stop) for stop in self.wanted.stop) if at >= 0]
            if found and index + 1 > self.wanted.least:
                turn.stop_after, turn.stop_reason, self._cut = index + 1, "stop", min(found)
                return

    def piece(self, index: int) -> str:
        """The text of one token; a special one has none."""
        spoken = self.spoken(index)
        return "" if spoken.special else spoken.text

    def next_text(self, index: int) -> str:
        """What this token adds to the text, once for each index in turn: nothing of a stop string."""
        text = self.piece(index)
        if self._cut >= 0:
            text = text[: max(0, self._cut - self._said)]
        self._said += len(text)
        return text

    @property
    def complete(self) -> bool:
        """Its last token is there."""
        return self.done and self.failure is None

    @property
    def prompt_tokens(self) -> int:
        return self.turn.input_length

    @property
    def generated(self) -> int:
        return self.turn.generated

    def start(self) -> None:
        """The engine begins with it."""
        if not self.started:
            self.started = True
            self._listener.started(self)

    def advance(self, tokens: int, finished: str | None) -> None:
        """The engine made one token; finished says why the answer ends with it."""
        if finished is not None:
            self.done, self.ended_at = True, time.monotonic()
        self._listener.token(self, self.turn.generated - 1, finished)

    def fail(self, problem: Problem) -> None:
        """The engine ends it."""
        if not self.done:
            self.done, self.failure = True, problem
            self.ended_at = time.monotonic()
            self._listener.failed(self, problem)

    def abandon(self) -> None:
        """The client is gone: the engine notices before its next step."""
        if not self.done:
            self._engine.leave(self.turn)


@dataclass
class Collector:
    """The listener of a plain request. text: of the whole answer when `done` is."""

    done: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    text: list[str] = field(default_factory=list)

    def started(self, generation: Generation) -> None:
        return

    def token(self, generation: Generation, index: int, finished: str | None) -> None:
        self.text.append(generation.next_text(index))
        if finished is not None and not self.done.done():
            self.done.set_result("".join(self.text))

    def failed(self, generation: Generation, problem: Problem) -> None:
        if not self.done.done():
            self.done.set_exception(problem)


async def whole_answer(engine: PoolEngine, wanted: AnswerRequest, entered: float) -> tuple[Generation, str]:
    """The answer and its text. Cancelling means that the client is gone. Raises Problem."""
    collector = Collector()
    generation = Generation(engine, wanted, collector, entered)
    generation.begin()
    try:
        return generation, await collector.done
    except asyncio.CancelledError:
        generation.abandon()
        raise


class Watch(Protocol):
    """What a face counts and logs of its engine."""

    def step(self, call: PoolCall, emissions: Sequence[Emission], seconds: float) -> None:
        """A step is done, and its tokens are handed out."""

    def ended(self, generation: Generation) -> None:
        """An answer is done, failed, or nobody wants it any more."""

    def engine_failed(self, failed: FailedAnswer) -> Problem:
        """The engine's law ended an answer: what its client is told."""
        ...

    def broken(self, text: str) -> Problem:
        """The model's process failed: what the clients of its requests are told."""
        ...


class PoolEngine(Clockwork):
    """One of simulator/policies behind the real clock. eos_after: tokens after which an answer ends by itself."""

    def __init__(
        self,
        scheduler: PoolScheduler,
        seconds: Callable[[EngineCall], float],
        admission: Callable[[int], float],
        tokenizer: AnyTokenizer,
        eos_after: Callable[[int], int],
    ) -> None:
        super().__init__(scheduler, seconds, admission)
        self.scheduler = scheduler
        self.tokenizer, self.speech, self.eos_after = tokenizer, Speech(tokenizer), eos_after
        self.watch: Watch
        self.requests = 0

    def submit(self, turn: Turn) -> None:
        self.requests += 1
        super().submit(turn)

    @property
    def moment(self) -> float:
        """When the last step ended, on the clock of time.monotonic()."""
        return self._ends_at

    @property
    def unfinished(self) -> int:
        """Requests that run, wait, or are on their way into the queue."""
        return self.scheduler.queue_size + len(self.scheduler.members()) + len(self._arriving)

    def _queued(self) -> None:
        self._tell_failed()

    def _planned(self, call: EngineCall | None, queued: int) -> None:
        self._tell_failed()
        for request in self.scheduler.take_dropped():
            self.watch.ended(request.owner)  # type: ignore[attr-defined]

    def _beginning(self, call: EngineCall) -> None:
        assert isinstance(call, PoolCall)
        for request, _ in call.rows:
            if not request.generated:
                request.owner.start()  # type: ignore[attr-defined]

    def _tell_failed(self) -> None:
        for failed in self.scheduler.take_failed():
            owner: Generation = failed.request.owner  # type: ignore[attr-defined]
            owner.fail(self.watch.engine_failed(failed))
            self.watch.ended(owner)

    def _completed(self, call: EngineCall, emissions: Sequence[Emission]) -> None:
        assert isinstance(call, PoolCall)
        self.watch.step(call, emissions, self._ends_at - self._started_at)
        for request, _, finished in emissions:
            if finished is not None:
                self.watch.ended(request.owner)  # type: ignore[attr-defined]

    def _fail_all(self, failed: Sequence[EngineRequest], text: str) -> None:
        problem = self.watch.broken(text)
        for request in failed:
            request.owner.fail(problem)  # type: ignore[attr-defined]
            self.watch.ended(request.owner)  # type: ignore[attr-defined]
