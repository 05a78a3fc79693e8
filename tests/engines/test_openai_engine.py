"""OpenAI's routes as engines share them: who is served, one token, errors in every form."""

from __future__ import annotations

from typing import Any

import pytest

from harness.engines.client import Reply
from harness.engines.openai_engine import error_text, generate_once, is_emulated, served_models
from tests.engines.pages import serving

CHAT, BARE = "POST /v1/chat/completions", "POST /v1/completions"


def completion(**first: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, **first}], "usage": {"completion_tokens": 1, "prompt_tokens": 2}}


def test_models_are_listed_with_what_stands_behind_them() -> None:
    """Entries keep their order; such that have no id are left out."""
    entry = {"id": "chat", "owned_by": "vllm", "root": "org/model", "max_model_len": 4096}
    with serving({"GET /v1/models": {"data": [entry, {"id": ""}, "x", {"id": "other"}]}}) as pages:
        first, second = served_models(pages.client())
    assert (first.name, first.owner, first.root, first.longest) == ("chat", "vllm", "org/model", 4096)
    assert (second.name, second.owner, second.longest) == ("other", None, None)


@pytest.mark.parametrize("page", [{}, {"data": {}}, [], (500, {"data": [{"id": "a"}]}), "no JSON"])
def test_page_that_lists_nothing(page: Any) -> None:
    """Other documents, other statuses and other bodies list no model."""
    with serving({"GET /v1/models": page}) as pages:
        assert served_models(pages.client()) == ()


def test_emulator_says_so_in_a_header() -> None:
    """The mark is read whatever its letters' case, and its absence means a real engine."""
    with serving({"GET /v1/models": {}}, {"X-Harness-Emulator": "1"}) as pages:
        assert is_emulated(pages.client())
    with serving({"GET /v1/models": {}}) as pages:
        assert not is_emulated(pages.client())


def test_one_token_is_asked_of_the_bare_route() -> None:
    """The model is named as it is served, and one token is all that is asked for."""
    posted: list[Any] = []

    def answer(document: Any) -> tuple[int, Any]:
        posted.append(document)
        return 200, completion(text="", finish_reason="length")  # an end token has no text

    with serving({BARE: answer}) as pages:
        assert generate_once(pages.client(), "chat", 5) is None
    assert (posted[0]["model"], posted[0]["max_tokens"]) == ("chat", 1)


def test_chat_route_is_asked_where_the_bare_one_is_not_served() -> None:
    """A 404 of the first route says nothing about the model."""
    with serving({CHAT: completion(message={"content": "a"})}) as pages:
        assert generate_once(pages.client(), "chat", 5) is None
        assert pages.asked == [BARE, CHAT]


@pytest.mark.parametrize(
    ("page", "told"),
    [
        (
            (500, {"error": {"message": "EngineCore encountered an issue."}}),
            "HTTP 500: EngineCore encountered an issue.",
        ),
        ({"choices": []}, "HTTP 200: "),
        ({**completion(), "usage": {"completion_tokens": 0}}, "HTTP 200: "),
        ((404, {"error": {"message": "The model `x` does not exist."}}), "HTTP 404: "),
    ],
)
def test_answer_without_a_token_is_told(page: Any, told: str) -> None:
    """An error, an answer without choices and one of no tokens are each no first answer."""
    with serving({BARE: page}) as pages:
        said = generate_once(pages.client(), "x", 5)
    assert said is not None
    assert told in said


def test_silence_is_told() -> None:
    """A service that went away is no reason for a traceback."""
    with serving({}) as pages:
        client = pages.client()
    assert generate_once(client, "x", 2) == "no answer (connection refused)"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":{"message":"too long","code":400}}', "too long"),
        (b'{"object":"error","message":"too long","code":400}', "too long"),
        (b'{"error":"Unauthorized"}', "Unauthorized"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b"Internal\nServer Error", "Internal Server Error"),
        (b"", "an empty body"),
    ],
)
def test_error_is_read_in_every_form(body: bytes, text: str) -> None:
    """Nested, flat, as a string, as FastAPI has it, and no JSON at all: one line each."""
    assert error_text(Reply(400, {}, body)) == f"HTTP 400: {text}"
