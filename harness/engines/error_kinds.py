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


_WORDS_MOST = 300  # characters of a server's words that are shown
_TEXT_MOST = 4096  # characters of a message that are looked at
# What 503 means, by words of its text. vLLM 0.32 turns requests away with "The engine is currently busy ..." and "...
# has reached its prefill token backlog limit" (vllm/exceptions.py), SGLang 0.5 with "The request queue is full.", "The
# request is aborted by a higher priority request." and "Request waiting timeout reached." (srt/managers/scheduler.py),
# proxies in words of their own; llama.cpp answers "Loading model" until it is loaded (tools/server/server.cpp).
_UNAVAILABLE = {
    "not_ready": ("loading model", "model is loading", "still loading", "not ready", "starting up", "warming up"),
    "overloaded": (
        "queue is full", "queue full", "overload", "currently busy", "too busy", "backlog limit", "too many requests",
        "higher priority request", "waiting timeout", "at capacity", "no available capacity",
    ),
}  # fmt: skip


def error_kind(http_status: int, body: bytes) -> str:
    """The kind of an answer whose status is no success."""
    payload = json_object(body)
    told = None if payload is None else _told(payload) or _unavailable(http_status, payload)
    if payload is None and http_status == 503:
        told = _by_words(body[:_TEXT_MOST].decode("utf-8", "replace"))
    return told or _by_status(http_status) or "http"


def event_error_kind(payload: Mapping[str, Any]) -> str:
    """The kind of an error that came as JSON with status 200; `generation` where it does not say more."""
    told = _told(payload)
    if told is not None:
        return told
    error = payload.get("error")
    details = error if isinstance(error, dict) else payload
    for key in ("http_status_code", "code", "status"):
        status = details.get(key)
        kind = _unavailable(status, payload) or _by_status(status)
        if kind is not None:
            return kind
    return "generation"


def error_words(body: bytes) -> str | None:
    """What a server says of a failure, in its own words, on one line: of a document, or of an event of a stream."""
    text = body.strip()
    payload: Any = json_object(text)
    if text.startswith((b"data:", b"event:", b"id:")):
        events = [json_object(line[5:]) for line in text.splitlines() if line.startswith(b"data:")]
        payload = next((each for each in reversed(events) if each is not None and each.get("error")), None)
        if payload is None:
            return None
    for key in ("error", "message", "detail"):
        if isinstance(payload, Mapping) and payload.get(key):
            payload = payload[key]
    words = payload if isinstance(payload, str) else text.decode("utf-8", "replace")
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())
    return plain[:_WORDS_MOST] or None


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


def _unavailable(status: Any, payload: Mapping[str, Any]) -> str | None:
    """What a 503 is about, by its words; None where they say neither."""
    if status not in (503, "503"):
        return None
    error = payload.get("error")
    details: Mapping[str, Any] = error if isinstance(error, dict) else payload
    texts = (error, details.get("message"), details.get("detail"))
    return next((kind for text in texts if isinstance(text, str) and (kind := _by_words(text[:_TEXT_MOST]))), None)


def _by_words(text: str) -> str | None:
    lowered = text.lower()
    return next((kind for kind, words in _UNAVAILABLE.items() if any(word in lowered for word in words)), None)


def _by_status(status: Any) -> str | None:
    if status == 429:
        return "overloaded"
    if status in (400, 413, 415, 422):
        return "validation"
    return "generation" if status == 424 else None
