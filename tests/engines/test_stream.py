"""The fast reading of token streams against the slow one, over streams cut, glued and spoilt in every way."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engines import APIS
from harness.engines.stream import FormMemory, StreamFormat, StreamReading, read, to_answer
from harness.measure.record import from_first_text

texts = st.text(max_size=12)
small_numbers = st.integers(0, 10**9) | st.floats(-50, 0)


def tgi_token(index: int, text: str, *, special: bool = False, logprob: float = -0.5) -> dict[str, Any]:
    token = {"id": index + 7, "text": text, "logprob": logprob, "special": special}
    return {"index": index, "token": token, "generated_text": None, "details": None}


def tgi_final(index: int, text: str, answer: str) -> dict[str, Any]:
    details = {"finish_reason": "length", "generated_tokens": index, "seed": None, "input_length": 3}
    return {**tgi_token(index, text), "generated_text": answer, "details": details}


def chat_chunk(content: Any, *, reason: str | None = None, usage: Any = None, created: int = 1) -> dict[str, Any]:
    delta = {"role": "assistant", "content": content}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {"object": "chat.completion.chunk", "id": "", "created": created, "choices": [choice], "usage": usage}


def completion_chunk(text: Any, *, reason: str = "") -> dict[str, Any]:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
    return {"id": "", "object": "text_completion", "created": 5, "choices": [choice], "model": "m"}


payloads = st.one_of(
    st.builds(tgi_token, st.integers(0, 300), texts, special=st.booleans(), logprob=small_numbers),
    st.builds(tgi_final, st.integers(0, 300), texts, texts),
    st.builds(
        chat_chunk,
        texts | st.none(),
        reason=st.sampled_from([None, "stop", "length", ""]),
        usage=st.none() | st.fixed_dictionaries({"completion_tokens": st.integers(0, 9)}),
        created=st.integers(1, 3),
    ),
    st.builds(completion_chunk, texts, reason=st.sampled_from(["", "length"])),
    st.just({"error": "Model is overloaded", "error_type": "overloaded"}),
    st.just({"error": {"message": "Request failed during generation: x", "http_status_code": 422}}),
    st.just({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}),
)


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """One event in one of the ways in which servers write it, or something that is none."""
    end = draw(st.sampled_from(["\n\n", "\n\n", "\n\n", "\r\n\r\n", "\r\r", "\n\n\n"]))
    odd = draw(
        st.sampled_from(["", "", "", "", ": \n\n", ":\n\n", "id: 4\n", "data: [DONE]\n\n", "data:\n\n", "x\n\n"])
    )
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    text = json.dumps(draw(payloads), separators=separators, ensure_ascii=draw(st.booleans()))
    space = draw(st.sampled_from(["", " "]))
    return (odd + f"data:{space}{text}" + end).encode()


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A stream that repeats some events, so that forms are met again, with a few bytes changed or cut off."""
    body = b"".join(draw(st.lists(events(), max_size=4)) * draw(st.integers(1, 3)))
    if body and draw(st.booleans()):
        at = draw(st.integers(0, len(body) - 1))
        body = body[:at] + draw(st.binary(max_size=2)) + body[at + draw(st.integers(0, 2)) :]
    return body[: draw(st.integers(0, len(body)))] if draw(st.booleans()) else body


dialects = st.sampled_from(sorted(APIS))


@given(bodies(), dialects, st.booleans(), bodies())
def test_the_fast_way_reads_what_the_slow_way_reads(body: bytes, name: str, complete: bool, earlier: bytes) -> None:
    """Whatever the bytes, and whatever stream was read before, matching forms changes nothing."""
    stream_format: StreamFormat = APIS[name]  # type: ignore[assignment]
    memory = FormMemory()
    read(earlier, stream_format, complete=True, memory=memory)
    fast = read(body, stream_format, complete=complete, memory=memory)
    assert fast == read(body, stream_format, complete=complete, fast=False)


def cut(body: bytes, places: list[int]) -> list[bytes]:
    marks = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(marks)]


