"""/v1/chat/completions and /chat_tokenize (router/src/chat.rs, server.rs, and ChatRequest in lib.rs)."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import Any

from harness.emulator import rust
from harness.emulator.app import App
from harness.emulator.bodies import Ask, Chat, Parameters
from harness.emulator.grammar import is_call, parse_call, tool_grammar
from harness.emulator.http import Exchange
from harness.emulator.infer import FinishedAnswer, Generation
from harness.emulator.native import begin_stream, generate_internal, token_list
from harness.emulator.problems import TEMPLATE, TOOL, Refused
from harness.emulator.sse import EventStream
from harness.emulator.template import TemplateProblem
from harness.emulator.tokens import AnswerToken

TOOL_PROMPT = (
    "\nGiven the functions available, please respond with a JSON for a function call with its proper arguments that"
    " best answers the given prompt. Respond in the format {name: function name, parameters: dictionary of argument"
    " name and its value}.Do not use variables.\n"
)


def sampling(temperature: float | None) -> tuple[bool, float | None]:
    """OpenAI-style routes sample unless the temperature is exactly 0."""
    return (False, None) if temperature == 0.0 else (True, temperature)


def adapter(model: str | None) -> str | None:
    return None if model in (None, "tgi") else model


def finish_reason(reason: str) -> str:
    return "stop" if reason == "eos_token" else reason


def chat_ask(app: App, chat: Chat) -> tuple[Ask, bool]:
    """The request behind a chat, and whether it is to call a tool. Raises Refused."""
    if chat.response_format is not None and chat.tools is not None:
        raise Refused(TOOL, "Grammar and tools are mutually exclusive")
    grammar, listed = chat.response_format, None
    if grammar is None and chat.tools is not None:
        found = tool_grammar(chat.tools, chat.tool_choice)
        if found is not None:
            listed, grammar = found
    prompt = _rendered(app, chat, listed)
    do_sample, temperature = sampling(chat.temperature)
    parameters = Parameters(
        temperature=temperature,
        repetition_penalty=None if chat.presence_penalty is None else chat.presence_penalty + 2.0,
        frequency_penalty=chat.frequency_penalty,
        top_p=chat.top_p,
        do_sample=do_sample,
        max_new_tokens=chat.max_tokens,
        stop=chat.stop,
        details=True,
        seed=chat.seed,
        top_n_tokens=chat.top_logprobs,
        grammar=grammar,
        adapter_id=adapter(chat.model),
    )
    return Ask(prompt, parameters, special_tokens=False), listed is not None


def _rendered(app: App, chat: Chat, tools: Any) -> str:
    if app.template is None:
        raise Refused(TEMPLATE, "template not found")
    try:
        return app.template.render(chat.messages, tools, chat.tool_prompt or TOOL_PROMPT)
    except TemplateProblem as problem:
        app.metrics.count("tgi_request_failure", 'err="template"')
        refused = Refused(TEMPLATE, str(problem))
        app.log.router("ERROR", "text_generation_router::infer", "router/src/infer/mod.rs:238", refused.text)
        raise refused from None


def _next_call_id(chat: Chat) -> str:
    """One more than the highest id of earlier calls, or a random one where those are not numbers."""
    try:
        ids = [int(call.id) for message in chat.messages for call in message.tool_calls]
    except ValueError:
        return str(uuid.uuid4())
    return str(max(ids) + 1 if ids else 0)


def _logprob(token: AnswerToken, top: list[AnswerToken]) -> dict[str, Any]:
    likeliest = [{"token": each.text, "logprob": each.logprob} for each in top]
    return {"token": token.text, "logprob": token.logprob, "top_logprobs": likeliest}


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class _Envelope:
    """What all chunks of one chat have around their choices."""

    __slots__ = ("_after", "_before", "_second", "model")

    def __init__(self, app: App, chat: Chat) -> None:
        self.model = app.info.model_id if chat.model in (None, "tgi") else str(chat.model)
        self._before = ""
        self._after = (
            f',"model":{rust.text(self.model)},"system_fingerprint":{rust.text(app.info.fingerprint)},"choices":['
        )
        self._second = -1

    def head(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._before = f'{{"object":"chat.completion.chunk","id":"","created":{second}{self._after}'
        return self._before


class ChatStream:
    """The listener of a streamed chat: content at once, a tool call only when its name is known."""

    def __init__(self, app: App, chat: Chat, ask: Ask, tools: bool, events: EventStream, entered: float) -> None:
        self.app, self.chat, self.ask, self.events, self.entered = app, chat, ask, events, entered
        self.state = "buffering" if tools else "content"
        self.plain = not tools and not chat.logprobs
        self.call_id = _next_call_id(chat)
        self.envelope = _Envelope(app, chat)
        self.text = ""
        self.generation: Generation | None = None
        self.superseded = False

    def start(self) -> None:
        self.generation = begin_stream(self.app, self.ask, self)

    def token(self, generation: Generation, index: int) -> None:
        if self.superseded:
            return
        spoken = generation.spoken(index)
        if self.plain:
            content = '""' if spoken.special else rust.text(spoken.text)
            self.events.event(
                (
                    f'{self.envelope.head()}{{"index":0,"delta":{{"role":"assistant","content":{content}}},'
                    f'"logprobs":null,"finish_reason":null}}],"usage":null}}'
                ).encode()
            )
            return
        self._push(spoken, generation.top(index), None)

    def last(self, generation: Generation, index: int, answer: FinishedAnswer) -> None:
        if self.superseded:
            return
        self.app.succeeded("chat_completions", self.ask, answer, self.entered, time.monotonic(), 637)
        if self._push(generation.spoken(index), generation.top(index), answer):
            self._done()

    def failed(self, problem: Refused) -> None:
        self.events.event(problem.openai())
        self._done()

    def _done(self) -> None:
        self.events.event(b"[DONE]")
        self.events.close()

    def gone(self) -> None:
        self.events.drop()
        if self.generation is not None:
            self.generation.abandon()

    def _push(self, spoken: AnswerToken, top: list[AnswerToken], answer: FinishedAnswer | None) -> bool:
        """One token through the state machine of chat.rs; False when the model chose no tool and starts again."""
        if self.state == "content":
            self._chunk(spoken, spoken.text, top, answer)
        elif self.state == "tool":
            self.text += spoken.text
            said = spoken.text
            if is_call(self.text) is not None:
                self.state = "buffering"
                said = said.rstrip().removesuffix("}")
            self._chunk(spoken, said, top, answer, call=(None,))
        else:
            self.text += spoken.text
            partial = is_call(self.text.rstrip(" \t\r\n,}") + "}}")
            if partial is not None:
                if partial["_name"] == "no_tool":
                    self._without_tools()
                    return False
                self._chunk(spoken, "{", top, answer, call=(partial["_name"],))
                self.state = "tool"
        if answer is not None and self.chat.include_usage:
            shown = rust.text(usage(answer.input_length, answer.generated_tokens))
            self.events.event(f'{self.envelope.head()}],"usage":{shown}}}'.encode())
        return True

    def _chunk(
        self,
        spoken: AnswerToken,
        said: str,
        top: list[AnswerToken],
        answer: FinishedAnswer | None,
        call: tuple[str | None] | None = None,
    ) -> None:
        delta: dict[str, Any] = {"role": "assistant", "content": "" if spoken.special else said}
        if call is not None and not spoken.special:
            function = {"name": call[0], "arguments": said}
            calls = [{"index": 0, "id": self.call_id, "type": "function", "function": function}]
            delta = {"role": "assistant", "tool_calls": calls}
        shown = replace(spoken, text=said) if call else spoken
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": {"content": [_logprob(shown, top)]} if self.chat.logprobs else None,
            "finish_reason": finish_reason(answer.finish_reason) if answer else None,
        }
        self.events.event(f'{self.envelope.head()}{rust.text(choice)}],"usage":null}}'.encode())

    def _without_tools(self) -> None:
        """The model chose `no_tool`: the answer is made by a second generation without tools."""
        self.superseded = True
        first = self.generation
        chat = self.chat.without_tools()
        ask, _ = chat_ask(self.app, chat)
        second = ChatStream(self.app, chat, ask, False, self.events, time.monotonic())
        second.call_id = self.call_id
        self.events.exchange.on_gone = second.gone
        if first is not None:
            first.abandon()
        second.start()


def _stream(app: App, exchange: Exchange, chat: Chat, ask: Ask, tools: bool) -> None:
    entered = time.monotonic()
    events = app.stream(exchange, len(ask.inputs))
    stream = ChatStream(app, chat, ask, tools, events, entered)
    exchange.on_gone = stream.gone
    stream.start()


def chat_completions(app: App, exchange: Exchange, chat: Chat) -> Any:
    app.metrics.count("tgi_request_count")
    try:
        ask, tools = chat_ask(app, chat)
    except Refused as refused:
        app.refuse(exchange, refused)
        return None
    if chat.stream:
        _stream(app, exchange, chat, ask, tools)
        return None
    return _plain(app, exchange, chat, ask, tools)


async def _plain(app: App, exchange: Exchange, chat: Chat, ask: Ask, tools: bool) -> None:
    result = await generate_internal(app, ask, "chat_completions")
    # TGI tells the details of the first generation even when `no_tool` made it run a second one (server.rs:1281).
    told, input_length = result.answer, result.answer.input_length
    message: dict[str, Any] = {"role": "assistant", "content": result.answer.text}
    if tools:
        name, arguments = parse_call(result.answer.text)
        if name == "no_tool":
            second, _ = chat_ask(app, chat.without_tools())
            result = await generate_internal(app, second, "chat_completions")
            input_length = result.answer.input_length
            message = {"role": "assistant", "content": result.answer.text}
        else:
            function = {"description": None, "name": name, "arguments": rust.text(arguments)}
            message = {"role": "assistant", "tool_calls": [{"id": "0", "type": "function", "function": function}]}
    app.json(exchange, _completion(app, chat, message, told, input_length), result.headers)


def _completion(app: App, chat: Chat, message: dict[str, Any], told: FinishedAnswer, input_length: int) -> bytes:
    logprobs = None
    if chat.logprobs:
        tops = [*told.top_tokens, *([[]] * (len(told.tokens) - len(told.top_tokens)))]
        logprobs = {"content": [_logprob(token, top) for token, top in zip(told.tokens, tops, strict=True)]}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": finish_reason(told.finish_reason),
    }
    return rust.dumps(
        {
            "object": "chat.completion",
            "id": "",
            "created": int(time.time()),
            "model": app.info.model_id if chat.model in (None, "tgi") else chat.model,
            "system_fingerprint": app.info.fingerprint,
            "choices": [choice],
            "usage": usage(input_length, told.generated_tokens),
        }
    )


def chat_tokenize(app: App, exchange: Exchange, chat: Chat) -> None:
    app.metrics.count("tgi_request_count")
    try:
        ask, _ = chat_ask(app, chat)
    except Refused as refused:
        app.refuse(exchange, refused)
        return
    tokens = app.infer.validation.tokenizer.offsets(ask.inputs, ask.special_tokens)
    app.json(exchange, rust.dumps({"tokenize_response": token_list(tokens), "templated_text": ask.inputs}))
