"""Numbers of tokens as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.workload.tokens import MOST_TOKENS, parse_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("4096", 4096), ("4k", 4096), ("4K", 4096), ("128k", 131072), ("1.5k", 1536), ("1m", 1048576), ("2e3", 2000)],
)
def test_k_is_1024_as_context_lengths_are_named(text: str, tokens: int) -> None:
    """4k and 4096 alike."""
    assert parse_tokens(text) == tokens


@given(st.integers(1, MOST_TOKENS // 1024))
def test_k_and_its_number_are_the_same(thousands: int) -> None:
    """Whatever the number."""
    assert parse_tokens(f"{thousands}k") == parse_tokens(f" {thousands * 1024} ") == thousands * 1024


@pytest.mark.parametrize("text", ["", "k", "-1", "0", "1.5", "1,5", "1e99", "nan", "4 kk", "0x10", "٤", "9" * 400])
def test_what_is_no_number_of_tokens_is_a_value_error(text: str) -> None:
    """Whoever asks says where it stood."""
    with pytest.raises(ValueError, match=r"^expected a"):
        parse_tokens(text)
