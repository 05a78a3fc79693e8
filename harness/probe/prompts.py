"""Prompts of an exact length in tokens, for an engine whose tokenizer is not known.

All words have three letters and are common, so that a tokenizer of any kind (words, byte pairs, four characters to a
token) counts each of them alike: the length is then a straight line over the number of words, and two measured prompts
give it exactly.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

_WORDS = """
the and for are but not you all any can had her was one our out day get has him his how man new now old see two way
who boy did let put say she too use dad mom cat dog car bus bed box red big run sun son sea sky air eye ear arm leg
hat cup key map pen top end far few got law lot low men oil own pay per raw set six ten war win yes yet age ago art
ask bad bag bar bit buy cut due eat egg fit fix fun gas gun hot ice job kid lay lie mix net nor off owe pot sad sit
tax tea tie try van via web why wet
"""
WORDS = tuple(_WORDS.split())


@dataclass(frozen=True)
class Ruler:
    """tokens = offset + per_word * words; exact says that this was measured. Both in tokens."""

    offset: float = 1.0
    per_word: float = 1.0
    exact: bool = False

    def words(self, tokens: int) -> int:
        """Most words that are at most so many tokens; at least one."""
        return max(1, int((tokens - self.offset) / self.per_word + 1e-9))


def measure(count: Callable[[str], int | None], *, short: int = 40, long: int = 400) -> Ruler:
    """Two prompts counted by the engine give the line; a third one checks it. count: tokens of a text, None unknown."""
    counted = [(words, count(text(words, seed=words))) for words in (short, long, (short + long) // 2)]
    known = [(words, tokens) for words, tokens in counted if tokens is not None]
    if len(known) < 2 or known[0][0] == known[1][0]:
        return Ruler()
    (w1, t1), (w2, t2) = known[0], known[1]
    slope = (t2 - t1) / (w2 - w1)
    if slope <= 0:
        return Ruler()
    ruler = Ruler(t1 - slope * w1, slope)
    exact = all(abs(ruler.offset + slope * words - tokens) < 0.5 for words, tokens in known)
    return Ruler(ruler.offset, slope, exact)


def text(words: int, *, seed: int) -> str:
    """So many words; two seeds differ from their first words on, so that no prefix cache helps beyond `<s>`."""
    source = random.Random(seed)
    return " ".join(source.choices(WORDS, k=words))
