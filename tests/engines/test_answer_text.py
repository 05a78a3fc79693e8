"""The text of an answer, to the character, however its bytes arrive."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engines import APIS
from harness.engines.answer_text import AnswerText

texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=12)


def event(document: dict[str, Any], blank: str = "\n\n", *, escaped: bool = False) -> bytes:
    return f"data: {json.dumps(document, ensure_ascii=escaped)}{blank}".encode()


def chunk(api: str, text: str) -> dict[str, Any]:
    if api == "tgi":
        return {"index": 1, "token": {"id": 5, "text": text, "special": False}, "generated_text": None}
    if api == "openai-chat":
        return {"choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}]}
    return {"choices": [{"index": 0, "text": text, "finish_reason": None}]}


def read(api: str, body: bytes, cuts: list[int], *, stream: bool = True) -> str:
    text, places = (
        AnswerText(APIS[api], stream=stream),
        sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)}),
    )
    for start, stop in pairwise(places):
        text.feed([body[start:stop]])
    return text.finish()


@pytest.mark.parametrize("api", APIS)
@given(pieces=texts, cuts=st.lists(st.integers(0, 5000), max_size=20), blank=st.sampled_from(["\n\n", "\r\n\r\n"]))
def test_pieces_are_joined_wherever_slices_begin(api: str, pieces: list[str], cuts: list[int], blank: str) -> None:
    """Whatever characters they hold, escaped or not, with comments and other events between them."""
    body = b": hello" + blank.encode()
    for number, piece in enumerate(pieces):
        body += event(chunk(api, piece), blank, escaped=number % 2 == 0)
    body += event({"choices": [], "usage": {"completion_tokens": 3}}, blank) + b"data: [DONE]" + blank.encode()
    assert read(api, body, cuts) == "".join(pieces)


@pytest.mark.parametrize("api", ["openai-chat", "openai-completions"])
def test_a_character_in_two_events_is_one_again(api: str) -> None:
    """JSON may write it as two escapes, and a server may cut between them."""
    halves = [event(chunk(api, "\ud83d"), escaped=True), event(chunk(api, "\ude00!"), escaped=True)]
    assert read(api, b"".join(halves), []) == "😀!"


def test_tgi_tells_the_whole_text_at_the_end() -> None:
    """Without its special tokens; pieces of a character that came as replacement characters are whole there."""
    last = {"token": {"text": "</s>", "special": True}, "generated_text": " a é", "details": {}}
    assert read("tgi", event(chunk("tgi", " a")) + event(chunk("tgi", "\ufffd")) + event(last), []) == " a é"
    cut = event(chunk("tgi", " a")) + event({"token": {"text": "</s>", "special": True}, "generated_text": None})
    assert read("tgi", cut, []) == " a"


@pytest.mark.parametrize("stream", [True, False])
def test_a_document_holds_it_all(stream: bool) -> None:
    """Also where a stream was asked for; reasoning is no part of it."""
    message = {"role": "assistant", "content": "Yes.\n", "reasoning_content": "hm"}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
    assert read("openai-chat", body, [3, 30], stream=stream) == "Yes.\n"
    assert read("tgi", b'{"generated_text": " b"}', [9], stream=stream) == " b"
    assert read("openai-chat", b"<html>", [2], stream=stream) == ""
