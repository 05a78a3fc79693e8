"""Prompts of an exact length for tokenizers of several kinds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.probe.prompts import WORDS, Ruler, corrected, measure

TOKENIZERS: dict[str, Callable[[str], int]] = {
    "words": lambda prompt: len(prompt.split()),
    "words and a beginning": lambda prompt: 1 + len(prompt.split()),
    "four characters": lambda prompt: len(prompt) // 4 + 1,
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
    assert count(ruler.prompt(tokens, seed=seed)) == tokens


RULERS: dict[Callable[[str], int], Ruler] = {count: measure(count) for count in (sentence_pieces, byte_pairs)}


def test_neighbouring_prompts_begin_with_other_words() -> None:
    """No two of the next sixty share their first piece."""
    assert len({Ruler().text(3, seed=1, first=number).split()[0] for number in range(60)}) == 60


@pytest.mark.parametrize("name", TOKENIZERS)
@given(tokens=st.integers(20, 5000))
def test_lengths_are_met_exactly(name: str, tokens: int) -> None:
    """Two measured prompts are enough."""
    ruler = measure(TOKENIZERS[name])
    assert ruler.exact
    assert TOKENIZERS[name](ruler.prompt(tokens, seed=1)) == tokens


def longest_match(*pieces: str) -> Callable[[str], list[str]]:
    """A tokenizer with these pieces and every single character, which takes the longest that fits."""
    known, longest = frozenset(pieces), max((len(piece) for piece in pieces), default=1)

    def tokens(prompt: str) -> list[str]:
        found, at = [], 0
        while at < len(prompt):
            size = next((n for n in range(longest, 1, -1) if prompt[at : at + n] in known), 1)
            found.append(prompt[at : at + size])
            at += size
        return found

    return tokens


SPLITTING = {
    "characters": longest_match(),
    "two letters with their space": longest_match(*(f" {word[:2]}" for word in WORDS)),
    "half of the words": longest_match(*(f" {word}" for word in WORDS[::2]), *WORDS[::3]),
}


def count_by(tokens: Callable[[str], list[str]]) -> Callable[[str], int]:
    return lambda prompt: len(tokens(prompt))


SPLITTING_RULERS = {name: measure(count_by(tokens)) for name, tokens in SPLITTING.items()}


@pytest.mark.parametrize("name", SPLITTING)
@given(tokens=st.integers(20, 3000), seed=st.integers(0, 1000))
def test_a_word_of_several_tokens_still_gives_every_length(name: str, tokens: int, seed: int) -> None:
    """What lacks after the last whole word is made up by an ending."""
    ruler = SPLITTING_RULERS[name]
    assert ruler.exact
    assert len(SPLITTING[name](ruler.prompt(tokens, seed=seed))) == tokens


def test_a_length_that_no_prompt_can_have_is_not_called_exact() -> None:
    """Where every word is two tokens and nothing else is one, only every other length can be had."""
    assert not measure(lambda prompt: 2 * len(prompt.split()) + 3).exact


OVER_SPACES = longest_match(
    *(f" {one} {other}" for one in WORDS[::2] for other in WORDS[1::3]), *(f" {w}" for w in WORDS)
)
OVER_SPACES_RULER = measure(count_by(OVER_SPACES))


@given(tokens=st.integers(20, 600), seed=st.integers(0, 1000))
def test_words_that_do_not_add_up_are_counted_prompt_by_prompt(tokens: int, seed: int) -> None:
    """A tokenizer that joins words of a sentence into one token has no cost of a word."""
    count = count_by(OVER_SPACES)
    assert not OVER_SPACES_RULER.exact
    text, right = corrected(OVER_SPACES_RULER.prompt(tokens, seed=seed), tokens, count, OVER_SPACES_RULER, seed=seed)
    assert right
    assert count(text) == tokens


def test_prompts_begin_with_different_pieces_of_split_words() -> None:
    """Words that begin with the same piece would share it in a prefix cache."""
    tokens = SPLITTING["characters"]
    ruler = measure(count_by(tokens), first_piece=lambda prompt: tokens(prompt)[0])
    assert ruler.exact
    assert len({word[0] for word in ruler.first}) == len(ruler.first) > 10


def test_without_counts_a_word_is_a_token() -> None:
    """And one is kept for the beginning."""
    assert measure(lambda prompt: None) == Ruler()
    assert Ruler().words(100) == 99


def test_prompts_differ_from_their_beginning_on() -> None:
    """Few of many prompts share even their first two words."""
    beginnings = {" ".join(Ruler().text(5, seed=seed).split()[:2]) for seed in range(200)}
    assert len(beginnings) > 190
