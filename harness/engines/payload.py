"""JSON bodies: written the same way for every API, and read without trusting the types of fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from harness.engines.answer import Answer
from harness.text import one_line


def encode_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def headers(request_id: str, *, stream: bool) -> dict[str, str]:
    """The headers of every call; host, length and authorization belong to the connection."""
    accept = "text/event-stream" if stream else "application/json"
    return {"content-type": "application/json", "accept": accept, "x-request-id": request_id}


def json_object(data: bytes) -> dict[str, Any] | None:
    """The object that the bytes hold, None where they hold anything else."""
    try:
        payload = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None


def as_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


MOST_COUNT = 10**9  # tokens or requests; beyond, a number is not a count, and no record has room for it
_TEXT_MOST = 200  # characters of a reason or a name


def as_count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_COUNT else None


def as_content(value: Any) -> str | None:
    """What a model wrote, to the character: what goes on with it sends it back."""
    return value if isinstance(value, str) and value else None


def as_text(value: Any) -> str | None:
    """A short text for a record or a line, cut, without control codes and lone surrogates, which no file could hold."""
    return one_line(value[:_TEXT_MOST]) if isinstance(value, str) and value else None


def at_once(
    slices: int,
    *,
    tokens: int | None,
    shown: bool,
    input_tokens: int | None = None,
    finish_reason: str | None = None,
) -> Answer:
    """An answer that is not a stream: all of its tokens arrive in one event, with the last slice.

    tokens: the server's count, None if it tells none. shown: whether there is any text.
    """
    told: Literal["per_event"] | None = None if tokens is None else "per_event"
    if tokens == 0 or (tokens is None and not shown):
        return Answer(input_tokens=input_tokens, output_tokens=tokens, finish_reason=finish_reason, error_kind="empty")
    return Answer(
        slice_of_event=[slices - 1],
        token_count=[tokens or 1],
        first_content=0 if shown else None,
        input_tokens=input_tokens,
        output_tokens=tokens,
        finish_reason=finish_reason,
        count_told=told,
    )
