"""Which error kind a refusal or a failure is, from its status and the JSON that came with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.engines.payload import json_object

# TGI's error types (router/src/server.rs:2404-2437, router/src/infer/mod.rs:408-443).
_TYPES = {
    "overloaded": "overloaded",
    "validation": "validation",
    "template_error": "validation",
    "missing_template_variable": "validation",
    "tool_error": "validation",
    "generation": "generation",
    "incomplete_generation": "incomplete",
    "incomplete_generation_stream": "incomplete",
}
# Their texts: an OpenAI-style stream of TGI calls every error 422, so that only the text tells (infer/mod.rs:445-455).
_TEXTS = {
    "Model is overloaded": "overloaded",
    "Input validation error": "validation",
    "Template error": "validation",
    "Missing template vatiable": "validation",  # sic
    "Tool error": "validation",
    "Request failed during generation": "generation",
    "Incomplete generation": "incomplete",
}


def error_kind(http_status: int, body: bytes) -> str:
    """The kind of an answer whose status is no success."""
    payload = json_object(body)
    told = _told(payload) if payload is not None else None
    return told or _by_status(http_status) or "http"


def event_error_kind(payload: Mapping[str, Any]) -> str:
    """The kind of an error that came as JSON with status 200; `generation` where it does not say more."""
    told = _told(payload)
    if told is not None:
        return told
    error = payload.get("error")
    details = error if isinstance(error, dict) else payload
    for key in ("http_status_code", "code", "status"):
        kind = _by_status(details.get(key))
        if kind is not None:
            return kind
    return "generation"


def _told(payload: Mapping[str, Any]) -> str | None:
    """By TGI's own error type or text."""
    error = payload.get("error")
    details: Mapping[str, Any] = error if isinstance(error, dict) else payload
    for word in (payload.get("error_type"), details.get("type")):
        if isinstance(word, str) and word in _TYPES:
            return _TYPES[word]
    for text in (error, details.get("message")):
        for beginning, kind in _TEXTS.items():
            if isinstance(text, str) and text.startswith(beginning):
                return kind
    return None


def _by_status(status: Any) -> str | None:
    if status == 429:
        return "overloaded"
    if status in (400, 413, 415, 422):
        return "validation"
    return "generation" if status == 424 else None
