"""A deterministic tokenizer of words, and the words of which answers are made.

Every plain word is one token, together with the space before it, as byte-level tokenizers of today have it; so are up
to four punctuation marks in a row and each further white-space character. `<s>` begins every prompt. The
identity of a known word is its place in a table, that of any other piece a hash, so that the same text has the same
tokens in every process.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

BOS, EOS = "<s>", "</s>"
BOS_ID, EOS_ID = 1, 2
_FIRST_WORD_ID = 3
_LONGEST_PIECE = 24  # longer runs of letters are several tokens, as in any real vocabulary

_PIECE = re.compile(rf"<s>|</s>| ?\w{{1,{_LONGEST_PIECE}}}| ?(?:(?!</?s>)[^\w\s]){{1,4}}|\s")

_WORDS = """
the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which
one you were all her she there would their we him been has when who will no more if out so up said what its
about than into them can only other time new some could these two may first then do any like my now over such
our man me even most made after also did many off before must well back through years much where your way down
should because long each just state those people too how little good make world still see own work men day get
here between both life being under three never know same last another while us might great go come since against
right came take used himself few house use place during high without again home around small however found
school part number going every point water general public side both room give along thought course hand always
city fact left night though family best church four need large second next light mind seem head read answer
question word paper field letter table river stone music story light glass green white black north south early
late young often almost above below across inside reason result effect change moment person child mother father
friend money story market price model system power center number period field member common simple single strong
clear whole local human social special recent present certain likely ready close begin build learn write speak
carry keep hold turn show move play run bring happen stand lose meet include continue set understand watch
follow create open walk offer remember consider appear buy wait serve die send expect stay fall cut reach kill
remain suggest raise pass sell require report decide pull window garden summer winter morning evening village
country island mountain forest bridge street corner engine wheel metal paper cotton silver golden bright quiet
gentle narrow heavy empty round square sudden careful modern ancient distant nearby simple central northern
southern western eastern ordinary familiar
""".split()  # noqa: SIM905 - a thousand quotation marks would not read better

_VOCABULARY = list(dict.fromkeys(_WORDS))
_TABLE_SIZE = 4096
_REMEMBERED = 200_000


class Token(NamedTuple):
    """A piece of text with its identity; start and stop are byte offsets in the text."""

    id: int
    text: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Encoding:
    """A text as tokens. ids and pieces have equal lengths; joined, the pieces are the text (after `<s>` if added)."""

    ids: list[int]
    pieces: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def last(self, count: int) -> Encoding:
        """The last `count` tokens: what `truncate` leaves."""
        return Encoding(self.ids[-count:], self.pieces[-count:]) if count < len(self.ids) else self


class AnyTokenizer(Protocol):
    """What the server asks of a tokenizer. eos_id: of the token that ends an answer, if the model has one."""

    eos_id: int | None
    special_ids: frozenset[int]

    def encode(self, text: str, special_tokens: bool = True) -> Encoding: ...
    def offsets(self, text: str, special_tokens: bool = True) -> list[Token]: ...
    def text_of(self, number: int) -> str: ...
    def words(self) -> list[tuple[int, str]]: ...


class Tokenizer:
    """Words to token identities below `vocabulary` and back."""

    eos_id: int | None = EOS_ID
    special_ids = frozenset((BOS_ID, EOS_ID))

    def __init__(self, vocabulary: int = 32000) -> None:
        self.vocabulary = max(vocabulary, _TABLE_SIZE + 1024)
        self._ids: dict[str, int] = {BOS: BOS_ID, EOS: EOS_ID}
        for index, word in enumerate(_VOCABULARY):
            self._ids[" " + word] = _FIRST_WORD_ID + 2 * index
            self._ids[word] = _FIRST_WORD_ID + 2 * index + 1
        self._texts: dict[int, str] = {number: text for text, number in self._ids.items()}

    def id_of(self, piece: str) -> int:
        """The identity of one piece."""
        known = self._ids.get(piece)
        if known is not None:
            return known
        number = _TABLE_SIZE + zlib.crc32(piece.encode()) % (self.vocabulary - _TABLE_SIZE)
        if len(self._ids) < _REMEMBERED:
            self._ids[piece] = number
            self._texts.setdefault(number, piece)
        return number

    def encode(self, text: str, special_tokens: bool = True) -> Encoding:
        """The tokens of a text, after `<s>` unless told otherwise."""
        pieces = _PIECE.findall(text)
        known, id_of = self._ids, self.id_of
        ids = [known[piece] if piece in known else id_of(piece) for piece in pieces]
        return Encoding([BOS_ID, *ids], [BOS, *pieces]) if special_tokens else Encoding(ids, pieces)

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of tokens that this tokenizer gave out; unknown ones are `<unk>`."""
        return "".join(
            self._texts.get(number, "<unk>") for number in ids if not (skip_special and number in (BOS_ID, EOS_ID))
        )

    def text_of(self, number: int) -> str:
        """The text of one token."""
        return self._texts.get(number, "<unk>")

    def words(self) -> list[tuple[int, str]]:
        """What answers are made of: words with a space before them."""
        return [(self._ids[" " + word], " " + word) for word in _VOCABULARY]

    def offsets(self, text: str, special_tokens: bool = True) -> list[Token]:
        """What /tokenize answers: `<s>` has no place in the text."""
        tokens = [Token(BOS_ID, "", 0, 0)] if special_tokens else []
        at = 0
        for match in _PIECE.finditer(text):
            piece = match[0]
            size = len(piece.encode())
            tokens.append(Token(self.id_of(piece), piece, at, at + size))
            at += size
        return tokens


