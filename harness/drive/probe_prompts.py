"""The prompts of a probe's loads: made in tokens of the service's own tokenizer, and held against what it counted."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from harness.engines.api import Api
from harness.engines.client import Client, NoAnswer
from harness.engines.endpoint import Endpoint
from harness.engines.tokens import Tokenizer, find_tokenizer
from harness.load.burst import BurstAnswer, Patience, send_burst
from harness.probe import prompts
from harness.probe.setting import Load
from harness.workload.request import Request

T = TypeVar("T")


@dataclass(frozen=True)
class Counter:
    """Tokens of a bare prompt. by_route: by the service's tokenizer, which costs it next to nothing. first_piece: the
    text of a prompt's first token; None where the tokenizer tells no places.
    """

    count: prompts.Count
    by_route: bool
    first_piece: prompts.FirstPiece | None = None

    def ruler(self, *, short: int = 40, long: int = 400) -> prompts.Ruler:
        """For this tokenizer; short, long: words of the prompts with which it is checked."""
        return prompts.measure(self.count, short=short, long=long, first_piece=self.first_piece)


@dataclass
class Lengths:
    """What the engine counted of the prompts that were sent. told: those whose tokens it told. wrong: of these, not as
    long as was meant. most: tokens, by which one of them differed. corrected: prompts that its tokenizer counted before
    they were sent; missed: of these, not to be had at the length that was meant.
    """

    told: int = 0
    wrong: int = 0
    most: int = 0
    corrected: int = 0
    missed: int = 0

    def hear(self, answers: Iterable[BurstAnswer]) -> None:
        for each in answers:
            if each.input_tokens is not None and each.request.input_tokens is not None:
                differs = abs(each.input_tokens - each.request.input_tokens)
                self.told += 1
                self.wrong += differs > 0
                self.most = max(self.most, differs)

    def sentence(self, ruler: prompts.Ruler) -> str | None:
        """What is to be said of them; None where every length is known to be right."""
        if self.wrong:
            return (
                f"{self.wrong:,} of {self.told:,} prompts were not as long as was meant by the engine's own count, by"
                f" {self.most:,} tokens at most. Figures in tokens are as inexact."
            )
        if self.missed:
            return f"{self.missed:,} of {self.corrected:,} prompts could not be made as long as was meant."
        if ruler.exact or self.told or self.corrected:
            return None
        return (
            "The engine told no token counts that fit its prompts, so each word was taken for"
            f" {ruler.per_word:g} tokens: lengths are only nearly exact."
        )


def requests_of(
    load: Load,
    ruler: prompts.Ruler,
    *,
    salt: str,
    first: int = 0,
    counter: Counter | None = None,
    lengths: Lengths | None = None,
) -> list[list[Request]]:
    """The load's requests with prompts of their lengths, all different; all are sampled, which costs memory that greedy
    decoding does not. first: number of the word that the first prompt begins with; each begins with another. counter:
    of a tokenizer that the ruler does not fit; every prompt is then counted and corrected, which `lengths` notes.
    """
    made: list[list[Request]] = []
    base, number = zlib.crc32(salt.encode()), 0
    common = ruler.text(ruler.words(load.shared_tokens), seed=base, first=first) if load.shared_tokens else ""
    for wave in load.waves:
        made.append([])
        for shape in wave:
            seed = base + number
            text = ruler.prompt(shape.input_tokens, seed=seed, first=first + number, common=common)
            if counter is not None:
                text, right = prompts.corrected(text, shape.input_tokens, counter.count, ruler, seed=seed)
                if lengths is not None:
                    lengths.corrected, lengths.missed = lengths.corrected + 1, lengths.missed + (not right)
            made[-1].append(Request(text, shape.input_tokens, shape.max_new_tokens, seed=seed % 2**31))
            number += 1
    return made


@contextmanager
def token_counter(endpoint: Endpoint, api: Api) -> Iterator[Counter]:
    """Counts by the service's tokenizer, else by the input length that an answer tells; the counter gives None where
    neither is there.
    """
    with Client(endpoint) as client:
        try:
            tokenizer = find_tokenizer(client, endpoint.model_name)
        except (NoAnswer, ValueError):
            tokenizer = None
        yield _by_answers(endpoint, api) if tokenizer is None else _by_route(tokenizer)


def _by_answers(endpoint: Endpoint, api: Api) -> Counter:
    def count(text: str) -> int | None:
        burst = send_burst(endpoint, api, [[Request(text, len(text) // 4, 1)]], patience=Patience(30, 60))
        return burst.answers[0].input_tokens

    return Counter(count, by_route=False)


def _by_route(tokenizer: Tokenizer) -> Counter:
    spans = tokenizer.spans

    def first_piece(text: str) -> str | None:
        if spans is None:
            return None
        told: Sequence[tuple[int, int]] = _told(lambda: spans(text)) or ()
        return next((text[start:stop] for start, stop in told if stop > start), None)

    return Counter(lambda text: _told(lambda: tokenizer.count(text)), by_route=True, first_piece=first_piece)


def _told(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except (NoAnswer, ValueError):
        return None
