"""TGI's own routes: POST /generate_stream and POST /generate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.engines.answer import Answer, AnswerReader, WholeReading, read_all
from harness.engines.answer_text import Piece
from harness.engines.api import NO_EXTRAS, Call, Extras
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


class TgiApi:
    """TGI's own routes. Every event of a stream carries one token; the last one also the answer's details."""

    name = "tgi"
    counts_events = True
    open_keys = frozenset((b"index", b"id", b"text", b"logprob"))
    count_keys: tuple[bytes, ...] = ()

    def __init__(self) -> None:
        self._memory = FormMemory()

    def encode(
        self, request: Request, request_id: str, model_name: str, *, stream: bool, extras: Extras = NO_EXTRAS
    ) -> Call:
        """Greedy unless the request has a seed. model_name is not sent: one TGI serves one model."""
        parameters: dict[str, Any] = {"max_new_tokens": request.max_new_tokens, "details": True}
        if request.seed is not None:
            parameters |= {"do_sample": True, "seed": request.seed}
        body = encode_json({"inputs": request.as_text(), "parameters": parameters})
        path = "/generate_stream" if stream else "/generate"
        return Call("POST", path, headers(request_id, stream=stream), body)

    def decode(self, http_status: int, slices: Sequence[bytes], *, stream: bool, complete: bool) -> Answer:
        return read_all(self.reading(http_status, stream=stream), slices, complete=complete)

    def reading(self, http_status: int, *, stream: bool) -> AnswerReader:
        if not 200 <= http_status < 300:
            return WholeReading(lambda body, slices, complete: refusal(http_status, body))
        return StreamReading(self, self._memory) if stream else WholeReading(self.whole)

    def settle(self, stream: Stream, *, complete: bool) -> Stream:
        stream.count_told = "per_event" if stream.ends else None
        return stream

    def on_event(self, stream: Stream, payload: Mapping[str, Any], name: str | None) -> StreamEvent | None:
        """One event: a token, an error, or something that TGI never sends."""
        if "error" in payload or name == "error":
            stream.error_message = stream.error_message or event_error_message(payload)
            stream.error_kind = stream.error_kind or event_error_kind(payload)
            return None
        token = payload.get("token")
        if not isinstance(token, dict):
            stream.strange = True
            return None
        final = payload.get("generated_text") is not None
        if final:
            stream.final = True
            details = as_mapping(payload.get("details"))
            stream.finish_reason = as_text(details.get("finish_reason"))
            stream.output_tokens = as_count(details.get("generated_tokens"))
            stream.input_tokens = as_count(details.get("input_length"))
        # The text of a special token, such as </s>, is not part of the answer.
        shown = bool(token.get("text")) and not token.get("special")
        return StreamEvent(EventKind.CONTENT if shown else EventKind.TOKEN, plain=shown and not final)

    def text_in(self, payload: Mapping[str, Any]) -> Piece | None:
        """The last event tells the whole text; without it, as where an answer was cut, that of the tokens."""
        whole, token = payload.get("generated_text"), as_mapping(payload.get("token"))
        if isinstance(whole, str):
            return Piece(whole, whole=True)
        text = as_content(token.get("text"))
        return Piece(text) if text and not token.get("special") else None

    def whole(self, body: bytes, slices: int, complete: bool) -> Answer:
        """A /generate answer: all its tokens arrive at once, with the last slice."""
        if not complete:
            return Answer(error_kind="stream_broken")
        payload = json_object(body)
        if payload is None:
            return Answer(error_kind="protocol" if body.strip() else "empty")
        if "error" in payload:
            return Answer(error_kind=event_error_kind(payload), error_message=event_error_message(payload))
        if not isinstance(payload.get("generated_text"), str):
            return Answer(error_kind="protocol")
        details = as_mapping(payload.get("details"))
        return at_once(
            slices,
            tokens=as_count(details.get("generated_tokens")),
            shown=bool(payload["generated_text"]),
            finish_reason=as_text(details.get("finish_reason")),
        )
