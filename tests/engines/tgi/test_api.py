"""TGI's own routes: what is asked, and what each kind of answer is."""

from __future__ import annotations

import json

import pytest

from harness.engines import APIS
from harness.engines.answer import ERROR_KINDS, Answer
from harness.workload.request import Request

API = APIS["tgi"]

TOKEN = (
    b'data:{"index":1,"token":{"id":5,"text":" a","logprob":-0.1,"special":false},'
    b'"generated_text":null,"details":null}\n\n'
)
MORE = TOKEN.replace(b'"index":1', b'"index":2').replace(b'" a"', b'"\\u00e9 \\"b\\""')
LAST = (
    b'data:{"index":3,"token":{"id":2,"text":"</s>","logprob":-1e-05,"special":true},"generated_text":" a b",'
    b'"details":{"finish_reason":"eos_token","generated_tokens":3,"seed":null,"input_length":12}}\n\n'
)


def stream(*slices: bytes, complete: bool = True, status: int = 200) -> Answer:
    return API.decode(status, slices, stream=True, complete=complete)


def test_a_request_is_greedy_and_asks_for_details() -> None:
    """Without a seed nothing but the length and the details is set, so that TGI decodes greedily."""
    call = API.encode(Request("Hä?", 2, 64), "run-7", "tgi", stream=True)
    assert (call.method, call.path) == ("POST", "/generate_stream")
    assert call.headers == {
        "content-type": "application/json",
        "accept": "text/event-stream",
        "x-request-id": "run-7",
    }
    assert json.loads(call.body) == {"inputs": "Hä?", "parameters": {"max_new_tokens": 64, "details": True}}


def test_a_seed_samples() -> None:
    """A seed without sampling would be ignored."""
    call = API.encode(Request("x", 1, 2, seed=9), "r", "tgi", stream=False)
    assert call.path == "/generate"
    assert call.headers["accept"] == "application/json"
    assert json.loads(call.body)["parameters"] == {
        "max_new_tokens": 2,
        "details": True,
        "do_sample": True,
        "seed": 9,
    }


def test_a_stream_is_counted_by_events_and_by_the_server() -> None:
    """One token an event; the end-of-sequence token counts; the totals are the server's own."""
    answer = stream(TOKEN, MORE, LAST)
    assert answer == Answer([0, 1, 2], [1, 1, 1], 0, 12, 3, "eos_token", None, 0, "per_event")


def test_glued_and_torn_events_are_placed_by_their_last_byte() -> None:
    """An event belongs to the slice that completes it; two in one slice are one glued event."""
    body = TOKEN + MORE + LAST
    answer = stream(body[:10], body[10 : len(TOKEN) - 1], body[len(TOKEN) - 1 :])
    assert answer.slice_of_event == [2, 2, 2]
    assert answer.glued_events == 2


def test_text_decides_the_first_content() -> None:
    """A piece of a character has no text yet, and a special token's text is not shown to anyone."""
    empty = TOKEN.replace(b'" a"', b'""')
    special = TOKEN.replace(b"false", b"true")
    assert stream(empty, special, MORE, LAST).first_content == 2
    assert stream(LAST).first_content is None
    assert stream(LAST).error_kind is None


def test_line_ends_comments_spaces_and_split_data_are_read_as_the_standard_says() -> None:
    """CRLF, keep-alives, a space behind `data:`, fields of no concern, and data over several lines."""
    spaced = LAST.replace(b"data:", b"data: ").replace(b"\n", b"\r\n").replace(b'"details"', b'\r\ndata: "details"')
    body = b": \n\n" + b"event: message\nid: 1\nretry: 9\n" + TOKEN + b":\n\n" + MORE + spaced
    answer = stream(body)
    assert answer.token_count == [1, 1, 1]
    assert (answer.error_kind, answer.output_tokens) == (None, 3)


ERROR = b'data:{"error":"%s","error_type":"%s"}\n\n'


