"""Words that are one token each, so that a prompt of N words is a prompt of N tokens.

Checked on the running engine where it has a tokenizer route, given here as a function; otherwise assumed, and said so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

CANDIDATES: Sequence[str] = files("harness.workload").joinpath("words.txt").read_text(encoding="ascii").split()
"""Everyday English words: single tokens in the vocabularies of GPT-2, Llama, Mistral, Qwen, Gemma and Phi."""

FEWEST = 32
_STARTERS_TRIED = 24

Span = tuple[int, int]
Tokenize = Callable[[str], Sequence[Span]]
"""Text -> for each token the characters [start, stop) that it covers; (n, n) for a token without text."""


@dataclass(frozen=True)
class Vocabulary:
    """words: one token each behind a blank. starters: one token each also at the very beginning of a text.

    overhead: tokens that the engine adds to a prompt by itself, such as one for the beginning of the text, or its chat
    template. per_exchange: as many more for each question with its answer that come before. checked: the engine's own
    tokenizer said so of the words, or, where it has no route for that, the counts of its answers (by_usage); framed:
    the service itself of the tokens that it adds.
    """

    words: tuple[str, ...]
    starters: tuple[str, ...]
    overhead: int = 0
    checked: bool = False
    per_exchange: int = 0
    framed: bool = False
    by_usage: bool = False

    def describe(self) -> str:
        if not self.checked:
            return f"{len(self.words)} common words, assumed to be one token each"
        by = "the counts of the service's answers" if self.by_usage else "the engine's own tokenizer"
        return f"{len(self.words)} words, each one token by {by}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "words": list(self.words),
            "starters": list(self.starters),
            "overhead": self.overhead,
            "checked": self.checked,
            "per_exchange": self.per_exchange,
            "framed": self.framed,
            "by_usage": self.by_usage,
        }

    def framing(self) -> dict[str, Any]:
        """For the manifest: what the service adds to the words of a prompt."""
        return {
            "prompt_overhead_tokens": self.overhead,
            "overhead_tokens_per_exchange": self.per_exchange,
            "overhead": "measured on the service" if self.framed else "assumed",
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Vocabulary:
        words, starters = tuple(fields["words"]), tuple(fields["starters"])
        return cls(words, starters, **{key: fields[key] for key in fields if key not in ("words", "starters")})


def assumed_vocabulary(overhead: int = 0) -> Vocabulary:
    """Without a tokenizer: all candidates, none of them checked."""
    return Vocabulary(tuple(CANDIDATES), tuple(CANDIDATES), overhead)


def checked_vocabulary(tokenize: Tokenize) -> Vocabulary:
    """The candidates that are one token each by this tokenizer, in some two dozen calls.

    Falls back to the assumption where the tokenizer knows fewer than FEWEST of them as single tokens.
    """
    spans = tokenize(" ".join(CANDIDATES))
    if all(start >= stop for start, stop in spans):
        return assumed_vocabulary()  # a tokenizer that does not tell places, as TGI's Python fallback
    words = single_tokens(CANDIDATES, spans)
    overhead = sum(start >= stop for start, stop in spans)
    starters = [word for word in words[:_STARTERS_TRIED] if len(tokenize(word)) == overhead + 1]
    if len(words) < FEWEST or not starters:
        return assumed_vocabulary(overhead)
    return Vocabulary(tuple(words), tuple(starters), overhead, checked=True)


def counted_vocabulary(count: Callable[[str], int]) -> Vocabulary:
    """The same for a tokenizer that tells the number of tokens only: words are counted in groups, and a group that has
    more tokens than words is halved until the guilty ones are found.

    Falls back to the assumption like `checked_vocabulary`.
    """
    starts = {word: count(word) for word in CANDIDATES[:_STARTERS_TRIED]}
    overhead = min(starts.values()) - 1
    starters = [word for word, tokens in starts.items() if tokens == overhead + 1]
    if overhead < 0 or not starters:
        return assumed_vocabulary()
    words = _single_by_count(CANDIDATES, lambda group: count(" ".join([starters[0], *group])) - overhead - 1)
    starters = [word for word in starters if word in words]
    if len(words) < FEWEST or not starters:
        return assumed_vocabulary(overhead)
    return Vocabulary(tuple(words), tuple(starters), overhead, checked=True)


def told_vocabulary(count: Callable[[str], int], questions: int) -> Vocabulary:
    """The same where each count is an answer of the service to be paid for: as few words as are enough, by that many
    counts at most. What comes before a prompt's first word is counted with it, so that all begin with words that count
    alike. Falls back to the assumption like `checked_vocabulary`.
    """
    starts = {word: count(word) for word in CANDIDATES[:_STARTERS_TOLD]}
    least = min(starts.values())
    starters = tuple(word for word, tokens in starts.items() if tokens == least)
    words: list[str] = []
    groups = [CANDIDATES[at : at + _GROUP] for at in range(0, len(CANDIDATES), _GROUP)]
    for _ in range(questions - len(starts)):
        if len(words) >= FEWEST or not groups:
            break
        group = groups.pop(0)
        if count(" ".join([starters[0], *group])) - least == len(group):
            words += group
        elif len(group) > 1:
            half = len(group) // 2
            groups[:0] = [group[:half], group[half:]]
    if len(words) < FEWEST:
        return assumed_vocabulary()
    return Vocabulary(tuple(words), starters, checked=True, by_usage=True)


_GROUP, _STARTERS_TOLD = 32, 4


def _single_by_count(words: Sequence[str], count: Callable[[Sequence[str]], int]) -> list[str]:
    """Of these words those that are one token each behind a blank. count: tokens of a group of them."""
    found: list[str] = []
    groups = [words[at : at + _GROUP] for at in range(0, len(words), _GROUP)]
    while groups:
        group = groups.pop(0)
        if count(group) == len(group):
            found += group
        elif len(group) > 1:
            half = len(group) // 2
            groups[:0] = [group[:half], group[half:]]
    return found


def single_tokens(words: Sequence[str], spans: Sequence[Span]) -> list[str]:
    """Of words that were tokenised in one text, joined by single blanks, those that are exactly one token.

    A word's place is the blank before it and its letters: tokenizers differ in which token the blank belongs to. A
    token belongs to the place that its last character is in, and spoils all places that it covers if these are several.
    """
    places = _places(words)
    tokens = [0] * len(words)
    for start, stop in spans:
        if start >= stop:
            continue
        first = next((places[at] for at in range(start, stop) if places.get(at) is not None), None)
        last = places.get(stop - 1)
        if first is None or last is None:
            continue
        for index in range(first, last + 1):
            tokens[index] += 1 if first == last else len(words)
    return [word for word, count in zip(words, tokens, strict=True) if count == 1]


def _places(words: Sequence[str]) -> dict[int, int]:
    """For each character of the joined text the index of the word in whose place it is."""
    places: dict[int, int] = {}
    at = 0
    for index, word in enumerate(words):
        for character in range(at, at + len(word) + (index > 0)):
            places[character] = index
        at += len(word) + (index > 0)
    return places