@given(bodies(), dialects, st.booleans(), st.lists(st.integers(0, 10**6), max_size=8))
def test_slicing_changes_only_where_events_arrived(body: bytes, name: str, complete: bool, places: list[int]) -> None:
    """The same bytes in other slices say the same, and each event lies in the slice that holds its last byte."""
    api = APIS[name]
    whole = api.decode(200, [body], stream=True, complete=complete)
    slices = cut(body, places)
    parts = api.decode(200, slices, stream=True, complete=complete)
    assert whole.token_count == parts.token_count
    assert (whole.first_content, whole.finish_reason) == (parts.first_content, parts.finish_reason)
    assert (whole.error_kind, whole.output_tokens) == (parts.error_kind, parts.output_tokens)
    by_byte = api.decode(200, [body[i : i + 1] for i in range(len(body))], stream=True, complete=complete)
    ends = [index + 1 for index in by_byte.slice_of_event]
    starts = [sum(map(len, slices[:index])) for index in range(len(slices))]
    for end, index in zip(ends, parts.slice_of_event, strict=True):
        assert starts[index] < end <= starts[index] + len(slices[index])
    assert parts.glued_events == len(parts.slice_of_event) - len(set(parts.slice_of_event))


@given(
    st.lists(texts, min_size=8, max_size=20),
    st.lists(st.integers(1, 4), min_size=20, max_size=20),
    st.lists(st.integers(0, 25), max_size=6),
    st.integers(0, 99),
    st.binary(max_size=3),
)
def test_counting_slices_reads_what_json_reads(
    words: list[str], glue: list[int], feeds: list[int], spoilt: int, byte: bytes
) -> None:
    """Slices that are whole events, some glued, perhaps one spoilt, fed in portions: as if each were read as JSON."""
    for name, event in (("tgi", tgi_token), ("openai-chat", None)):
        made = [event(i, word) if event else chat_chunk(word) for i, word in enumerate(words)]
        each = [b"data:" + json.dumps(one, separators=(",", ":")).encode() + b"\n\n" for one in made]
        if spoilt < len(each):
            each[spoilt] = each[spoilt].replace(b"null", byte, 1)
        slices = []
        while each:
            slices.append(b"".join(each[: glue[len(slices)]]))
            each = each[glue[len(slices) - 1] :]
        fast, slow = (StreamReading(APIS[name], fast=fast) for fast in (True, False))  # type: ignore[arg-type]
        slow.feed(slices)
        for start, end in pairwise([0, *sorted(feeds), len(slices)]):
            fast.feed(slices[start:end])
        fast_answer, slow_answer = fast.finish(complete=True), slow.finish(complete=True)
        assert fast_answer == slow_answer


@given(
    st.lists(st.tuples(texts, st.integers(0, 4)), min_size=4, max_size=20),
    st.sampled_from(["usage", "timings", "both"]),
    st.sampled_from([None, -1, 1.5, True, "7", 10**30, {"a": 1}]),
    st.integers(0, 40),
    st.lists(st.integers(0, 10**6), max_size=6),
)
def test_counts_in_every_event_are_read_alike(
    words: list[tuple[str, int]], where: str, odd: Any, spoilt: int, places: list[int]
) -> None:
    """The fast way through events that tell a count, one of them perhaps with something that is none, in any slices."""
    made, so_far = [], 0
    for number, (word, tokens) in enumerate(words):
        so_far += tokens
        count = odd if number == spoilt else so_far
        usage = {"prompt_tokens": 9, "completion_tokens": count, "total_tokens": 9 + so_far}
        chunk = chat_chunk(word, usage=usage if where != "timings" else None)
        if where != "usage":
            chunk["timings"] = {"prompt_n": 3, "prompt_ms": 1.5, "predicted_n": count, "predicted_ms": 0.5 * number}
        made.append(chunk)
    made.append(chat_chunk("", reason="stop", usage={"completion_tokens": so_far, "prompt_tokens": 9}))
    slices = cut(b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in made), places)
    memory = FormMemory()
    for _ in range(2):  # the second time with the form of the first
        fast = StreamReading(APIS["openai-chat"], memory)  # type: ignore[arg-type]
        slow = StreamReading(APIS["openai-chat"], fast=False)  # type: ignore[arg-type]
        fast.feed(slices)
        slow.feed(slices)
        assert fast.stream == slow.stream
        assert fast.finish(complete=True) == replace(slow.finish(complete=True), first_share=ANY)


