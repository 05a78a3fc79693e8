"""The error kind of a refusal or failure, from its status and JSON body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.engines.answer import Answer
from harness.engines.payload import json_object
from harness.redaction import redact
from harness.text import one_line

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


def refusal(http_status: int, body: bytes) -> Answer:
    """What an answer says whose status is not success."""
    return Answer(error_kind=error_kind(http_status, body), error_message=error_message(body))


def error_kind(http_status: int, body: bytes) -> str:
    """The kind of an answer whose status is not success."""
    payload = json_object(body)
    told = None if payload is None else _told(payload) or _unavailable(http_status, payload)
    if payload is None and http_status == 503:
        told = _by_words(body[:_TEXT_MOST].decode("utf-8", "replace"))
    return told or _by_status(http_status) or "http"


_MESSAGE_MOST = 300  # characters of a message that are kept
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>|<h1[^>]*>(.*?)</h1>", re.IGNORECASE | re.DOTALL)


def error_message(body: bytes) -> str | None:
    """The service's own sentence in the body of an error: a member of its JSON, the title of a page, or the text
    itself; cut, on one line, without control codes and secrets. None where there is none.
    """
    payload = json_object(body)
    if payload is not None:
        return event_error_message(payload)
    text = body[:_TEXT_MOST].decode("utf-8", "replace").strip()
    if text[:1] == "<":
        title = _TITLE.search(text)
        text = (title[1] or title[2] or "") if title else ""
    return _kept(text)


def event_error_message(payload: Mapping[str, Any]) -> str | None:
    """The same of an error that came as JSON: OpenAI's `error.message`, TGI's `error`, FastAPI's `detail`."""
    error = payload.get("error")
    details: Mapping[str, Any] = error if isinstance(error, dict) else payload
    for found in (details.get("message"), error, payload.get("detail"), payload.get("title")):
        if isinstance(found, list) and found and isinstance(found[0], dict):  # a list of what is wrong, by place
            found = found[0].get("msg")
        if isinstance(found, str) and (kept := _kept(found)):
            return kept
    return None


def _kept(text: str) -> str | None:
    line = one_line(redact(text.strip()))
    return (line if len(line) <= _MESSAGE_MOST else f"{line[: _MESSAGE_MOST - 1]}…") or None


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
