"""How many tokens each event of an OpenAI-style stream holds, for servers that tell it in every way there is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engines.answer import Answer
from tests.engines.test_api_openai import CHAT, DONE, chat, completion, event, read_chat, read_completions, usage

ROLE = chat("", delta={"role": "assistant"})
END = chat(None, "length")
STOP = chat(None, "stop")


def told(tokens: int, **more: Any) -> dict[str, Any]:
    """`usage` of a chunk."""
    return {"usage": {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens, **more}}


def timings(tokens: int, **more: int) -> dict[str, Any]:
    """What llama.cpp adds to a chunk."""
    return {"timings": {"prompt_n": 7, "prompt_ms": 3.0, "predicted_n": tokens, "predicted_ms": 10.0, **more}}


def progress(done: int, text: str | None = None) -> bytes:
    """llama.cpp's chunk while it reads the prompt."""
    reading = {"total": 90, "cache": 0, "processed": done, "time_ms": 5}
    return chat(None, delta={"role": "assistant", "content": text}, prompt_progress=reading)


# name: (slices, events by slice, tokens of each, of the answer, how told)
STREAMS: dict[str, tuple[list[bytes], list[int], list[int], int | None, str | None]] = {
    "one token an event, told at the end": (
        [ROLE, chat("a"), chat("b"), END, usage(2), DONE], [1, 2], [1, 1], 2, "per_event",
    ),
    "four tokens an event, told at the end": (
        [ROLE, chat("a b c d"), chat("e f g h"), END, usage(8), DONE], [1, 2], [1, 1], 8, "per_answer",
    ),
    "told with the finish reason": (
        [ROLE, chat("a b"), chat("c d"), chat(None, "length", **told(4)), DONE], [1, 2], [1, 1], 4, "per_answer",
    ),
    "never told": ([ROLE, chat("a"), chat("b"), END, DONE], [1, 2], [1, 1], None, None),
    "a count of nothing for an answer with text": ([chat("a"), chat("b"), END, usage(0)], [0, 1], [1, 1], None, None),
    "told along, the role with none": (
        [chat("", delta={"role": "assistant"}, **told(0)), chat("a", **told(1)), chat("b c d", **told(4)),
         chat(None, "length", **told(4)), usage(4), DONE],
        [1, 2], [1, 3], 4, "per_event",
    ),
    "told along, the role with the first step's": (
        [chat("", delta={"role": "assistant"}, **told(3)), chat("a b c", **told(3)), chat("d", **told(4)), END, DONE],
        [1, 2], [3, 1], 4, "per_event",
    ),
    "the first event holds several": (
        [chat("a b c", **told(3)), chat("d", **told(4)), chat("e", "length", **told(5)), DONE],
        [0, 1, 2], [3, 1, 1], 5, "per_event",
    ),
    "told along, in chunks of their own": (
        [ROLE, chat("a b"), usage(2), chat("c d e"), usage(5), END, usage(5), DONE], [1, 3], [2, 3], 5, "per_event",
    ),
    "told along by every second event": (
        [chat("a"), chat("b", **told(2)), chat("c"), chat("d", **told(4)), END, DONE],
        [0, 1, 2, 3], [1] * 4, 4, "per_event",
    ),
    "told along by every second event that holds more": (
        [chat("a"), chat("b c", **told(3)), chat("d", **told(4)), END, DONE], [0, 1, 2], [1, 1, 1], 4, "per_answer",
    ),
    "one step as two events": (
        [chat("x", **told(1)), chat(None, delta={"reasoning_content": "y"}, **told(2)), chat("z", **told(2)),
         chat("w", **told(3)), END, usage(3), DONE],
        [0, 1, 3], [1, 1, 1], 3, "per_event",
    ),
    "counts one event behind": (
        [chat("a", **told(0)), chat("b", **told(1)), chat("c", **told(2)), END, usage(3), DONE],
        [0, 1, 2], [1, 1, 1], 3, "per_event",
    ),
    "a placeholder in every chunk": (
        [chat("a b", **told(0)), chat("c d", **told(0)), END, usage(4), DONE], [0, 1], [1, 1], 4, "per_answer",
    ),
    "counts of each chunk alone": (
        [*(chat("a", **told(1)) for _ in range(4)), END, usage(4), DONE], [0, 1, 2, 3], [1] * 4, 4, "per_event",
    ),
    "a count that goes down": ([chat("a", **told(2)), chat("b", **told(1)), END, DONE], [0, 1], [1, 1], 2, "per_event"),
    "cut while told along": ([chat("a b", **told(2)), chat("c", **told(3))], [0, 1], [2, 1], 3, "per_event"),
    "cut behind an event that was not told": ([chat("a", **told(1)), chat("b")], [0, 1], [1, 1], None, None),
    "an end-of-sequence token with the finish reason": (
        [chat("a", **told(1)), chat("b", **told(2)), chat(None, "stop", **told(3)), DONE],
        [0, 1, 2], [1, 1, 1], 3, "per_event",
    ),
    "an end-of-sequence token in the last count alone": (
        [chat("a", **told(1)), chat("b", "stop", **told(2)), usage(3), DONE], [0, 1], [1, 2], 3, "per_event",
    ),
    "a late finish chunk that brings nothing": (
        [chat("a", **told(1)), chat("b", **told(2)), chat("", "stop", **told(2)), DONE], [0, 1], [1, 1], 2, "per_event",
    ),
    "reasoning that nobody sees": (
        [ROLE, chat("a"), chat("b"), END, event({"choices": [], **told(502, completion_tokens_details={
            "reasoning_tokens": 500})}), DONE],
        [1, 2], [501, 1], 502, "per_event",
    ),
    "reasoning that is seen": (
        [ROLE, chat(None, delta={"reasoning": "h m"}), chat("b"), END, event({"choices": [], **told(
            3, completion_tokens_details={"reasoning_tokens": 2})}), DONE],
        [1, 2], [1, 1], 3, "per_answer",
    ),
    "llama.cpp's timings": (
        [progress(40), progress(90), chat(None, delta={"role": "assistant", "content": None}), chat("a", **timings(1)),
         chat("b c", **timings(3)), chat(None, "length", **timings(3)), DONE],
        [3, 4], [1, 2], 3, "per_event",
    ),
    "progress with an empty text is no token": (
        [progress(40, ""), progress(90, ""), chat("a"), chat("b c"), END, usage(3), DONE],
        [2, 3], [1, 1], 3, "per_answer",
    ),
    "llama.cpp's timings at the end": (
        [ROLE, chat("a b"), chat("c d"), chat(None, "length", **timings(4)), DONE], [1, 2], [1, 1], 4, "per_answer",
    ),
    "keep-alive chunks between": (
        [ROLE, chat("a"), chat(None), chat("b"), chat(None), END, usage(2), DONE], [1, 3], [1, 1], 2, "per_event",
    ),
    "a merged token is no role chunk": (
        [ROLE, chat("a"), chat("b c"), END, usage(3), DONE], [1, 2], [1, 1], 3, "per_answer",
    ),
    "more events than tokens": (
        [chat("a"), chat("-"), chat("b"), END, usage(2), DONE], [0, 1, 2], [1] * 3, 2, "per_answer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_each_way_to_tell_counts(name: str) -> None:
    """Events with tokens, what is known of how many each holds, and how that is known; glued or not."""
    slices, events, counts, total, how = STREAMS[name]
    answer = read_chat(*slices)
    assert (answer.slice_of_event, answer.token_count) == (events, counts)
    assert (answer.output_tokens, answer.count_told) == (total, how)
    assert answer.first_content == 0
    together = read_chat(b"".join(slices))
    assert (together.token_count, together.output_tokens, together.count_told) == (counts, total, how)


@pytest.mark.parametrize(
    ("slices", "total"),
    [
        ([ROLE, END, usage(12), DONE], 12),  # reasoning that is cut off before the first word
        ([ROLE, STOP, usage(1), DONE], 1),  # an end-of-sequence token alone
        ([chat("", **told(1)), chat("", **told(2)), STOP, DONE], 2),
        ([chat(None, delta={"role": "assistant"}), chat(None, "stop", **timings(3)), DONE], 3),
    ],
)
def test_tokens_that_are_all_invisible_make_an_answer(slices: list[bytes], total: int) -> None:
    """It is complete, with the server's count, and has no first token to show."""
    answer = read_chat(*slices)
    assert (answer.error_kind, answer.output_tokens, answer.first_content) == (None, total, None)


def test_llama_cpp_tells_the_prompt_with_what_was_cached() -> None:
    """`prompt_n` is only what had to be read."""
    assert read_chat(chat("a", "stop", **timings(1, cache_n=30)), DONE).input_tokens == 37


def test_completions_are_counted_alike() -> None:
    """The same rules for bare prompts."""
    slices = [completion("a b", **told(2)), completion("c", **told(3)), completion("", "length", **told(3)), DONE]
    answer = read_completions(*slices)
    assert (answer.slice_of_event, answer.token_count, answer.count_told) == ([0, 1], [2, 1], "per_event")


def test_the_share_of_the_first_event_is_that_of_its_text() -> None:
    """One word of nine in the first event, as with speculative decoding: by text, where no count tells."""
    slices = [ROLE, chat(" w"), *[chat(" w w w w")] * 2, END, usage(9), DONE]
    assert read_chat(*slices).first_share == pytest.approx(1 / 9, rel=0.02)


@given(
    st.lists(st.integers(1, 5), min_size=3, max_size=30),
    st.sampled_from(["", "reasoning_content"]),
    st.integers(1, 8),
)
def test_the_fast_way_and_the_slow_way_see_the_same_share(tokens: list[int], key: str, step: int) -> None:
    """Runs of like events are measured by their length, without being read."""
    chunks = [chat(None, delta={key: " w" * each}) if key else chat(" w" * each) for each in tokens]
    slices = [*chunks, END, usage(sum(tokens) + 40), DONE]
    for _ in range(2):  # the second time the form is known from the start
        body = b"".join(slices)
        whole = read_chat(body)
        parts = read_chat(*[body[at : at + 97 * step] for at in range(0, len(body), 97 * step)])
        each = read_chat(*slices)
        for answer in (whole, parts, each):
            assert answer.first_share == pytest.approx(tokens[0] / sum(tokens), rel=0.01)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=40), st.booleans(), st.booleans())