@given(bodies(), st.lists(st.integers(0, 10**6), max_size=8))
def test_what_is_told_while_an_answer_comes_adds_up_to_it(body: bytes, places: list[int]) -> None:
    """Events that a kill leaves in the journal are those of the record that the answer would have had."""
    reading = APIS["tgi"].reading(200, stream=True)
    until, slices, tokens = 0, list[int](), list[int]()
    for piece in cut(body, places):
        reading.feed([piece])
        news = reading.since(until)
        until = max(until, news.until)
        slices += news.slices
        tokens += news.tokens
    answer = reading.finish(complete=False)
    at, count = from_first_text(list(map(float, answer.slice_of_event)), answer.token_count, answer.first_content)
    assert (slices, tokens) == (at[: len(slices)], count[: len(slices)])
    assert len(at) - len(slices) <= 1  # an event whose end is a line end in doubt


def test_a_run_of_like_events_is_not_read_one_by_one() -> None:
    """Of two hundred events of one form, all but the first and the last are matched by one call."""
    heard = 0

    class Counting(type(APIS["tgi"])):  # type: ignore[misc]
        def on_event(self, *arguments: Any) -> Any:
            nonlocal heard
            heard += 1
            return super().on_event(*arguments)

    payload = [tgi_token(index, f" w{index}") for index in range(1, 200)] + [tgi_final(200, " end", "all")]
    body = b"".join(b"data:" + json.dumps(each).encode() + b"\n\n" for each in payload)
    stream = read(body, Counting(), complete=True)
    assert len(stream.ends) == 200
    assert heard == 2


def test_a_run_of_counted_events_is_not_read_one_by_one() -> None:
    """Two hundred events that each tell a count: read as JSON are those that teach the form, and the last ones."""
    heard = 0

    class Counting(type(APIS["openai-chat"])):  # type: ignore[misc]
        def on_event(self, *arguments: Any) -> Any:
            nonlocal heard
            heard += 1
            return super().on_event(*arguments)

    counts = [
        {"prompt_tokens": 9, "completion_tokens": 2 * each, "total_tokens": 9 + 2 * each} for each in range(1, 201)
    ]
    body = b"".join(b"data: " + json.dumps(chat_chunk(" w", usage=each)).encode() + b"\n\n" for each in counts)
    stream = read(body, Counting(), complete=True)
    assert stream.counts == [2] * 200
    assert stream.output_tokens == 400
    assert heard == 2


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n"])
def test_event_ends_are_offsets_behind_the_blank_line(blank: bytes) -> None:
    """Each event ends where its blank line ends, in the fast way too."""
    each = [b"data: " + json.dumps(tgi_token(index, "é")).encode() + blank for index in range(1, 8)]
    stream = read(b"".join(each), APIS["tgi"], complete=False)  # type: ignore[arg-type]
    assert list(stream.ends) == [sum(map(len, each[: index + 1])) for index in range(7)]
    assert to_answer(stream, stream.ends, complete=False).slice_of_event == list(range(7))


@pytest.mark.parametrize("text", [b"\xff", b"\t", b"\\x", b'"', b"\\u12g4", b"\\"])
def test_a_like_event_that_is_no_json_is_noticed(text: bytes) -> None:
    """The form admits neither bad UTF-8 nor control characters nor escapes that JSON does not know."""
    good = b"data:" + json.dumps(tgi_token(1, "MARK")).encode() + b"\n\n"
    answer = APIS["tgi"].decode(200, [good, good, good.replace(b"MARK", text)], stream=True, complete=True)
    assert answer.error_kind == "protocol"
    assert answer.token_count == [1, 1]
