"""Prompts of an exact length for tokenizers of several kinds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.probe.prompts import Ruler, measure

TOKENIZERS: dict[str, Callable[[str], int]] = {
    "words": lambda prompt: len(prompt.split()),
    "words and a beginning": lambda prompt: 1 + len(prompt.split()),
    "four characters": lambda prompt: len(prompt) // 4 + 1,
    "two a word": lambda prompt: 2 * len(prompt.split()) + 3,
}


@pytest.mark.parametrize("name", TOKENIZERS)
@given(tokens=st.integers(20, 5000))
def test_lengths_are_met_exactly(name: str, tokens: int) -> None:
    """Two measured prompts are enough; where a word is two tokens, one may be missing."""
    ruler = measure(TOKENIZERS[name])
    assert ruler.exact
    found = TOKENIZERS[name](ruler.text(ruler.words(tokens), seed=1))
    assert tokens - ruler.per_word < found <= tokens


def test_without_counts_a_word_is_a_token() -> None:
    """And one is kept for the beginning."""
    assert measure(lambda prompt: None) == Ruler()
    assert Ruler().words(100) == 99


def test_prompts_differ_from_their_beginning_on() -> None:
    """Few of many prompts share even their first two words."""
    beginnings = {" ".join(Ruler().text(5, seed=seed).split()[:2]) for seed in range(200)}
    assert len(beginnings) > 190
