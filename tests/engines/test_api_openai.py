"""The OpenAI routes: what is asked, and how the chunks of different engines are counted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from harness.engines import APIS
from harness.engines.answer import Answer
from harness.workload.request import Request

CHAT = APIS["openai-chat"]
COMPLETIONS = APIS["openai-completions"]
DONE = b"data: [DONE]\n\n"


def event(document: Any) -> bytes:
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def chat(content: str | None = None, reason: str | None = None, **more: Any) -> bytes:
    """A chunk of a chat; more: further members of it, or of its delta as `delta`, or of its choice as `choice`."""
    delta = {**({} if content is None else {"content": content}), **more.pop("delta", {})}
    choice = {"index": 0, "delta": delta, "finish_reason": reason, **more.pop("choice", {})}
    return event({"id": "", "object": "chat.completion.chunk", "created": 1, "choices": [choice], **more})


def usage(completion: int, prompt: int = 9) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return event({"id": "", "choices": [], "usage": counts})


def read_chat(*slices: bytes, complete: bool = True) -> Answer:
    return CHAT.decode(200, slices, stream=True, complete=complete)


def read_completions(*slices: bytes) -> Answer:
    return COMPLETIONS.decode(200, slices, stream=True, complete=True)


def test_a_chat_asks_for_usage_and_for_nothing_that_tgi_refuses() -> None:
    """Greedy is temperature 0; top_p, n, stop and the like are left out."""
    call = CHAT.encode(Request("Hi", 1, 5), "r-1", "tgi", stream=True)
    assert (call.path, call.headers["x-request-id"]) == ("/v1/chat/completions", "r-1")
    assert json.loads(call.body) == {
        "model": "tgi",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 5,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_without_streaming_no_stream_options_are_sent() -> None:
    """Servers refuse stream_options without stream."""
    call = COMPLETIONS.encode(Request("Hi", 1, 5, seed=3), "r-1", "m", stream=False)
    assert call.path == "/v1/completions"
    assert json.loads(call.body) == {"model": "m", "prompt": "Hi", "max_tokens": 5, "temperature": 1.0, "seed": 3}


def test_tgi_counts_its_empty_end_of_sequence_chunk() -> None:
    """TGI's last chunk of a stopped answer has no text but is a token, as its usage confirms."""
    answer = read_chat(chat(" a"), chat(" b"), chat("", "stop"), usage(3), DONE)
    assert answer == Answer([0, 1, 2], [1, 1, 1], 0, 9, 3, "stop", None, 0, "per_event")


def test_a_role_chunk_and_a_bare_finish_chunk_are_no_tokens() -> None:
    """Other engines open with a role and close with a reason; usage shows that both are empty."""
    slices = [chat("", delta={"role": "assistant"}), chat("a"), chat("b"), chat(None, "length"), usage(2), DONE]
    answer = read_chat(*slices)
    assert answer.slice_of_event == [1, 2]
    assert answer.first_content == 0


def test_a_first_token_that_is_half_a_character_is_a_token() -> None:
    """TGI's chunks all name a role; only the server's count tells, and it is not the first content."""
    role = {"role": "assistant"}
    slices = [chat("", delta=role), chat("é", delta=role), chat("b", "length", delta=role), usage(3), DONE]
    answer = read_chat(*slices)
    assert answer.token_count == [1, 1, 1]
    assert answer.first_content == 1


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_without_usage_a_bare_finish_chunk_is_no_token(reason: str) -> None:
    """It may come long after the last token, and nothing says that it holds one."""
    answer = read_chat(chat("a"), chat(None, reason), DONE)
    assert (answer.slice_of_event, answer.output_tokens, answer.count_told) == ([0], None, None)


def test_several_tokens_in_one_chunk_are_counted_where_the_server_says_so() -> None:
    """By log-probabilities, by token ids, or by a usage that runs along with the chunks."""
    listed = {"logprobs": {"content": [{"token": "a"}, {"token": "b"}]}}
    assert read_chat(chat("ab", choice=listed), chat("c", "length"), usage(3), DONE).token_count == [2, 1]
    ids = {"token_ids": [1, 2, 3]}
    assert read_chat(chat("abc", choice=ids), chat("d", "length"), usage(4), DONE).token_count == [3, 1]
    running = [chat("a", usage={"completion_tokens": 1}), chat("bcd", usage={"completion_tokens": 4})]
    assert read_chat(*running, chat("e", "length", usage={"completion_tokens": 5}), DONE).token_count == [1, 3, 1]