def test_counts_told_along_are_those_of_the_events(tokens: list[int], own: bool, role: bool) -> None:
    """Whatever each event holds, with the count in it or behind it: exactly that, and in all what was told last."""
    slices, so_far, at = ([ROLE] if role else []), 0, []
    for each in tokens:
        so_far += each
        at.append(len(slices))
        slices += [chat(" w", **told(so_far))] if own else [chat(" w"), usage(so_far)]
    answer = read_chat(*slices, END, usage(so_far), DONE)
    assert answer == Answer(at, tokens, 0, 9, so_far, "length", None, 0, "per_event")


ANY = [
    ROLE, chat("a"), chat(""), chat("b", **told(3)), chat("c", **told(5)), usage(4), STOP, END, progress(3),
    chat(None, **told(2)), usage(0), chat("d", **timings(9)),
]  # fmt: skip


def test_counts_told_along_are_known_before_the_end() -> None:
    """What a kill leaves of an answer has them: the first count is the first event's own, and a role is no event."""
    reading = CHAT.reading(200, stream=True)
    reading.feed([chat("", delta={"role": "assistant"}, **told(0)), chat("a b c", **told(3)), chat("d", **told(4))])
    first = reading.since(0)
    assert (list(first.slices), list(first.tokens)) == ([1, 2], [3, 1])
    reading.feed([chat("e f", **told(6)), chat("", **told(6))])
    more = reading.since(first.until)
    assert (list(more.slices), list(more.tokens)) == ([3], [2])
    plain = CHAT.reading(200, stream=True)
    plain.feed([chat("a b c", **told(3))])
    assert list(plain.since(0).tokens) == [3]


@given(st.lists(st.sampled_from(ANY), max_size=9), st.booleans())
def test_no_order_of_chunks_loses_the_first_text(slices: list[bytes], complete: bool) -> None:
    """Text is an event, whatever a server tells; no event without text is the first; no count is negative."""
    answer = read_chat(*slices, complete=complete)
    texts = [index for index, each in enumerate(slices) if b'"content":"a"' in each or b'"content":"b"' in each
             or b'"content":"c"' in each or b'"content":"d"' in each]  # fmt: skip
    if texts:
        assert answer.first_content is not None
        assert answer.slice_of_event[answer.first_content] == texts[0]
    else:
        assert answer.first_content is None
    assert all(count >= 1 for count in answer.token_count)
    assert answer.output_tokens is None or answer.output_tokens >= 0