def logprob(token_id: int, index: int) -> float:
    """A made-up log probability: a multiple of 1/64, so that it reads the same as f32 and as f64."""
    return -((token_id * 31 + index * 17) % 97 + 1) / 64


@dataclass(frozen=True, slots=True)
class AnswerToken:
    """One token of an answer, with its JSON ready to be sent."""

    id: int
    text: str
    logprob: float
    special: bool = False

    @property
    def json(self) -> str:
        special = "true" if self.special else "false"
        text = json.dumps(self.text, ensure_ascii=False)
        return f'{{"id":{self.id},"text":{text},"logprob":{self.logprob!r},"special":{special}}}'


class Speech:
    """The endless text that all answers are cut from; where one begins depends on the prompt and the seed.

    tokens, json: the same positions as objects and as ready JSON. end: the token that ends an answer.
    """

    LENGTH = 1 << 14

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        words = tokenizer.words()
        stop = tokenizer.encode(".", special_tokens=False)
        full_stop = (stop.ids[0], stop.pieces[0]) if len(stop) == 1 else words[0]
        state, sentence = 12345, 0
        self.tokens: list[AnswerToken] = []
        for index in range(self.LENGTH):
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF
            sentence += 1
            number, text = words[(state >> 8) % len(words)]
            if sentence > 7 and (state >> 9) % 6 == 0:
                (number, text), sentence = full_stop, 0
            self.tokens.append(AnswerToken(number, text, logprob(number, index)))
        self.json: list[str] = [each.json for each in self.tokens]
        number = tokenizer.eos_id if tokenizer.eos_id is not None else 0
        self.end = AnswerToken(number, tokenizer.text_of(number), logprob(number, 0), True)

    def start(self, ids: Sequence[int], seed: int | None) -> int:
        """Where the answer to these tokens begins. seed: None for greedy decoding."""
        tail = ",".join(map(str, ids[-64:]))
        return zlib.crc32(f"{seed}/{len(ids)}/{tail}".encode()) % self.LENGTH

    def at(self, position: int) -> AnswerToken:
        return self.tokens[position % self.LENGTH]


def alternatives(spoken: AnswerToken, index: int, count: int, speech: Speech) -> list[AnswerToken]:
    """The `count` likeliest tokens at this place, the one that was taken first."""
    others = (speech.at(spoken.id * 13 + index + 29 * k) for k in range(1, count))
    return [spoken, *(AnswerToken(o.id, o.text, spoken.logprob - 0.25 * (k + 1)) for k, o in enumerate(others))][:count]
