"""Distributions of lengths in tokens: a number between 0 and 1 goes in, a length comes out.

Lengths come by the inverse of the cumulative distribution. Bounds cut the distribution and do not pile what lies beyond
onto themselves, so that a bound never is an unlikely favourite; a cut moves the mean, which `mean` tells. How `4k` is
read, tokens.py says.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from statistics import NormalDist
from typing import Literal, Protocol

from harness.errors import UsageError
from harness.workload.recorded import RecordedLengths, recorded
from harness.workload.tokens import MOST_TOKENS, parse_number, whole_tokens

Side = Literal["input_tokens", "output_tokens"]

FORMS = "200, 4k, uniform:100:300, normal:500:100, lognormal:500:300, exponential:200, list:100,200*3 or file:PATH"
_FILE = "file"
_STEPS = 2000
_ADVICE = f"Write {FORMS}; normal, lognormal and exponential also with bounds, as in normal:500:100:1:900."


class Lengths(Protocol):
    """One distribution. str() is what the manifest says of it."""

    def at(self, fraction: float) -> int:
        """The length below which this fraction of all lengths lies; at least 1."""
        ...

    @property
    def longest(self) -> int | None:
        """The longest length possible, None without bound."""
        ...

    def text(self) -> str:
        """What `parse_lengths` makes it of again, on any machine."""
        ...


@dataclass(frozen=True)
class Fixed:
    """Always the same. Take care with TGI: equal prompts that fill its prefill budget exactly meet a fault of its
    prefix cache, which then answers from memory that was never computed (backends/v3/src/queue.rs:344-374); let
    lengths vary.
    """

    tokens: int

    def at(self, fraction: float) -> int:
        return self.tokens

    @property
    def longest(self) -> int:
        return self.tokens

    def text(self) -> str:
        return str(self.tokens)

    def __str__(self) -> str:
        return self.text()


@dataclass(frozen=True)
class Uniform:
    """Each whole number from low to high alike."""

    low: int
    high: int

    def at(self, fraction: float) -> int:
        return min(self.high, self.low + int(fraction * (self.high - self.low + 1)))

    @property
    def longest(self) -> int:
        return self.high

    def text(self) -> str:
        return f"uniform:{self.low}:{self.high}"

    def __str__(self) -> str:
        return self.text()


@dataclass(frozen=True)
class Bounded:
    """A distribution over real numbers, cut at low and high and rounded. mean, deviation: before cutting, in tokens."""

    kind: str
    mean: float
    deviation: float
    low: int = 1
    high: int | None = None

    def at(self, fraction: float) -> int:
        below = self._share(self.low - 0.5)
        above = 1.0 if self.high is None else self._share(self.high + 0.5)
        value = self._inverse(below + fraction * (above - below))
        return max(self.low, round(value) if self.high is None else min(self.high, round(value)))

    @property
    def longest(self) -> int | None:
        return self.high

    def share_kept(self) -> float:
        """How much of the uncut distribution lies within the bounds."""
        return (1.0 if self.high is None else self._share(self.high + 0.5)) - self._share(self.low - 0.5)

    def _share(self, value: float) -> float:
        """How much lies below the value."""
        if self.kind == "normal":
            return NormalDist(self.mean, self.deviation).cdf(value)
        if value <= 0:
            return 0.0
        if self.kind == "exponential":
            return -math.expm1(-value / self.mean)
        return self._logarithms().cdf(math.log(value))

    def _inverse(self, share: float) -> float:
        share = min(max(share, 1e-15), 1 - 1e-15)
        if self.kind == "normal":
            return NormalDist(self.mean, self.deviation).inv_cdf(share)
        if self.kind == "exponential":
            return -self.mean * math.log1p(-share)
        return math.exp(self._logarithms().inv_cdf(share))

    def _logarithms(self) -> NormalDist:
        """Of a log-normal distribution with this mean and deviation, that of the logarithms."""
        variance = math.log1p((self.deviation / self.mean) ** 2)
        return NormalDist(math.log(self.mean) - variance / 2, math.sqrt(variance))

    def text(self) -> str:
        numbers = [self.mean] if self.kind == "exponential" else [self.mean, self.deviation]
        bounds = [] if self.high is None and self.low == 1 else [self.low, *([] if self.high is None else [self.high])]
        return ":".join([self.kind, *map(_shown, numbers), *map(str, bounds)])

    def __str__(self) -> str:
        return self.text()


@dataclass(frozen=True)
class Listed:
    """Given lengths with given weights. source: the file that they were counted in, where there is one."""

    tokens: tuple[int, ...]
    weights: tuple[int, ...]
    source: RecordedLengths | None = None

    def at(self, fraction: float) -> int:
        return self.tokens[min(bisect.bisect_right(self._sums, fraction * self._sums[-1]), len(self._sums) - 1)]

    @cached_property
    def _sums(self) -> list[int]:
        return list(accumulate(self.weights))

    @property
    def longest(self) -> int:
        return max(self.tokens)

    def text(self) -> str:
        parts = (f"{n}*{w}" if w != 1 else str(n) for n, w in zip(self.tokens, self.weights, strict=True))
        return "list:" + ",".join(parts)

    def __str__(self) -> str:
        return str(self.source) if self.source is not None else self.text()


def _shown(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else repr(number)


def mean(lengths: Lengths) -> float:
    """The mean length, to about one part in a thousand, bounds and rounding included."""
    return sum(lengths.at((step + 0.5) / _STEPS) for step in range(_STEPS)) / _STEPS


def option_text(lengths: Lengths | None) -> str | None:
    """What an option says to have these lengths again; of those in a file its path."""
    if lengths is None:
        return None
    recorded_in = lengths.source if isinstance(lengths, Listed) else None
    return lengths.text() if recorded_in is None else f"{_FILE}:{recorded_in.path}"


def parse_lengths(text: str | int | Lengths, side: Side = "input_tokens") -> Lengths:
    """`200`, `uniform:LOW:HIGH`, `normal:MEAN:DEVIATION[:LOW[:HIGH]]`, `lognormal:` likewise, `exponential:MEAN[...]`,
    `list:100,200*3`, `file:PATH`; lengths as they are. side: which lengths of a file that holds pairs. Raises
    UsageError.
    """
    if not isinstance(text, str | int):
        return text
    kind, _, rest = str(text).strip().partition(":")
    if kind == _FILE:
        return of_recorded(recorded(rest), side)
    try:
        if kind == "list":
            return _listed(rest)
        return _from_numbers(kind, [parse_number(part) for part in rest.split(":")] if rest else [])
    except ValueError as error:
        reason = f": {error}" if str(error).startswith("expected") else ""
        raise UsageError(f"not a length or a distribution of lengths: {text!r}{reason}", advice=_ADVICE) from error


def of_recorded(lengths: RecordedLengths, side: Side) -> Listed:
    """How often each length is in a file, whatever is beside it."""
    counts = lengths.counts(0 if side == "input_tokens" else 1)
    return Listed(tuple(counts), tuple(counts.values()), lengths)


def recorded_pairs(inputs: Lengths, outputs: Lengths) -> RecordedLengths | None:
    """The pairs of prompt and answer of a file that both sides are of; None where they are of none, or it has none."""
    of = [each.source if isinstance(each, Listed) else None for each in (inputs, outputs)]
    return of[0] if of[0] is not None and of[0] == of[1] and of[0].in_pairs else None


def _from_numbers(kind: str, numbers: list[Fraction]) -> Lengths:
    if not numbers:
        return Fixed(whole_tokens(parse_number(kind)))
    if kind == "uniform":
        return _uniform([whole_tokens(number) for number in numbers])
    if kind == "exponential":
        return _bounded(kind, float(numbers[0]), float(numbers[0]), numbers[1:])
    if kind not in ("normal", "lognormal"):
        raise ValueError("expected uniform, normal, lognormal, exponential, list or file")
    if len(numbers) < 2:
        raise ValueError("expected a mean and a deviation")
    return _bounded(kind, float(numbers[0]), float(numbers[1]), numbers[2:])


def _uniform(bounds: list[int]) -> Uniform:
    if len(bounds) != 2 or bounds[0] > bounds[1]:
        raise ValueError("expected a lower bound and a higher one")
    return Uniform(bounds[0], bounds[1])


def _bounded(kind: str, average: float, deviation: float, bounds: list[Fraction]) -> Bounded:
    if not 0 < average <= MOST_TOKENS or not 0 < deviation <= MOST_TOKENS:
        raise ValueError("expected a mean and a deviation above zero")
    cuts = [whole_tokens(number) for number in bounds]
    if len(cuts) > 2 or cuts != sorted(cuts):
        raise ValueError("expected at most a lower bound and a higher one")
    bounded = Bounded(kind, average, deviation, *cuts)
    if bounded.share_kept() < 1e-6:
        raise ValueError("expected bounds that leave something of the distribution")
    return bounded


def _listed(text: str) -> Listed:
    pairs = [part.partition("*") for part in text.split(",")]
    weights = tuple(int(weight) if star else 1 for _, star, weight in pairs)
    if min(weights) < 1:
        raise ValueError("expected weights above zero")
    return Listed(tuple(whole_tokens(parse_number(length)) for length, _, _ in pairs), weights)
