"""Prompts: exactly as long as asked, unlike each other, and made of words that are one token each."""

from __future__ import annotations

from itertools import pairwise, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.workload.prompts import prompt, prompt_of_blocks
from harness.workload.vocabulary import (
    CANDIDATES,
    Span,
    Vocabulary,
    assumed_vocabulary,
    checked_vocabulary,
    single_tokens,
)

SMALL = Vocabulary(("a", "b", "c"), ("x", "y"), overhead=1)
FULL = assumed_vocabulary()


def words(text: str) -> list[str]:
    return text.split(" ")


@given(st.integers(1, 3000), st.integers(0, 2**40), st.integers(0, 5000), st.integers(0, 400))
def test_a_prompt_has_the_length_that_was_asked(tokens: int, seed: int, number: int, shared: int) -> None:
    """Words and the engine's own tokens together, whatever is shared; one word at least."""
    text, length = prompt(SMALL, tokens, seed, "run", number, shared=shared)
    assert length == max(2, tokens)
    assert len(words(text)) + 1 == length
    assert words(text)[0] in SMALL.starters
    assert set(words(text)[1:]) <= set(SMALL.words)


@given(st.integers(0, 2**40), st.text(max_size=5))
def test_prompts_differ_from_the_first_words_on(seed: int, name: str) -> None:
    """No two of a run are equal, and neighbours differ in their first word: nothing for a prefix cache to find."""
    texts = [prompt(FULL, 6, seed, name, number)[0] for number in range(500)]
    assert len(set(texts)) == 500
    assert all(words(one)[0] != words(next_)[0] for one, next_ in pairwise(texts))


def test_prompts_are_numbered_beyond_the_first_word() -> None:
    """As many different prompts as the words allow, before the random part even begins."""
    texts = {prompt(SMALL, 6, 3, "", number)[0] for number in range(2 * 3**4)}
    assert len(texts) == 2 * 3**4


def test_seed_and_name_change_the_words() -> None:
    """Another run asks other prompts of the same lengths."""
    one, other, third = (prompt(FULL, 50, seed, name, 0)[0] for seed, name in ((1, "a"), (1, "b"), (2, "a")))
    assert len({words(text)[0] for text in (one, other, third)}) > 1
    assert len({one, other, third}) == 3


def test_a_shared_beginning_is_shared_exactly() -> None:
    """So many words are the same in all prompts, and the next one is not."""
    texts = [prompt(FULL, 300, 1, "", number, shared=100)[0] for number in range(20)]
    beginnings = {" ".join(words(text)[:100]) for text in texts}
    assert len(beginnings) == 1
    assert len({words(text)[100] for text in texts}) == 20


def test_blocks_with_equal_numbers_are_equal_beginnings() -> None:
    """Two prompts share exactly the blocks that they have in common from the start; the last block is cut."""
    one, length = prompt_of_blocks(FULL, 1100, 1, "run", 0, (7, 8, 9), 512)
    other, _ = prompt_of_blocks(FULL, 1600, 1, "run", 1, (7, 8, 10, 11), 512)
    same = list(takewhile(lambda pair: pair[0] == pair[1], zip(words(one), words(other), strict=False)))
    assert (length, len(words(one)), len(words(other))) == (1100, 1100, 1600)
    assert len(same) == 1024


OTHERS = 3 * len(CANDIDATES) + 100  # numbers from here on begin with other words than those from 0 on
identities = st.lists(st.integers(0, 80), max_size=12)


@given(identities, identities, identities, st.sampled_from([16, 64, 512]), st.sampled_from([0, 1, 20, 40]))
def test_prompts_share_exactly_the_tokens_of_their_common_blocks(
    common: list[int], one: list[int], other: list[int], block: int, overhead: int
) -> None:
    """As the engine counts: what it adds before the text is part of the first block. Not a token more, nor less."""
    vocabulary = assumed_vocabulary(overhead)
    one, other = [*common, *one], [*common, *(OTHERS + each for each in other)]
    texts = [
        prompt_of_blocks(vocabulary, block * len(ids) + 7, 1, "run", number, tuple(ids), block)[0]
        for number, ids in enumerate((one, other))
    ]
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*map(words, texts), strict=False)))
    assert overhead + same == max(block * len(common), overhead)


