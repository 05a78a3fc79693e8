"""OpenAI's routes, common to all engines played here; frames and refusals are each engine's own."""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from harness.emulator.faces.answers import AnswerRequest, Generation, PoolEngine, whole_answer
from harness.emulator.faces.asking import ParsedRequest, Wrong, chat_logprob, read_asked
from harness.emulator.faces.wire import FaceApp, Frames, Problem, compact, now
from harness.emulator.http import Exchange
from harness.emulator.model import ServedModel
from harness.emulator.rust import text as quoted
from harness.simulator.laws import Pool

if TYPE_CHECKING:
    from harness.emulator.faces.run import Face


class Serving(ABC):
    """The routes of one server. name: by which the model is asked for."""

    chat_kind, text_kind = "chat.completion", "text_completion"
    begins_chats = False  # whether a chat's tokens have what begins a text before what its template says

    def __init__(self, face: Face, model: ServedModel, engine: PoolEngine, pool: Pool, name: str) -> None:
        self.face, self.model, self.engine, self.pool, self.name = face, model, engine, pool, name
        self.created = now()

    @staticmethod
    def app(exchange: Exchange) -> FaceApp:
        app = exchange.connection.application
        assert isinstance(app, FaceApp)
        return app

    def json(self, exchange: Exchange, body: Any) -> None:
        self.app(exchange).json(exchange, body)

    async def chat(self, exchange: Exchange, body: Any) -> None:
        await self.answer(exchange, body, chat=True)

    async def complete(self, exchange: Exchange, body: Any) -> None:
        await self.answer(exchange, body, chat=False)

    async def slow(self) -> None:
        """The fault of a health check that takes its time."""
        fault = self.face.book.of("slow_health")
        if fault is not None:
            await asyncio.sleep(fault["seconds"])

    async def answer(self, exchange: Exchange, body: Any, *, chat: bool) -> None:
        """One answer, whole or streamed."""
        entered = time.monotonic()
        self.check(body)
        asked = read_asked(body, self.model, self.wrong(), chat=chat, special_tokens=self.begins_chats)
        wanted = self.wanted(asked, body)
        name, number = self.echoed(body), self.number(exchange, chat=chat)
        try:
            self.admit(asked)
        except Problem as problem:
            if not problem.more.get("in_stream"):
                raise
            stream = self.new_stream(asked, number, name)
            stream.open(self.app(exchange).stream(exchange))
            stream.failed(None, problem)
            return
        if asked.stream:
            await self.stream(exchange, asked, wanted, number, name, entered)
            return
        generation, text = await whole_answer(self.engine, wanted, entered)
        self.json(exchange, self.whole(generation, text, asked, number, name))

    async def stream(
        self, exchange: Exchange, asked: ParsedRequest, wanted: AnswerRequest, number: str, name: str, entered: float
    ) -> None:
        """Begin a streamed answer: the head leaves at once."""
        stream = self.new_stream(asked, number, name)
        stream.begin(exchange, self.engine, wanted, entered)
        stream.open(self.app(exchange).stream(exchange))

    def number(self, exchange: Exchange, *, chat: bool) -> str:
        """The answer's id."""
        return uuid.uuid4().hex

    def echoed(self, body: Any) -> str:
        """The model's name as answers carry it."""
        return str(body.get("model") or self.name)

    def check(self, body: Any) -> None:
        """What is refused before anything is read. Raises Problem."""
        return

    def admit(self, asked: ParsedRequest) -> None:
        """What is refused for the load that is there. Raises Problem."""
        return

    @abstractmethod
    def wrong(self) -> Wrong: ...

    @abstractmethod
    def wanted(self, asked: ParsedRequest, body: Any) -> AnswerRequest:
        """The request within the engine's limits. Raises Problem."""

    @abstractmethod
    def new_stream(self, asked: ParsedRequest, number: str, name: str) -> Stream: ...

    @abstractmethod
    def whole(self, generation: Generation, text: str, asked: ParsedRequest, number: str, name: str) -> Any:
        """The JSON of a whole answer."""

    def logprobs(self, generation: Generation, asked: ParsedRequest) -> Any:
        """Of a whole chat; None unless asked for."""
        if asked.top is None or not asked.chat:
            return None
        each = range(generation.generated)
        return {"content": [chat_logprob(generation, at, asked.top, self.engine.speech) for at in each]}


class Stream(ABC):
    """One streamed answer. head: how each frame begins."""

    def __init__(self, serving: Serving, asked: ParsedRequest, number: str, name: str) -> None:
        self.serving, self.asked = serving, asked
        kind = f"{serving.chat_kind}.chunk" if asked.chat else serving.text_kind
        self.head = f'{{"id":{quoted(number)},"object":"{kind}","created":{now()},"model":{quoted(name)},"choices":['
        self.frames: Frames
        self.generation: Generation

    def begin(self, exchange: Exchange, engine: PoolEngine, wanted: AnswerRequest, entered: float) -> None:
        """Queue it. Nothing of it comes before `open`."""
        generation = self.generation = Generation(engine, wanted, self, entered)

        def gone() -> None:
            if hasattr(self, "frames"):
                self.frames.drop()
            generation.abandon()

        exchange.on_gone = gone
        generation.begin()

    def open(self, frames: Frames) -> None:
        """Where the frames go."""
        self.frames = frames

    def started(self, generation: Generation) -> None:
        """The engine begins with it."""
        return

    @abstractmethod
    def token(self, generation: Generation, index: int, finished: str | None) -> None: ...

    @abstractmethod
    def failed(self, generation: Generation | None, problem: Problem) -> None:
        """It ends with an error. None: before it was queued."""

    def end(self, done: bool = True) -> None:
        """The end of the stream, said so where the engine says it."""
        if done:
            self.frames.send("[DONE]")
        self.frames.end()

    def logprob(self, generation: Generation, index: int) -> str:
        """The JSON of one token's log probabilities; `null` unless asked for."""
        if self.asked.top is None or not self.asked.chat:
            return "null"
        return compact(
            {"content": [chat_logprob(generation, index, self.asked.top, self.serving.engine.speech)]}
        ).decode()


def counts(prompt: int, made: int) -> dict[str, int]:
    """`usage` as vLLM and SGLang order it."""
    return {"prompt_tokens": prompt, "total_tokens": prompt + made, "completion_tokens": made}
