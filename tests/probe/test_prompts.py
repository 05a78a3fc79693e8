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


def sentence_pieces(prompt: str) -> int:
    """A word is one piece, but some are split; `<s>` stands before all."""
    return 1 + sum(2 if word in ("gym", "mom", "bed", "owe", "wet", "cat") else 1 for word in prompt.split(" "))


def byte_pairs(prompt: str) -> int:
    """As above, and a first word, which has no space before it, is split more often."""
    first, *others = prompt.split(" ")
    return (2 if first[0] in "aeiou" else 1) + sum(2 if word[-1] in "xz" else 1 for word in others)


@pytest.mark.parametrize("count", [sentence_pieces, byte_pairs])
@given(tokens=st.integers(20, 3000), seed=st.integers(0, 1000))
def test_words_that_a_tokenizer_splits_are_left_out(count: Callable[[str], int], tokens: int, seed: int) -> None:
    """Every prompt has just the tokens that it should have."""
    ruler = RULERS[count]
    assert ruler.exact
    assert count(ruler.text(ruler.words(tokens), seed=seed)) == tokens


RULERS = {count: measure(count) for count in (sentence_pieces, byte_pairs)}


def test_neighbouring_prompts_begin_with_other_words() -> None:
    """No two of the next sixty share their first piece."""
    assert len({Ruler().text(3, seed=1, first=number).split()[0] for number in range(60)}) == 60


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
