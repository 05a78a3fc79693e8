"""The OpenAI APIs: POST /v1/chat/completions and POST /v1/completions, as TGI and other engines serve them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.engines.answer import Answer, AnswerReader, WholeReading, read_all
from harness.engines.answer_text import Piece
from harness.engines.api import NO_EXTRAS, Call, Extras
from harness.engines.counting import count_events
from harness.engines.error_kinds import event_error_kind, event_error_message, refusal
from harness.engines.payload import (
    as_content,
    as_count,
    as_mapping,
    as_text,
    at_once,
    encode_json,
    headers,
    json_object,
)
from harness.engines.stream import EventKind, FormMemory, Stream, StreamEvent, StreamReading
from harness.workload.request import Request

# Where the text of a chunk may be: what reasoning models think is generated, sent and waited for like the rest.
_TEXT_KEYS = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls")
_THOUGHT_KEYS = ("reasoning_content", "reasoning")


class _OpenAiApi:
    """What both routes share. Usage is asked for, so that counts are the server's."""

    name: str
    path: str
    open_keys: frozenset[bytes]
    counts_events = False
    count_keys: tuple[bytes, ...] = (
        b"completion_tokens", b"predicted_n", b"total_tokens", b"prompt_tokens", b"cached_tokens", b"reasoning_tokens",
        b"cache_n", b"prompt_n", b"prompt_ms", b"prompt_per_token_ms", b"prompt_per_second", b"predicted_ms",
        b"predicted_per_token_ms", b"predicted_per_second",
    )  # fmt: skip

    def __init__(self) -> None:
        self._memory = FormMemory()

    def encode(
        self, request: Request, request_id: str, model_name: str, *, stream: bool, extras: Extras = NO_EXTRAS
    ) -> Call:
        """Greedy (temperature 0) unless the request has a seed.

        top_p is left out: 1.0, its default elsewhere, is refused by TGI. max_tokens is what every engine knows.
        """
        document: dict[str, Any] = {"model": model_name, **self._prompt(request), "max_tokens": request.max_new_tokens}
        if request.seed is None:
            document["temperature"] = 0
        else:
            document |= {"temperature": 1.0, "seed": request.seed}
        if stream:
            document |= {"stream": True, "stream_options": {"include_usage": True}}
        for name, value in extras.body(request.max_new_tokens, stream=stream).items():
            common = document.get(name)
            document[name] = {**common, **value} if isinstance(common, dict) and isinstance(value, Mapping) else value
        return Call("POST", self.path, headers(request_id, stream=stream), encode_json(document))

    def decode(self, http_status: int, slices: Sequence[bytes], *, stream: bool, complete: bool) -> Answer:
        return read_all(self.reading(http_status, stream=stream), slices, complete=complete)

    def reading(self, http_status: int, *, stream: bool) -> AnswerReader:
        if not 200 <= http_status < 300:
            return WholeReading(lambda body, slices, complete: refusal(http_status, body))
        return StreamReading(self, self._memory) if stream else WholeReading(self.whole)

    def settle(self, stream: Stream, *, complete: bool) -> Stream:
        stream.final = stream.finish_reason is not None and (stream.done or complete)
        count_events(stream)
        return stream

    def on_event(self, stream: Stream, payload: Mapping[str, Any], name: str | None) -> StreamEvent | None:
        """One chunk: a piece of text, the usage, an error, or something of no concern."""
        if payload.get("error") or name == "error":
            stream.error_message = stream.error_message or event_error_message(payload)
            stream.error_kind = stream.error_kind or event_error_kind(payload)
            return None
        counts = _counts(payload)
        choices = payload.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
        if choice is None:
            stream.strange = stream.strange or not (counts or payload.get("usage"))
            return _mark(stream, counts, None)
        if "prompt_progress" in payload:  # llama.cpp's, while it reads the prompt; it may hold a role
            return None
        reason = as_text(choice.get("finish_reason"))
        stream.finish_reason = stream.finish_reason or reason
        stream.roles = "role" in as_mapping(choice.get("delta")) if reason else stream.roles
        kind = self._kind(stream, choice, reason)
        if kind is not EventKind.CONTENT:
            return _mark(stream, counts, None if kind is None else StreamEvent(kind))
        if self._thinks(choice):
            stream.thoughts = True
        listed = _listed(choice)
        stream.owned += listed > 0
        size = 0 if counts else self._size(choice)
        plain = reason is None and not listed
        return _mark(stream, counts, StreamEvent(kind, listed or 1, plain, size))

    def _kind(self, stream: Stream, choice: Mapping[str, Any], reason: str | None) -> EventKind | None:
        """None for a chunk that holds no token whatever the count says."""
        if self._text(choice):
            return EventKind.CONTENT
        delta = as_mapping(choice.get("delta"))
        if reason is not None:
            return EventKind.EMPTY_END
        if not stream.kinds and "role" in delta:
            return EventKind.OPENING
        return EventKind.EMPTY if "" in (delta.get("content"), choice.get("text")) else None

    def whole(self, body: bytes, slices: int, complete: bool) -> Answer:
        """A document that is a whole answer."""
        if not complete:
            return Answer(error_kind="stream_broken")
        payload = json_object(body)
        if payload is None:
            return Answer(error_kind="protocol" if body.strip() else "empty")
        if payload.get("error"):
            return Answer(error_kind=event_error_kind(payload), error_message=event_error_message(payload))
        choices = payload.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return Answer(error_kind="protocol")
        told, prompt, _ = _counts(payload) or (None, None, 0)
        return at_once(
            slices,
            tokens=told,
            shown=bool(self._text(choices[0])),
            input_tokens=prompt,
            finish_reason=as_text(choices[0].get("finish_reason")),
        )

    def _prompt(self, request: Request) -> dict[str, Any]:
        raise NotImplementedError

    def _text(self, choice: Mapping[str, Any]) -> Sequence[Any]:
        """What was generated, in the members where it may be; none where there is no text."""
        raise NotImplementedError

    def text_in(self, payload: Mapping[str, Any]) -> Piece | None:
        """What the model says to the user: reasoning and calls of tools are no part of what a client sends back."""
        choices = payload.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        text = self._said(choice)
        return Piece(text) if text else None

    def _said(self, choice: Mapping[str, Any]) -> str | None:
        """The text that is shown, in a chunk or in a document."""
        raise NotImplementedError

    def _thinks(self, choice: Mapping[str, Any]) -> bool:
        delta = as_mapping(choice.get("delta"))
        return any(delta.get(key) for key in _THOUGHT_KEYS)

    def _size(self, choice: Mapping[str, Any]) -> int:
        """Bytes of the text, as it is usually written."""
        texts = (each if isinstance(each, str) else json.dumps(each) for each in self._text(choice))
        return sum(len(each.encode("utf-8", "surrogatepass")) for each in texts)


