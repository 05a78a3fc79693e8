"""Answers longer than 1024 tokens: chunks, limits, and how many tokens come in the end."""

from __future__ import annotations

import pytest

from harness.simulator.continuation import LengthLimits, TooLong, chunk_length, first_chunk, next_chunk

LIMITS = LengthLimits(max_input_tokens=2048, max_total_tokens=4096)


def produced(limits: LengthLimits, requested: int | None, input_tokens: int, truncate: int | None = None) -> int:
    """Tokens of an answer that never ends by itself."""
    answer, chunk = first_chunk(limits, requested, input_tokens)
    length = input_tokens
    while True:
        length += chunk
        grown = length if truncate is None else min(length, truncate)
        answer, more = next_chunk(answer, "length", chunk, grown)
        if more is None:
            return answer.produced
        chunk = more


@pytest.mark.parametrize(
    ("requested", "input_tokens", "tokens"),
    [
        (100, 10, 100),
        (1024, 10, 1024),
        (1025, 10, 2048),  # the last chunk is not shortened
        (1500, 10, 2048),
        (2000, 13, 2048),
        (2000, 1321, 1024),  # the grown prompt exceeds max_input_tokens: it ends there, with `length`
        (None, 82, 2048),
        (None, 1321, 1024),
        (100_000, 10, 2048),  # checked chunk by chunk only
    ],
)
def test_tokens_of_a_long_answer(requested: int | None, input_tokens: int, tokens: int) -> None:
    """As seen on the real router with max input 2048 and max total 4096."""
    assert produced(LIMITS, requested, input_tokens) == tokens


def test_without_a_bound_the_last_chunk_is_computed_anew() -> None:
    """No overshoot: the answer fills max_total_tokens exactly."""
    wide = LengthLimits(max_input_tokens=4095, max_total_tokens=4096)
    assert produced(wide, None, 82) == 4096 - 82


def test_a_truncated_prompt_is_never_cut_short() -> None:
    """Truncation applies to the grown prompt too."""
    assert produced(LIMITS, 2000, 1500, truncate=1500) == 2048


def test_an_end_by_itself_needs_no_further_chunk() -> None:
    """Whatever was asked."""
    answer, _ = first_chunk(LIMITS, 2000, 10)
    assert next_chunk(answer, "eos_token", 300, 310)[1] is None


def test_limits_are_checked_total_first() -> None:
    """As the texts of the refusals come."""
    with pytest.raises(TooLong) as total:
        chunk_length(LIMITS, 1000, 3500)
    assert total.value.kind == "total"
    with pytest.raises(TooLong) as long:
        chunk_length(LIMITS, 10, 2049)
    assert (long.value.kind, long.value.input_tokens, long.value.new_tokens) == ("input", 2049, 10)
