"""Prompts of an exact length in tokens, for an engine whose tokenizer is not known.

A tokenizer counts a word after a space alike wherever it stands, but not every word alike: byte pairs and sentence
pieces split some, and a first word has no space before it. So the engine is asked what its tokenizer makes of the words
below; those that it splits are left out, and the length of a prompt is then a straight line over the number of words.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median_low

_WORDS = """
the and for are but not you all any can had her was one our out day get has him his how man new now old see two way
who boy did let put say she too use dad mom cat dog car bus bed box red big run sun son sea sky air eye ear arm leg
hat cup key map pen top end far few got law lot low men oil own pay per raw set six ten war win yes yet age ago art
ask bad bag bar bit buy cut due eat egg fit fix fun gas gun hot ice job kid lay lie mix net nor off owe pot sad sit
tax tea tie try van via web why wet
"""
WORDS = tuple(_WORDS.split())
_SAMPLE = 7  # words by which the usual cost of one is found
_TAIL = WORDS[:4]
_ENOUGH_FIRST = 60  # words to begin a prompt with
_FEW = 8  # words that are enough to make prompts of

Count = Callable[[str], int | None]


@dataclass(frozen=True)
class Ruler:
    """tokens = offset + per_word * words; exact says that this was measured, and that prompts made so were counted and
    had that length. Both in tokens. inner: words for all places but the first; first: for that.
    """

    offset: float = 1.0
    per_word: float = 1.0
    exact: bool = False
    inner: tuple[str, ...] = WORDS
    first: tuple[str, ...] = WORDS

    def words(self, tokens: int) -> int:
        """Most words that are at most so many tokens; at least one."""
        return max(1, int((tokens - self.offset) / self.per_word + 1e-9))

    def text(self, words: int, *, seed: int, first: int | None = None) -> str:
        """So many words. first: which one it begins with; two prompts with other first words share no piece of it."""
        source = random.Random(seed)
        beginning = self.first[first % len(self.first)] if first is not None else source.choice(self.first)
        return " ".join([beginning, *source.choices(self.inner, k=words - 1)])


def measure(count: Count, *, short: int = 40, long: int = 400) -> Ruler:
    """A ruler for the tokenizer behind `count`, which gives the tokens of a text, None where it is not known. short,
    long: words of the prompts with which it is checked.
    """
    alone = count(WORDS[0])
    if alone is None:
        return Ruler()
    costs = [_cost(count, [word], alone) for word in WORDS[1 : 1 + _SAMPLE]]
    known = [cost for cost in costs if cost is not None and cost > 0]
    if not known:
        return _line(count, short, long)
    unit = median_low(known)
    inner = _alike(count, WORDS, alone, unit)
    if len(inner) < _FEW:
        return _line(count, short, long)
    first, offset = _first_words(count, inner, unit)
    ruler = Ruler(float(offset), float(unit), False, tuple(inner), first)
    return Ruler(ruler.offset, ruler.per_word, _holds(ruler, count, short, long), ruler.inner, ruler.first)


def _cost(count: Count, words: Sequence[str], alone: int) -> int | None:
    """Tokens of these words behind another one."""
    tokens = count(" ".join([WORDS[0], *words]))
    return None if tokens is None else tokens - alone


def _alike(count: Count, words: Sequence[str], alone: int, unit: int) -> list[str]:
    """Those that cost `unit` each: a group that costs as much as it should is taken whole, another is halved."""
    if _cost(count, words, alone) == unit * len(words):
        return list(words)
    if len(words) == 1:
        return []
    middle = len(words) // 2
    return _alike(count, words[:middle], alone, unit) + _alike(count, words[middle:], alone, unit)


def _first_words(count: Count, inner: Sequence[str], unit: int) -> tuple[tuple[str, ...], int]:
    """Words that cost alike at the beginning of a prompt, as most do, and the offset of the line with them."""
    tail = [word for word in inner if word in _TAIL] or list(inner[:2])
    offsets: dict[int, list[str]] = {}
    for word in inner[:_ENOUGH_FIRST]:
        tokens = count(" ".join([word, *tail]))
        if tokens is not None:
            offsets.setdefault(tokens - unit * (1 + len(tail)), []).append(word)
    offset, words = max(offsets.items(), key=lambda each: len(each[1]), default=(1, list(inner)))
    return tuple(words), offset


def _line(count: Count, short: int, long: int) -> Ruler:
    """Where words cannot be told apart: two counted prompts give the line, if a third one lies on it."""
    plain = Ruler()
    counted = [(words, count(plain.text(words, seed=words))) for words in (short, long)]
    known = [(words, tokens) for words, tokens in counted if tokens is not None]
    if len(known) < 2 or known[0][0] == known[1][0]:
        return Ruler()
    (w1, t1), (w2, t2) = known
    slope = (t2 - t1) / (w2 - w1)
    if slope <= 0:
        return Ruler()
    ruler = Ruler(t1 - slope * w1, slope)
    return Ruler(ruler.offset, slope, _holds(ruler, count, short, long))


def _holds(ruler: Ruler, count: Count, short: int, long: int) -> bool:
    """Whether prompts made by the ruler have the length that it says."""
    for words in (short, (short + long) // 2, long):
        tokens = count(ruler.text(words, seed=words))
        if tokens is None or abs(ruler.offset + ruler.per_word * words - tokens) >= 0.5:
            return False
    return True