class OpenAiChatApi(_OpenAiApi):
    """What was said before and the user's message; the server applies the model's chat template."""

    name = "openai-chat"
    path = "/v1/chat/completions"
    open_keys = frozenset((b"id", b"created", b"content", b"reasoning_content", b"reasoning"))

    def _prompt(self, request: Request) -> dict[str, Any]:
        return {"messages": request.as_messages()}

    def _said(self, choice: Mapping[str, Any]) -> str | None:
        return as_content(as_mapping(choice.get("delta") or choice.get("message")).get("content"))

    def _text(self, choice: Mapping[str, Any]) -> Sequence[Any]:
        message = as_mapping(choice.get("delta") or choice.get("message"))
        return [found for key in _TEXT_KEYS if (found := message.get(key))]


class OpenAiCompletionsApi(_OpenAiApi):
    """The bare prompt, without a chat template."""

    name = "openai-completions"
    path = "/v1/completions"
    open_keys = frozenset((b"id", b"created", b"text"))

    def _prompt(self, request: Request) -> dict[str, Any]:
        return {"prompt": request.as_text()}

    def _said(self, choice: Mapping[str, Any]) -> str | None:
        return as_content(choice.get("text"))

    def _text(self, choice: Mapping[str, Any]) -> Sequence[Any]:
        text = choice.get("text")
        return [text] if text else []


class _Counts(NamedTuple):
    """How many tokens there are, as the server tells. completion: so far. unseen: of these, reasoning."""

    completion: int
    prompt: int | None
    unseen: int


def _counts(payload: Mapping[str, Any]) -> _Counts | None:
    """By `usage`, else by llama.cpp's `timings`, whose `prompt_n` leaves out what was in the cache."""
    usage = as_mapping(payload.get("usage"))
    told = as_count(usage.get("completion_tokens"))
    if told is not None:
        details = as_mapping(usage.get("completion_tokens_details"))
        return _Counts(told, as_count(usage.get("prompt_tokens")), as_count(details.get("reasoning_tokens")) or 0)
    timings = as_mapping(payload.get("timings"))
    told = as_count(timings.get("predicted_n"))
    if told is None:
        return None
    prompt = as_count(timings.get("prompt_n"))
    return _Counts(told, None if prompt is None else prompt + (as_count(timings.get("cache_n")) or 0), 0)


def _mark(stream: Stream, counts: _Counts | None, event: StreamEvent | None) -> StreamEvent | None:
    """Notes what the server told with this chunk. A count that tells of this chunk alone is the chunk's own."""
    if counts is None:
        return event
    events, before = stream.marks[-1] if stream.marks else (0, 0)
    now = len(stream.kinds) + (event is not None)
    stream.marks.append((now, counts.completion))
    stream.output_tokens = max(counts.completion, stream.output_tokens or 0)
    stream.input_tokens = stream.input_tokens if counts.prompt is None else counts.prompt
    stream.unseen = counts.unseen
    if event is not None and events == now - 1 and event.kind is EventKind.CONTENT:
        return event._replace(tokens=max(event.tokens, counts.completion - before))
    return event


def _listed(choice: Mapping[str, Any]) -> int:
    """How many tokens the server lists for this chunk, by log-probabilities or ids; 0 where it does not."""
    logprobs = as_mapping(choice.get("logprobs"))
    for listed in (logprobs.get("content"), logprobs.get("tokens"), choice.get("token_ids")):
        if isinstance(listed, list) and listed:
            return len(listed)
    return 0