def test_thoughts_and_tool_calls_are_content() -> None:
    """What a model thinks, or passes to a tool, is generated like the rest."""
    thought = chat(None, delta={"reasoning_content": "hm"})
    call = chat(None, delta={"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]})
    assert read_chat(thought, call, chat("a", "stop"), usage(3), DONE).first_content == 0


def completion(text: str, reason: str = "", **more: Any) -> bytes:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
    return event({"id": "", "object": "text_completion", "created": 1, "choices": [choice], **more})


def test_completions_of_tgi_finish_with_the_last_token_and_the_usage_in_one_chunk() -> None:
    """An empty finish reason is none; a piece of a character is an empty chunk that counts."""
    counts = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
    answer = read_completions(completion(""), completion("é"), completion("</s>", "eos_token", usage=counts), DONE)
    assert answer == Answer([0, 1, 2], [1, 1, 1], 1, 4, 3, "eos_token", None, 0, "per_event")


@pytest.mark.parametrize(
    ("slices", "complete", "kind"),
    [
        # TGI's error event always says 422, so its text decides.
        ([event({"error": {"message": "Model is overloaded", "http_status_code": 422}}), DONE], True, "overloaded"),
        ([event({"error": {"message": "Input validation error: x", "http_status_code": 422}})], True, "validation"),
        (
            [chat("a"), event({"error": {"message": "Request failed during generation: x", "http_status_code": 422}})],
            True,
            "generation",
        ),
        ([event({"error": {"message": "x", "type": "server_error", "code": 500}}), DONE], True, "generation"),
        ([event({"error": {"message": "x", "code": 400}}), DONE], True, "validation"),
        ([event({"error": {"message": "x", "code": 429}}), DONE], True, "overloaded"),
        # A tool call that did not fit: TGI says nothing but [DONE].
        ([DONE], True, "empty"),
        ([chat("", delta={"role": "assistant"}), chat(None, "length"), DONE], True, "empty"),
        ([b": ping\r\n\r\n", DONE], True, "empty"),
        ([chat("a"), chat("b")], False, "stream_broken"),
        ([chat("a"), chat("b", "length")], False, "stream_broken"),
        ([chat("a"), chat("b", "length")], True, None),
        ([chat("a"), chat("b", "length"), DONE], False, None),
        ([chat("a"), DONE], True, "incomplete"),
        ([chat("a")], True, "incomplete"),
        ([b"data: nonsense\n\n", DONE], True, "protocol"),
        ([event({"object": "what"})], True, "protocol"),
    ],
)
def test_each_way_to_end_has_its_kind(slices: list[bytes], complete: bool, kind: str | None) -> None:
    """The last message is [DONE] behind a finish reason, or a finish reason and the end of the body."""
    assert read_chat(*slices, complete=complete).error_kind == kind


def test_null_members_are_no_errors() -> None:
    """Some servers send `error: null` and `usage: null` in every chunk."""
    answer = read_chat(chat("a", error=None, usage=None), chat("b", "length", error=None, usage=None), DONE)
    assert answer.error_kind is None
    assert answer.token_count == [1, 1]


def whole(message: Any, tokens: int | None = 2) -> bytes:
    counts = None if tokens is None else {"prompt_tokens": 9, "completion_tokens": tokens}
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": counts}).encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (whole({"content": "a b"}), Answer([0], [2], 0, 9, 2, "stop", None, 0, "per_event")),
        (whole({"content": ""}, 0), Answer([], [], None, 9, 0, "stop", "empty", 0)),
        (whole({"content": "a"}, None), Answer([0], [1], 0, None, None, "stop", None, 0)),
        (b'{"choices":[]}', Answer(error_kind="protocol")),
        (b'{"error":{"message":"x","code":429}}', Answer(error_kind="overloaded", error_message="x")),
    ],
)
def test_an_answer_at_once_is_one_event(body: bytes, expected: Answer) -> None:
    """Counts are the usage's; where it comes though a stream was asked for, it says so."""
    assert CHAT.decode(200, [body], stream=False, complete=True) == expected
    expected.streamed = False
    assert CHAT.decode(200, [b"", body], stream=True, complete=True) == _moved(expected)


def _moved(answer: Answer) -> Answer:
    """The same one slice later."""
    return replace(answer, slice_of_event=[each + 1 for each in answer.slice_of_event])