@pytest.mark.parametrize(
    ("slices", "complete", "kind"),
    [
        # An error event inside a stream with status 200, before and after tokens.
        ([ERROR % (b"Model is overloaded", b"overloaded")], True, "overloaded"),
        ([ERROR % (b"Input validation error: `inputs` cannot be empty", b"validation")], True, "validation"),
        ([TOKEN, ERROR % (b"Request failed during generation: Server error: x", b"generation")], True, "generation"),
        ([TOKEN, ERROR % (b"Incomplete generation stream", b"incomplete_generation_stream")], True, "incomplete"),
        ([TOKEN, b'data:{"error":"something new"}\n\n'], False, "generation"),
        ([TOKEN, b'event: error\ndata: {"message":"x"}\n\n'], True, "generation"),
        # The connection ended, in an event or between two.
        ([TOKEN, MORE[:20]], False, "stream_broken"),
        ([TOKEN, MORE], False, "stream_broken"),
        ([], False, "stream_broken"),
        ([TOKEN, MORE[:20]], True, "stream_broken"),
        # The answer ended properly, but without its last message.
        ([TOKEN, MORE], True, "incomplete"),
        ([], True, "empty"),
        ([b":\n\n"], True, "empty"),
        ([b"data: [DONE]\n\n"], True, "empty"),
        # No answer of this API.
        ([b"data: {oops\n\n", TOKEN], True, "protocol"),
        ([b"data: [1]\n\n"], True, "protocol"),
        ([b"<html>It works!</html>"], True, "protocol"),
        ([b'data: {"hello": 1}\n\n'], True, "protocol"),
        ([b'{"hello": 1}'], True, "protocol"),
    ],
)
def test_each_way_to_fail_has_its_kind(slices: list[bytes], complete: bool, kind: str) -> None:
    """A status of 200 says nothing; the events and the end of the body do."""
    answer = stream(*slices, complete=complete)
    assert answer.error_kind == kind
    assert kind in ERROR_KINDS


def test_tokens_before_a_failure_are_kept() -> None:
    """What came before an error event did come."""
    answer = stream(TOKEN, MORE, ERROR % (b"x", b"generation"))
    assert answer.token_count == [1, 1]


def test_a_last_event_without_its_blank_line_counts_when_the_body_ended() -> None:
    """Some servers close the body right behind the data."""
    assert stream(TOKEN, LAST.rstrip()).error_kind is None
    assert stream(TOKEN, LAST.rstrip()).slice_of_event == [0, 1]


def test_a_finished_answer_needs_no_proper_end_of_body() -> None:
    """All was said; that the connection broke behind it changes nothing."""
    assert stream(TOKEN, LAST, complete=False).error_kind is None


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, b'{"error":"Model is overloaded","error_type":"overloaded"}', "overloaded"),
        (429, b"", "overloaded"),
        (422, b'{"error":"Input validation error: x","error_type":"validation"}', "validation"),
        (422, b"Failed to deserialize the JSON body into the target type: x", "validation"),
        (400, b"Failed to parse the request body as JSON", "validation"),
        (413, b"", "validation"),
        (415, b"", "validation"),
        (424, b'{"error":"Request failed during generation: x","error_type":"generation"}', "generation"),
        (424, b"", "generation"),
        (500, b'{"error":"Incomplete generation","error_type":"incomplete_generation"}', "incomplete"),
        (500, b'{"error":"injected","error_type":"generation"}', "generation"),
        (401, b"", "http"),
        (404, b"", "http"),
        (502, b"<html>Bad Gateway</html>", "http"),
        (302, b"", "http"),
        (503, b'{"error":"unhealthy","error_type":"healthcheck"}', "http"),
    ],
)
def test_each_status_has_its_kind(status: int, body: bytes, kind: str) -> None:
    """The JSON says it best, then the status; streamed or not makes no difference."""
    assert stream(body, status=status).error_kind == kind
    assert API.decode(status, [body], stream=False, complete=True).error_kind == kind


WHOLE = b'{"generated_text":" a b","details":{"finish_reason":"length","generated_tokens":2,"seed":null,"tokens":[]}}'


@pytest.mark.parametrize(
    ("body", "complete", "expected"),
    [
        (WHOLE, True, Answer([1], [2], 0, None, 2, "length", None, 0, "per_event")),
        (WHOLE, False, Answer(error_kind="stream_broken")),
        (b"", True, Answer(error_kind="empty")),
        (b"oops", True, Answer(error_kind="protocol")),
        (b"{}", True, Answer(error_kind="protocol")),
        (
            b'{"error":"Model is overloaded"}',
            True,
            Answer(error_kind="overloaded", error_message="Model is overloaded"),
        ),
        (b'{"generated_text":"","details":{"generated_tokens":0}}', True, Answer(output_tokens=0, error_kind="empty")),
    ],
)
def test_an_answer_at_once_is_one_event(body: bytes, complete: bool, expected: Answer) -> None:
    """Without streaming all tokens arrive together, with the last slice."""
    half = len(body) // 2
    assert API.decode(200, [body[:half], body[half:]], stream=False, complete=complete) == expected


def test_one_document_instead_of_a_stream_is_an_answer_that_did_not_stream() -> None:
    """Its counts and its end are those of a whole answer; an error in it is that error."""
    answer = API.decode(200, [b"\n", WHOLE[:20], WHOLE[20:]], stream=True, complete=True)
    assert answer == Answer([2], [2], 0, None, 2, "length", None, 0, "per_event", streamed=False)
    refused = API.decode(200, [b'{"error":"Model is overloaded"}'], stream=True, complete=True)
    assert refused.error_kind == "overloaded"
    assert API.decode(200, [WHOLE[:20]], stream=True, complete=False).error_kind == "stream_broken"
