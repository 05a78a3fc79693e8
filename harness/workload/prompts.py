"""Makes texts of an exact length in tokens, from words that are one token each.

Every prompt begins with words that number it, so that no two prompts of a run share more than a few first tokens: the
engine's prefix cache would otherwise answer from memory, and the time to first token would be that of a repeated
question. The rest are words drawn at random, in blocks that are made once, because a prompt must cost less than the
request that carries it.
"""

from __future__ import annotations

from functools import lru_cache

from harness.workload.seeds import derive, random_bytes
from harness.workload.vocabulary import Vocabulary

_BLOCKS = 256
_BLOCK_WORDS = 64
_LEAD_WORDS = 4
_KEPT_WORDS = 2_000_000  # of block texts, some 12 MB


def prompt(
    vocabulary: Vocabulary, tokens: int, seed: int, name: str, number: int, *, shared: int = 0
) -> tuple[str, int]:
    """A text of this many tokens, those that the engine adds included, and its true length.

    The length is `tokens` unless the engine's own tokens leave no room for a single word. seed, name, number: what the
    text is made from; different numbers of one name give texts that differ in their first few words. shared: this many
    words at the beginning are the same for all numbers, but for the last word at least.
    """
    words = max(1, tokens - vocabulary.overhead)
    common = min(shared, words - 1)
    if common <= 0:
        return _unique(vocabulary, words, seed, name, number), words + vocabulary.overhead
    beginning = _unique(vocabulary, common, seed, name + "/shared", 0)
    return beginning + _numbered(vocabulary, words - common, seed, name, number), words + vocabulary.overhead


def prompt_of_blocks(
    vocabulary: Vocabulary, tokens: int, seed: int, name: str, number: int, blocks: tuple[int, ...], block_tokens: int
) -> tuple[str, int]:
    """A text in which each block belongs to a given number: equal numbers from the beginning on are an equal beginning.

    Blocks are the engine's: what it adds before the text belongs to the first, so that two prompts with k leading
    blocks in common share k * block_tokens tokens. Other numbers are other words from the block's first on, but for one
    pair in as many as there are words. What goes beyond the blocks is the text's own; a block longer than what is left
    is cut.
    """
    words = max(1, tokens - vocabulary.overhead)
    texts = _block_texts(vocabulary, seed, name + "/block")
    parts: list[str] = []
    made = 0
    for position, block in enumerate(blocks):
        end = min(words, (position + 1) * block_tokens - vocabulary.overhead)
        if end > made:
            parts.append(texts.text(block, end - made, first=not parts))
            made = end
    if words > made:
        make = _numbered if parts else _unique
        parts.append(make(vocabulary, words - made, seed, name, number))
    return "".join(parts), words + vocabulary.overhead


class _BlockTexts:
    """The texts of blocks by their numbers. Conversations ask for the same ones again and again, so they are kept."""

    def __init__(self, vocabulary: Vocabulary, seed: int, name: str) -> None:
        self._vocabulary, self._seed, self._name = vocabulary, seed, name
        self._shift = derive(seed, "lead", name) % len(vocabulary.words) ** _LEAD_WORDS
        self._made = _made_blocks(vocabulary.words, seed)
        self._kept: dict[tuple[int, int, bool], str] = {}
        self._kept_words = 0

    def text(self, block: int, words: int, *, first: bool) -> str:
        """This many words that tell the number from the first on; first: they are at the beginning of the prompt."""
        key = (block, words, first)
        text = self._kept.get(key)
        if text is None:
            text = self._kept[key] = self._make(block, words, first)
            self._kept_words += words
            if self._kept_words > _KEPT_WORDS:
                self._kept, self._kept_words = {}, 0
        return text

    def _make(self, block: int, words: int, first: bool) -> str:
        if first:
            return _unique(self._vocabulary, words, self._seed, self._name, block)
        known, shifted, digits = self._vocabulary.words, block + self._shift, []
        for _ in range(min(words, _LEAD_WORDS)):
            shifted, digit = divmod(shifted, len(known))
            digits.append(known[digit])
        rest = words - len(digits)
        return " " + " ".join(digits) + _filled(self._made, rest, self._seed, self._name, block)


@lru_cache(maxsize=8)
def _block_texts(vocabulary: Vocabulary, seed: int, name: str) -> _BlockTexts:
    return _BlockTexts(vocabulary, seed, name)


def _numbered(vocabulary: Vocabulary, words: int, seed: int, name: str, number: int) -> str:
    """This many words, each behind a blank, the first of them telling the number."""
    lead = _lead(vocabulary.words, words, seed, name, number)
    return " " + " ".join(lead) + filler(vocabulary, words - len(lead), seed, name, number)


def _unique(vocabulary: Vocabulary, words: int, seed: int, name: str, number: int) -> str:
    first = _starter(vocabulary, seed, name, number)
    lead = _lead(vocabulary.words, words - 1, seed, name, number // len(vocabulary.starters))
    rest = filler(vocabulary, words - 1 - len(lead), seed, name, number)
    return " ".join([first, *lead]) + rest


def _starter(vocabulary: Vocabulary, seed: int, name: str, number: int) -> str:
    return vocabulary.starters[(number + derive(seed, "start", name)) % len(vocabulary.starters)]


def _lead(words: tuple[str, ...], most: int, seed: int, name: str, number: int) -> list[str]:
    """The number, written with words for digits, shifted by the seed; as many digits as there is room for."""
    shifted = number + derive(seed, "lead", name) % len(words) ** _LEAD_WORDS
    digits = []
    for _ in range(min(most, _LEAD_WORDS)):
        shifted, digit = divmod(shifted, len(words))
        digits.append(words[digit])
    return digits


def filler(vocabulary: Vocabulary, words: int, seed: int, name: str, number: int) -> str:
    """This many words drawn at random, each behind a blank."""
    return _filled(_made_blocks(vocabulary.words, seed), words, seed, name, number)


def _filled(made: tuple[str, ...], words: int, seed: int, name: str, number: int) -> str:
    if words <= 0:
        return ""
    blocks, rest = divmod(words, _BLOCK_WORDS)
    choices = random_bytes(seed, "blocks", name, number, size=blocks + 1)
    parts = [made[choice] for choice in choices[:blocks]]
    if rest:
        parts.append(_first_words(made[choices[blocks]], rest))
    return "".join(parts)


@lru_cache(maxsize=8)
def _made_blocks(words: tuple[str, ...], seed: int) -> tuple[str, ...]:
    drawn = random_bytes(seed, "words", size=2 * _BLOCKS * _BLOCK_WORDS)
    picked = [" " + words[int.from_bytes(drawn[at : at + 2], "big") % len(words)] for at in range(0, len(drawn), 2)]
    return tuple("".join(picked[at : at + _BLOCK_WORDS]) for at in range(0, len(picked), _BLOCK_WORDS))


def _first_words(block: str, words: int) -> str:
    """The first words of a block; a blank comes before each."""
    return " " + " ".join(block[1:].split(" ", words)[:words])
