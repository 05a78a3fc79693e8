"""Prompts of an exact length in tokens, for an engine whose tokenizer is not known.

A tokenizer counts a word after a space alike wherever it stands, but not every word alike: byte pairs and sentence
pieces split some, and a first word has no space before it. So the engine is asked what its tokenizer makes of the words
below; those that it splits are left out, and the length of a prompt is then a straight line over the number of words.
Where a word is several tokens, an ending makes up for the rest; where the words do not add up, each prompt is counted
and corrected.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

_WORDS = """
the and for are but not you all any can had her was one our out day get has him his how man new now old see two way
who boy did let put say she too use dad mom cat dog car bus bed box red big run sun son sea sky air eye ear arm leg
hat cup key map pen top end far few got law lot low men oil own pay per raw set six ten war win yes yet age ago art
ask bad bag bar bit buy cut due eat egg fit fix fun gas gun hot ice job kid lay lie mix net nor off owe pot sad sit
tax tea tie try van via web why wet
"""
WORDS = tuple(_WORDS.split())
_SAMPLE = 7  # words, of which one must be a single token for a search for all that are
_TAIL = WORDS[:4]
_ENOUGH_FIRST = 60  # words to begin a prompt with
_FEW = 8  # words that are enough to make prompts of
# What may end a prompt, where a word is several tokens and a prompt must have one or two more.
_ENDINGS = (*".,;:!?", *"sxzqj", *"0123456789", *(f" {each}" for each in (*"aIxzqj.,;:!?", *"0123456789")))
_ENDINGS += tuple(f" {word}" for word in WORDS)
_CORRECTIONS = 8  # times that the words of one prompt are counted and corrected
_NEAR = 3  # tokens that an ending may bring
_NEAR_ENDINGS = 6

Count = Callable[[str], int | None]
FirstPiece = Callable[[str], str | None]


@dataclass(frozen=True)
class Ruler:
    """tokens = offset + per_word * words; exact says that this was measured, and that prompts made so were counted and
    had that length. Both in tokens. inner: words for all places but the first; first: for that. endings: texts that end
    a prompt with 1, 2, ... tokens more, fewer than a word has.
    """

    offset: float = 1.0
    per_word: float = 1.0
    exact: bool = False
    inner: tuple[str, ...] = WORDS
    first: tuple[str, ...] = WORDS
    endings: tuple[str, ...] = ()

    def words(self, tokens: int) -> int:
        """Most words that are at most so many tokens; at least one."""
        return max(1, int((tokens - self.offset) / self.per_word + 1e-9))

    def text(self, words: int, *, seed: int, first: int | None = None) -> str:
        """So many words. first: which one it begins with; two prompts with other first words share no piece of it."""
        source = random.Random(seed)
        beginning = self.first[first % len(self.first)] if first is not None else source.choice(self.first)
        return " ".join([beginning, *source.choices(self.inner, k=words - 1)])

    def prompt(self, tokens: int, *, seed: int, first: int | None = None, common: str = "") -> str:
        """A prompt of so many tokens. common: words with which it begins instead, as far as it is long enough."""
        words = self.words(tokens)
        text = self.text(words, seed=seed, first=first)
        if common:
            beginning = common.split(" ")[:words]
            text = " ".join([*beginning, *text.split(" ")[len(beginning) :]])
        lacking = round(tokens - self.offset - self.per_word * words)
        return text + self.endings[lacking - 1] if 0 < lacking <= len(self.endings) else text


def measure(count: Count, *, short: int = 40, long: int = 400, first_piece: FirstPiece | None = None) -> Ruler:
    """A ruler for the tokenizer behind `count`, which gives the tokens of a text, None where it is not known. short,
    long: words of the prompts with which it is checked. first_piece: the text of a text's first token, where the
    tokenizer tells it: words that begin with the same one are then not used to begin different prompts.
    """
    alone = count(WORDS[0])
    if alone is None:
        return Ruler()
    sample = [_cost(count, [word], alone) for word in WORDS[1 : 1 + _SAMPLE]]
    unit, inner = 1, _single(count, WORDS, alone) if 1 in sample else []
    if len(inner) < _FEW:
        unit, inner = _commonest(count, alone)
    if len(inner) < _FEW:
        return _line(count, short, long)
    first, offset = _first_words(count, inner, unit, first_piece)
    ruler = Ruler(float(offset), float(unit), False, tuple(inner), first)
    ruler = replace(ruler, endings=_endings(count, ruler))
    return replace(ruler, exact=_holds(ruler, count, short, long))


def corrected(text: str, tokens: int, count: Count, ruler: Ruler, *, seed: int) -> tuple[str, bool]:
    """The text with words added or taken away at its end until it has so many tokens, for a tokenizer that the ruler
    does not fit; and whether it has.
    """
    words, more = text.split(" "), random.Random(seed)
    for _ in range(_CORRECTIONS):
        counted = count(" ".join(words))
        if counted is None:
            return text, False
        lacking = tokens - counted
        if lacking == 0:
            return " ".join(words), True
        if 0 < lacking <= _NEAR:
            found = _ended(" ".join(words), tokens, count)
            if found is not None:
                return found, True
        by = round(lacking / ruler.per_word) or (1 if lacking > 0 else -1)
        words = [*words, *more.choices(ruler.inner, k=by)] if by > 0 else words[: max(1, len(words) + by - 1)]
    return " ".join(words), False


def _ended(text: str, tokens: int, count: Count) -> str | None:
    """The text with an ending that gives it so many tokens; None where none of a few does."""
    for ending in _ENDINGS[:_NEAR_ENDINGS]:
        longer = text
        while (counted := count(longer)) is not None and counted < tokens and len(longer) < len(text) + 2 * _NEAR:
            longer += ending
        if counted == tokens:
            return longer
    return None


def _cost(count: Count, words: Sequence[str], alone: int) -> int | None:
    """Tokens of these words behind another one."""
    tokens = count(" ".join([WORDS[0], *words]))
    return None if tokens is None else tokens - alone


def _single(count: Count, words: Sequence[str], alone: int) -> list[str]:
    """Those that are one token each: a group of as many tokens as words is taken whole, another is halved."""
    if _cost(count, words, alone) == len(words):
        return list(words)
    if len(words) == 1:
        return []
    middle = len(words) // 2
    return _single(count, words[:middle], alone) + _single(count, words[middle:], alone)


def _commonest(count: Count, alone: int) -> tuple[int, list[str]]:
    """The cost that most words have, and these words, one by one: in a group a cheap and a dear one would make up for
    each other.
    """
    by_cost: dict[int, list[str]] = {}
    for word in WORDS:
        if (cost := _cost(count, [word], alone)) is not None and cost > 0:
            by_cost.setdefault(cost, []).append(word)
    return max(by_cost.items(), key=lambda each: len(each[1]), default=(1, []))


def _first_words(
    count: Count, inner: Sequence[str], unit: int, first_piece: FirstPiece | None
) -> tuple[tuple[str, ...], int]:
    """Words that cost alike at the beginning of a prompt, as most do, and begin with different pieces as far as that is
    told; and the offset of the line with them.
    """
    tail = [word for word in inner if word in _TAIL] or list(inner[:2])
    offsets: dict[int, dict[str, str]] = {}
    for word in inner[:_ENOUGH_FIRST]:
        tokens = count(" ".join([word, *tail]))
        if tokens is not None:
            piece = (first_piece(word) if first_piece is not None else None) or word
            offsets.setdefault(tokens - unit * (1 + len(tail)), {}).setdefault(piece, word)
    offset, words = max(offsets.items(), key=lambda each: len(each[1]), default=(1, {word: word for word in inner}))
    return tuple(words.values()), offset


def _endings(count: Count, ruler: Ruler) -> tuple[str, ...]:
    """Texts that end a prompt with 1, 2, ... tokens more, each one the last with something added; all behind two
    different words. Fewer than wanted where nothing adds a single token.
    """
    bases = [ruler.text(6, seed=seed) for seed in (1, 2)]
    counted = [count(base) for base in bases]
    chain: list[str] = []
    for more in range(1, int(ruler.per_word)):
        before = chain[-1] if chain else ""
        wanted = [None if tokens is None else tokens + more for tokens in counted]
        found = next(
            (
                before + ending
                for ending in _ENDINGS
                if all(count(base + before + ending) == tokens for base, tokens in zip(bases, wanted, strict=True))
            ),
            None,
        )
        if found is None:
            break
        chain.append(found)
    return tuple(chain)


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
    """Whether prompts made by the ruler have the length that it says, between whole words too."""
    unit = max(1, round(ruler.per_word))
    for words in (short, (short + long) // 2, long):
        for more in range(unit):
            tokens = int(ruler.offset + ruler.per_word * words) + more
            if count(ruler.prompt(tokens, seed=words + more)) != tokens:
                return False
    return True