@given(identities, st.integers(1, 4000), st.integers(1, 4000))
def test_a_shorter_prompt_of_the_same_blocks_is_a_beginning(ids: list[int], one: int, other: int) -> None:
    """Its last block is cut, not made anew."""
    short, long = sorted((one, other))
    ends = [prompt_of_blocks(FULL, tokens, 1, "r", 0, tuple(ids), 16)[0] for tokens in (short, long)]
    covered = min(short, 16 * len(ids))
    assert words(ends[0])[:covered] == words(ends[1])[:covered]


def test_block_texts_are_kept_and_forgotten_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is full begins anew; the texts stay the same."""
    asked = [tuple(range(start, start + 20)) for start in (0, 50, 0, 70, 0)]
    kept = [prompt_of_blocks(FULL, 320, 5, "kept", 0, ids, 16) for ids in asked]
    monkeypatch.setattr("harness.workload.prompts._KEPT_WORDS", 100)
    assert [prompt_of_blocks(FULL, 320, 5, "kept", 0, ids, 16) for ids in asked] == kept


@pytest.mark.parametrize("blocks", [(), (1,), (1, 2, 3, 4)])
@pytest.mark.parametrize("tokens", [1, 2, 512, 513, 1024])
def test_too_few_or_too_many_blocks_do_not_change_the_length(blocks: tuple[int, ...], tokens: int) -> None:
    """What blocks do not cover is the prompt's own text."""
    text, length = prompt_of_blocks(SMALL, tokens, 1, "run", 5, blocks, 512)
    assert length == max(2, tokens)
    assert len(words(text)) + 1 == length


def by_blanks(text: str) -> list[Span]:
    """A tokenizer of whole words, the blank with the word behind it, and a token for the beginning."""
    spans, at = [(0, 0)], 0
    for index, word in enumerate(words(text)):
        stop = at + len(word) + (index > 0)
        spans.append((at, stop))
        at = stop
    return spans


def trimmed(text: str) -> list[Span]:
    """The same, but tokens do not tell the blank that they begin with."""
    return [(start + text[start : start + 1].count(" "), stop) for start, stop in by_blanks(text)]


def no_long_words(text: str) -> list[Span]:
    """Words of more than five letters are two tokens."""
    spans: list[Span] = []
    for start, stop in by_blanks(text):
        long = stop - start > 6
        spans += [(start, start + 3), (start + 3, stop)] if long else [(start, stop)]
    return spans


@pytest.mark.parametrize("tokenize", [by_blanks, trimmed])
def test_single_tokens_are_found_wherever_the_blank_belongs(tokenize: object) -> None:
    """Tokenizers differ in whether a token's place includes the blank before it."""
    vocabulary = checked_vocabulary(tokenize)  # type: ignore[arg-type]
    assert vocabulary.checked
    assert list(vocabulary.words) == list(CANDIDATES)
    assert vocabulary.overhead == 1


def test_words_of_several_tokens_are_left_out() -> None:
    """What stays is one token each, by the tokenizer's own word."""
    vocabulary = checked_vocabulary(no_long_words)
    assert vocabulary.checked
    assert all(len(word) <= 5 for word in vocabulary.words)
    text, length = prompt(vocabulary, 40, 1, "", 1)
    assert len(no_long_words(text)) == length == 40


def test_blanks_of_their_own_and_tokens_over_two_words_are_not_single() -> None:
    """`a b` with the blank a token, and `c d` as one token: only `a`, which has no blank before it, is one token."""
    spans = [(0, 1), (1, 2), (2, 3), (3, 7)]
    assert single_tokens(["a", "b", "c", "d"], spans) == ["a"]


def test_a_tokenizer_without_such_words_leaves_the_assumption() -> None:
    """Said as an assumption, with the tokens that the engine adds."""
    vocabulary = checked_vocabulary(lambda text: [(0, 0), *((at, at + 1) for at in range(len(text)))])
    assert not vocabulary.checked
    assert vocabulary.overhead == 1
    assert "assumed" in vocabulary.describe()


def test_a_tokenizer_that_tells_no_places_leaves_the_assumption() -> None:
    """Tokens without a place are not taken for tokens that the engine adds."""
    assert checked_vocabulary(lambda text: [(0, 0)] * len(words(text))) == assumed_vocabulary()
