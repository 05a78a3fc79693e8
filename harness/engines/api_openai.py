"""The OpenAI routes: POST /v1/chat/completions and POST /v1/completions, as TGI and other engines serve them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from harness.engines.base import Answer, Call, Reading, WholeReading, read_all
from harness.engines.failures import error_kind, event_error_kind
from harness.engines.payload import as_count, as_mapping, as_text, at_once, encode_json, headers, json_object
from harness.engines.stream import Heard, Kind, Memory, Stream, StreamReading
from harness.workload.request import Request

# Where the text of a chunk may stand: what reasoning models think is generated, sent and waited for like the rest.
_TEXT_KEYS = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls")


class _OpenAiApi:
    """What both routes share. Usage is asked for, so that counts are the server's."""

    name: str
    path: str
    open_keys: frozenset[bytes]

    def __init__(self) -> None:
        self._memory = Memory()

    def encode(self, request: Request, request_id: str, model_name: str, *, stream: bool) -> Call:
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
        return Call("POST", self.path, headers(request_id, stream=stream), encode_json(document))

    def decode(self, http_status: int, slices: Sequence[bytes], *, stream: bool, complete: bool) -> Answer:
        return read_all(self.reading(http_status, stream=stream), slices, complete=complete)

    def reading(self, http_status: int, *, stream: bool) -> Reading:
        if not 200 <= http_status < 300:
            return WholeReading(lambda body, slices, complete: Answer(error_kind=error_kind(http_status, body)))
        return StreamReading(self, self._memory) if stream else WholeReading(self._whole)

    def settle(self, stream: Stream, *, complete: bool) -> Stream:
        return settle(stream, complete=complete)

    def hear(self, stream: Stream, payload: Mapping[str, Any], name: str | None) -> Heard | None:
        """One chunk: a piece of text, the usage, an error, or something of no concern."""
        if payload.get("error") or name == "error":
            stream.error_kind = stream.error_kind or event_error_kind(payload)
            return None
        usage = as_mapping(payload.get("usage"))
        told = as_count(usage.get("completion_tokens"))
        before = stream.output_tokens
        if told is not None:
            stream.output_tokens = told
            stream.input_tokens = as_count(usage.get("prompt_tokens"))
        choices = payload.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
        if choice is None:
            stream.strange = stream.strange or not usage
            return None
        reason = as_text(choice.get("finish_reason"))
        stream.finish_reason = stream.finish_reason or reason
        kind = self._kind(stream, choice, reason)
        tokens = _tokens_told(choice, told, before)
        plain = kind is Kind.CONTENT and reason is None and told is None and tokens is None
        return Heard(kind, 1 if tokens is None else max(1, tokens), plain)

    def _kind(self, stream: Stream, choice: Mapping[str, Any], reason: str | None) -> Kind:
        if self._has_text(choice):
            return Kind.CONTENT
        if reason is not None:
            return Kind.EMPTY_END
        return Kind.OPENING if not stream.kinds and "role" in as_mapping(choice.get("delta")) else Kind.EMPTY

    def _whole(self, body: bytes, slices: int, complete: bool) -> Answer:
        if not complete:
            return Answer(error_kind="stream_broken")
        payload = json_object(body)
        if payload is None:
            return Answer(error_kind="protocol" if body.strip() else "empty")
        if payload.get("error"):
            return Answer(error_kind=event_error_kind(payload))
        choices = payload.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return Answer(error_kind="protocol")
        usage = as_mapping(payload.get("usage"))
        return at_once(
            slices,
            tokens=as_count(usage.get("completion_tokens")),
            shown=self._has_text(choices[0]),
            input_tokens=as_count(usage.get("prompt_tokens")),
            finish_reason=as_text(choices[0].get("finish_reason")),
        )

    def _prompt(self, request: Request) -> dict[str, Any]:
        raise NotImplementedError

    def _has_text(self, choice: Mapping[str, Any]) -> bool:
        raise NotImplementedError


class OpenAiChatApi(_OpenAiApi):
    """One user message per request; the server applies the model's chat template."""

    name = "openai-chat"
    path = "/v1/chat/completions"
    open_keys = frozenset((b"id", b"created", b"content", b"reasoning_content", b"reasoning"))

    def _prompt(self, request: Request) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": request.prompt}]}

    def _has_text(self, choice: Mapping[str, Any]) -> bool:
        message = as_mapping(choice.get("delta") or choice.get("message"))
        return any(message.get(key) for key in _TEXT_KEYS)


class OpenAiCompletionsApi(_OpenAiApi):
    """The bare prompt, without a chat template."""

    name = "openai-completions"
    path = "/v1/completions"
    open_keys = frozenset((b"id", b"created", b"text"))

    def _prompt(self, request: Request) -> dict[str, Any]:
        return {"prompt": request.prompt}

    def _has_text(self, choice: Mapping[str, Any]) -> bool:
        return bool(choice.get("text"))


def _tokens_told(choice: Mapping[str, Any], told: int | None, before: int | None) -> int | None:
    """How many tokens the server says this chunk holds; several with speculative decoding.

    By its log-probabilities or token ids, or by how far the usage count went on since the chunk before (vLLM's
    `continuous_usage_stats`). None where it does not say.
    """
    logprobs = choice.get("logprobs")
    if isinstance(logprobs, dict):
        listed = logprobs.get("content") or logprobs.get("tokens")
        if isinstance(listed, list) and listed:
            return len(listed)
    ids = choice.get("token_ids")
    if isinstance(ids, list) and ids:
        return len(ids)
    return told - before if told is not None and before is not None else None


def settle(stream: Stream, *, complete: bool) -> Stream:
    """Decides which chunks without text were tokens, and whether the last message came.

    Engines differ: TGI sends an end-of-sequence token, or a piece of a character, as a chunk with empty text; others
    send such chunks for the role or the finish reason alone. The server's own count tells them apart; without one, an
    empty chunk counts only where generation stopped by itself, as its end-of-sequence token.
    """
    stream.final = stream.finish_reason is not None and (stream.done or complete)
    if stream.kinds.count(Kind.CONTENT) == len(stream.kinds):
        return stream
    tokens = _token_kinds(stream)
    keep = [index for index, kind in enumerate(stream.kinds) if kind in tokens]
    stream.ends = array("q", [stream.ends[index] for index in keep])
    stream.counts = [stream.counts[index] for index in keep]
    stream.kinds = [stream.kinds[index] for index in keep]
    return stream


# From what is most likely a token to what is least.
_ADMISSIBLE = (
    {Kind.CONTENT},
    {Kind.CONTENT, Kind.EMPTY_END},
    {Kind.CONTENT, Kind.EMPTY},
    {Kind.CONTENT, Kind.EMPTY_END, Kind.EMPTY},
    {Kind.CONTENT, Kind.EMPTY, Kind.OPENING},
    {Kind.CONTENT, Kind.EMPTY_END, Kind.EMPTY, Kind.OPENING},
)


def _token_kinds(stream: Stream) -> set[Kind]:
    if stream.output_tokens is None:
        stopped = stream.finish_reason not in (None, "length")
        return _ADMISSIBLE[1] if stopped else _ADMISSIBLE[0]
    for kinds in _ADMISSIBLE:
        counted = sum(count for kind, count in zip(stream.kinds, stream.counts, strict=True) if kind in kinds)
        if counted == stream.output_tokens:
            return kinds
    return _ADMISSIBLE[0]
