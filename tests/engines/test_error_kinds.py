"""Which kind of error an answer is, by its status and the server's own words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engines.answer import ERROR_KINDS
from harness.engines.error_kinds import error_kind, error_message, event_error_kind

BUSY = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
BACKLOG = "The engine has reached its prefill token backlog limit. Please try again later or on a different instance."
LOADING = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}


def openai(message: str, code: int = 503) -> dict[str, Any]:
    return {"error": {"message": message, "type": "ServiceUnavailableError", "param": None, "code": code}}


@pytest.mark.parametrize(
    ("status", "document", "kind"),
    [
        (503, openai(BUSY), "overloaded"),
        (503, openai(BACKLOG), "overloaded"),
        (503, {"object": "error", "message": "The request queue is full.", "code": 503}, "overloaded"),
        (503, openai("Server overloaded, please retry"), "overloaded"),
        (503, {"error": "Model is overloaded", "error_type": "overloaded"}, "overloaded"),
        (503, {"detail": "Too many requests are waiting"}, "overloaded"),
        (503, LOADING, "not_ready"),
        (503, {"error": "model is loading"}, "not_ready"),
        (503, openai("The engine process is dead"), "http"),
        (503, {}, "http"),
        (500, openai("The request queue is full."), "http"),  # not what it says of itself by its status
        (429, openai(BUSY, 429), "overloaded"),
        (429, {}, "overloaded"),
        (400, openai("Loading model failed", 400), "validation"),
        (404, {"detail": "Not Found"}, "http"),
    ],
)
def test_a_refusal_is_told_by_its_status_and_its_words(status: int, document: dict[str, Any], kind: str) -> None:
    """vLLM and SGLang turn away with 503 what TGI turns away with 429; llama.cpp says 503 until it is loaded."""
    assert error_kind(status, json.dumps(document).encode()) == kind
    assert kind in ERROR_KINDS


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"upstream connect error or disconnect/reset before headers", "http"),
        (b"<html>503 Service Temporarily Unavailable: server too busy</html>", "overloaded"),
        (b"\xff\xfe", "http"),
        (b"", "http"),
    ],
)
def test_a_refusal_without_json_is_told_by_its_text(body: bytes, kind: str) -> None:
    """Proxies answer for a service in pages of their own."""
    assert error_kind(503, body) == kind


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (openai("The request queue is full."), "overloaded"),  # SGLang's, inside a stream that began with 200
        (openai("The request is aborted by a higher priority request."), "overloaded"),
        (openai("out of memory", 500), "generation"),
        (openai("something else"), "generation"),
    ],
)
def test_an_error_within_a_stream_is_told_by_its_code_and_its_words(payload: dict[str, Any], kind: str) -> None:
    """The status was sent before."""
    assert event_error_kind(payload) == kind


@given(
    st.sampled_from([400, 404, 413, 422, 424, 429, 500, 502, 503, 504]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("queue is full"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "message", "code", "type", "detail", "status"]), inner, max_size=4
            )
        ),
        max_leaves=8,
    ),
)
def test_no_document_is_too_odd_for_a_kind(status: int, document: Any) -> None:
    """Whatever stands where."""
    assert error_kind(status, json.dumps(document).encode()) in ERROR_KINDS
    if isinstance(document, dict):
        assert event_error_kind(document) in ERROR_KINDS


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no such model", "code": 404}}', "no such model"),
        (b'{"error": "Model is overloaded", "error_type": "overloaded"}', "Model is overloaded"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"detail": [{"loc": ["body"], "msg": "field required"}]}', "field required"),
        (b"<html><head><title>502 Bad Gateway</title></head>", "502 Bad Gateway"),
        (b"upstream connect error\r\nreset", "upstream connect error reset"),
        (b'{"message": "key hf_abcdefghij is wrong\\u001b[2J"}', "key [REDACTED] is wrong\\x1b[2J"),
        (b"", None),
        (b"{}", None),
        (b'{"error": {"message": 5}}', None),
        (b"<html></html>", None),
    ],
)
def test_the_services_own_words_are_found(body: bytes, message: str | None) -> None:
    """Wherever they stand; on one line, without secrets and control codes."""
    assert error_message(body) == message


def test_a_long_message_is_cut() -> None:
    """It stands in every report."""
    assert len(error_message(b"x" * 100_000) or "") == 300
