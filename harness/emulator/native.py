"""TGI's own routes: /, /generate, /generate_stream and /tokenize."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from harness.emulator import rust
from harness.emulator.app import App
from harness.emulator.bodies import Ask
from harness.emulator.http import Exchange
from harness.emulator.infer import FinishedAnswer, Generation
from harness.emulator.problems import Refused, invalid
from harness.emulator.sse import EventStream
from harness.emulator.tokens import AnswerToken, Token


def _tokens(tokens: list[AnswerToken]) -> str:
    return "[" + ",".join([each.json for each in tokens]) + "]"


def _prefill(answer: FinishedAnswer) -> str:
    return rust.text([{"id": number, "text": text, "logprob": chance} for number, text, chance in answer.prefill])


def _sequence(answer: FinishedAnswer) -> str:
    """The fields that a best_of sequence and the details share, in the order of both."""
    return (
        f'"finish_reason":"{answer.finish_reason}","generated_tokens":{answer.generated_tokens},'
        f'"seed":{rust.text(answer.seed)},"prefill":{_prefill(answer)},"tokens":{_tokens(answer.tokens)}'
    )


def _top(answer: FinishedAnswer) -> str:
    if not answer.top_tokens:
        return ""
    return ',"top_tokens":[' + ",".join(map(_tokens, answer.top_tokens)) + "]"


def details(answer: FinishedAnswer, others: list[FinishedAnswer] | None, prompt: str) -> str:
    """`details` of a plain answer. others: the sequences that lost a `best_of`."""
    best = ""
    if others is not None:
        sequences = (
            f'{{"generated_text":{rust.text(prompt + each.text)},{_sequence(each)}{_top(each)}}}' for each in others
        )
        best = f',"best_of_sequences":[{",".join(sequences)}]'
    return f"{{{_sequence(answer)}{best}{_top(answer)}}}"


class Result:
    """A finished plain request. body: its JSON object."""

    __slots__ = ("answer", "body", "headers")

    def __init__(self, answer: FinishedAnswer, body: bytes, headers: list[tuple[str, str]]) -> None:
        self.answer, self.body, self.headers = answer, body, headers


async def generate_internal(app: App, ask: Ask, span: str) -> Result:
    """One plain generation with its headers and its JSON. span: the route's name in the log."""
    entered = time.monotonic()
    app.metrics.count("tgi_request_count")
    p = ask.parameters
    others: list[FinishedAnswer] | None = None
    if p.best_of is not None and p.best_of > 1:
        answer, others = await app.infer.best_of(ask, p.best_of)
    else:
        answer = await app.infer.answer(ask)
    return finished(app, ask, span, answer, entered, others)


def finished(
    app: App, ask: Ask, span: str, answer: FinishedAnswer, entered: float, others: list[FinishedAnswer] | None = None
) -> Result:
    """Count, log and write a plain answer that is complete."""
    timings = app.succeeded(span, ask, answer, entered, time.monotonic(), 432)
    headers = timings.headers(app.web.compute_type, len(ask.inputs), answer.input_length, answer.generated_tokens)
    p = ask.parameters
    prompt = ask.inputs if p.return_full_text else ""
    body = f'{{"generated_text":{rust.text(prompt + answer.text)}'
    if p.details or p.decoder_input_details:
        body += f',"details":{details(answer, others, prompt)}'
    return Result(answer, f"{body}}}".encode("utf-8", "replace"), headers)


async def generate(app: App, exchange: Exchange, ask: Ask) -> None:
    result = await generate_internal(app, ask, "generate")
    app.json(exchange, result.body, result.headers)


class NativeStream:
    """The listener of /generate_stream."""

    __slots__ = ("app", "ask", "details", "entered", "events", "speech_json")

    def __init__(self, app: App, ask: Ask, events: EventStream, entered: float) -> None:
        self.app, self.ask, self.events, self.entered = app, ask, events, entered
        self.details = ask.parameters.details

    def token(self, generation: Generation, index: int) -> None:
        if generation.plan is None and not generation.top_n:
            speech = generation.speech
            said = speech.json[(generation.start + index) % speech.LENGTH]
            text = f'{{"index":{index + 1},"token":{said},"generated_text":null,"details":null}}'
        else:
            text = self._text(generation, index, "null", "null")
        self.events.event(text.encode())

    def last(self, generation: Generation, index: int, answer: FinishedAnswer) -> None:
        app = self.app
        app.succeeded("generate_stream", self.ask, answer, self.entered, time.monotonic(), 637)
        prompt = self.ask.inputs if self.ask.parameters.return_full_text else ""
        tail = "null"
        if self.details:
            tail = (
                f'{{"finish_reason":"{answer.finish_reason}","generated_tokens":{answer.generated_tokens},'
                f'"seed":{rust.text(answer.seed)},"input_length":{answer.input_length}}}'
            )
        text = self._text(generation, index, rust.text(prompt + answer.text), tail)
        self.events.event(text.encode("utf-8", "replace"))
        self.events.close()

    def failed(self, problem: Refused) -> None:
        self.events.event(problem.native())
        self.events.close()

    def _text(self, generation: Generation, index: int, said: str, tail: str) -> str:
        top = generation.top(index)
        shown = f',"top_tokens":{_tokens(top)}' if top else ""
        token = generation.spoken(index).json
        return f'{{"index":{index + 1},"token":{token}{shown},"generated_text":{said},"details":{tail}}}'


def begin_stream(app: App, ask: Ask, listener: Any) -> Generation | None:
    """What every streaming route does first. None when the listener has been told of a failure instead."""
    app.metrics.count("tgi_request_count")
    problem: Refused | None = None
    if ask.parameters.best_of is not None and ask.parameters.best_of != 1:
        problem = invalid("`best_of` != 1 is not supported when streaming tokens")
    elif ask.parameters.decoder_input_details:
        problem = invalid("`decoder_input_details` == true is not supported when streaming tokens")
    if problem is not None:
        app.metrics.count("tgi_request_failure", 'err="validation"')
        app.log.router("ERROR", "text_generation_router::server", "router/src/server.rs:547", problem.text)
        listener.failed(problem)
        return None
    try:
        return app.infer.begin(ask, listener)
    except Refused as refused:
        listener.failed(refused)
        return None


def generate_stream(app: App, exchange: Exchange, ask: Ask) -> None:
    entered = time.monotonic()
    events = app.stream(exchange, len(ask.inputs))
    generation = begin_stream(app, ask, NativeStream(app, ask, events, entered))
    if generation is None:
        return
    answer = generation

    def gone() -> None:
        events.drop()
        answer.abandon()

    exchange.on_gone = gone


def compatible(app: App, exchange: Exchange, ask: Ask) -> Any:
    """POST /: plain or streamed, and the plain answer is a list of one."""
    if ask.parameters.return_full_text is None:
        ask = replace(ask, parameters=replace(ask.parameters, return_full_text=app.web.return_full_text))
    if ask.stream:
        return generate_stream(app, exchange, ask)
    return _compatible(app, exchange, ask)


async def _compatible(app: App, exchange: Exchange, ask: Ask) -> None:
    result = await generate_internal(app, ask, "generate")
    app.json(exchange, b"[" + result.body + b"]", result.headers)


def token_list(tokens: list[Token]) -> list[dict[str, Any]]:
    return [{"id": t.id, "text": t.text, "start": t.start, "stop": t.stop} for t in tokens]


def tokenize(app: App, exchange: Exchange, ask: Ask) -> None:
    tokens = app.infer.validation.tokenizer.offsets(ask.inputs, ask.special_tokens)
    app.json(exchange, rust.dumps(token_list(tokens)))
