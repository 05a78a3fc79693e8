"""/v1/completions (router/src/server.rs:714-1132): one or more prompts in one call."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from harness.emulator import rust
from harness.emulator.app import JSON, App
from harness.emulator.bodies import Ask, Completion, Parameters
from harness.emulator.chat import adapter, finish_reason, sampling, usage
from harness.emulator.http import Exchange
from harness.emulator.infer import FinishedAnswer, Generation
from harness.emulator.native import Result, begin_stream, finished
from harness.emulator.problems import Refused
from harness.emulator.sse import EventStream
from harness.emulator.tokens import AnswerToken

_SUFFIX = {
    "error": "Suffix is not supported and can be achieved by preprocessing the prompt.",
    "error_type": "suffix not supported",
}


def _too_many(most: int) -> dict[str, str]:
    return {
        "error": f"Number of prompts exceeds the maximum allowed batch size of {most}",
        "error_type": "batch size exceeded",
    }


def _asks(body: Completion) -> list[Ask]:
    do_sample, temperature = sampling(body.temperature)
    parameters = Parameters(
        temperature=temperature,
        repetition_penalty=body.repetition_penalty,
        frequency_penalty=body.frequency_penalty,
        top_p=body.top_p,
        do_sample=do_sample,
        max_new_tokens=body.max_tokens,
        stop=body.stop,
        details=True,
        decoder_input_details=not body.stream,
        seed=body.seed,
        adapter_id=adapter(body.model),
    )
    return [Ask(prompt, parameters) for prompt in body.prompts]


def completions(app: App, exchange: Exchange, body: Completion) -> Any:
    app.metrics.count("tgi_request_count")
    most = app.info.max_client_batch_size
    if body.suffix is not None or len(body.prompts) > most:
        app.metrics.count("tgi_request_failure", 'err="validation"')
        exchange.respond(422, JSON, rust.dumps(_SUFFIX if body.suffix is not None else _too_many(most)))
        return None
    asks = _asks(body)
    if not body.stream:
        return _plain(app, exchange, asks)
    _stream(app, exchange, asks)
    return None


async def _plain(app: App, exchange: Exchange, asks: list[Ask]) -> None:
    entered, created = time.monotonic(), int(time.time())
    app.metrics.count("tgi_request_count", by=len(asks))
    complete: list[tuple[int, Result]] = []

    def told(index: int, answer: FinishedAnswer) -> None:
        complete.append((index, finished(app, asks[index], "completions", answer, entered)))

    await app.infer.answers(asks, told)
    choices = [
        {
            "index": index,
            "text": result.answer.text,
            "logprobs": None,
            "finish_reason": finish_reason(result.answer.finish_reason),
        }
        for index, result in complete
    ]
    prompt = sum(result.answer.input_length for _, result in complete)
    completion = sum(result.answer.generated_tokens for _, result in complete)
    answer = {
        "object": "text_completion",
        "id": "",
        "created": created,
        "model": app.info.model_id,
        "system_fingerprint": app.info.fingerprint,
        "choices": choices,
        "usage": usage(prompt, completion),
    }
    app.json(exchange, rust.dumps(answer), _summed([result.headers for _, result in complete]))


def _summed(parts: list[list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """The headers of all prompts added up; the time in seconds is not among them."""
    summed = []
    for fields in zip(*parts, strict=True):
        name, value = fields[0]
        if name == "x-compute-type":
            summed.append((name, value))
        elif name != "x-compute-time":
            summed.append((name, str(sum(int(each) for _, each in fields))))
    return summed


class _Prompt:
    """The listener of one prompt: its events wait here until it is their turn."""

    def __init__(self, call: _Call, index: int, ask: Ask) -> None:
        self.call, self.index, self.ask = call, index, ask
        self.entered = time.monotonic()
        self.events: deque[bytes] = deque()
        self.open = True
        self.generation: Generation | None = None

    def token(self, generation: Generation, index: int) -> None:
        choice = _choice(generation.spoken(index), self.index, "")
        self._put(f'{self.call.head()}"choices":[{choice}],{self.call.model}}}'.encode())

    def last(self, generation: Generation, index: int, answer: FinishedAnswer) -> None:
        self.call.app.succeeded("completions", self.ask, answer, self.entered, time.monotonic(), 637)
        choice = _choice(generation.spoken(index), self.index, answer.finish_reason)
        shown = rust.text(usage(answer.input_length, answer.generated_tokens))
        self.open = False
        self._put(f'{self.call.head()}{self.call.model},"choices":[{choice}],"usage":{shown}}}'.encode())

    def failed(self, problem: Refused) -> None:
        self.open = False
        self._put(problem.openai())

    def _put(self, event: bytes) -> None:
        self.events.append(event)
        self.call.pump()


def _choice(spoken: AnswerToken, index: int, reason: str) -> str:
    return f'{{"index":{index},"text":{rust.text(spoken.text)},"logprobs":null,"finish_reason":"{reason}"}}'


class _Call:
    """One streamed call: prompts take turns, event by event, as long as each is open."""

    def __init__(self, app: App, events: EventStream, asks: list[Ask]) -> None:
        self.app, self.events = app, events
        self.model = f'"model":{rust.text(app.info.model_id)},"system_fingerprint":{rust.text(app.info.fingerprint)}'
        self.prompts = [_Prompt(self, index, ask) for index, ask in enumerate(asks)]
        self.turn = 0
        self.started = False

    def head(self) -> str:
        return f'{{"object":"text_completion","id":"","created":{int(time.time())},'

    def start(self) -> None:
        for prompt in list(self.prompts):
            prompt.generation = begin_stream(self.app, prompt.ask, prompt)
        self.started = True
        self.pump()

    def pump(self) -> None:
        """Send what is due: the prompt whose turn it is blocks the others until its next event comes."""
        while self.started and self.prompts:
            if self.turn >= len(self.prompts):
                self.turn = 0
            prompt = self.prompts[self.turn]
            if prompt.events:
                self.events.event(prompt.events.popleft())
                self.turn += 1
            elif prompt.open:
                return
            else:
                self.prompts.pop(self.turn)
        if self.started and not self.events.closed:
            self.events.event(b"[DONE]")
            self.events.close()

    def gone(self) -> None:
        self.events.drop()
        for prompt in self.prompts:
            if prompt.generation is not None:
                prompt.generation.abandon()


def _stream(app: App, exchange: Exchange, asks: list[Ask]) -> None:
    events = app.stream(exchange, sum(len(ask.inputs) for ask in asks))
    call = _Call(app, events, asks)
    exchange.on_gone = call.gone
    call.start()
