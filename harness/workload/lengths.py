"""Distributions of lengths in tokens. Pure: a number between 0 and 1 goes in, a length comes out.

Lengths come by the inverse of the cumulative distribution. Bounds cut the distribution and do not pile what lies beyond
onto themselves, so that a bound never is an unlikely favourite; a cut moves the mean, which `mean` tells.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from itertools import accumulate
from statistics import NormalDist
from typing import Protocol

from harness.errors import UsageError

FORMS = "200, uniform:100:300, normal:500:100, lognormal:500:300, exponential:200 or list:100,200*3"
MOST = 10_000_000
_STEPS = 2000
_ADVICE = f"Write {FORMS}; normal, lognormal and exponential also with bounds, as in normal:500:100:1:900."


class Lengths(Protocol):
    """One distribution. str() is the text that makes it again."""

    def at(self, fraction: float) -> int:
        """The length below which this fraction of all lengths lies; at least 1."""
        ...

    @property
    def longest(self) -> int | None:
        """The longest length possible, None without bound."""
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

    def __str__(self) -> str:
        return str(self.tokens)


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

    def __str__(self) -> str:
        return f"uniform:{self.low}:{self.high}"


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

    def __str__(self) -> str:
        numbers = [self.mean] if self.kind == "exponential" else [self.mean, self.deviation]
        bounds = [] if self.high is None and self.low == 1 else [self.low, *([] if self.high is None else [self.high])]
        return ":".join([self.kind, *map(_shown, numbers), *map(str, bounds)])


@dataclass(frozen=True)
class Listed:
    """Given lengths with given weights."""

    tokens: tuple[int, ...]
    weights: tuple[int, ...]

    def at(self, fraction: float) -> int:
        sums = list(accumulate(self.weights))
        return self.tokens[min(bisect.bisect_right(sums, fraction * sums[-1]), len(sums) - 1)]

    @property
    def longest(self) -> int:
        return max(self.tokens)

    def __str__(self) -> str:
        parts = (f"{n}*{w}" if w != 1 else str(n) for n, w in zip(self.tokens, self.weights, strict=True))
        return "list:" + ",".join(parts)


def _shown(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else repr(number)


def mean(lengths: Lengths) -> float:
    """The mean length, to about one part in a thousand, bounds and rounding included."""
    return sum(lengths.at((step + 0.5) / _STEPS) for step in range(_STEPS)) / _STEPS


def parse_lengths(text: str | int) -> Lengths:
    """`200`, `uniform:LOW:HIGH`, `normal:MEAN:DEVIATION[:LOW[:HIGH]]`, `lognormal:` likewise, `exponential:MEAN[...]`,
    `list:100,200*3`. Raises UsageError.
    """
    kind, _, rest = str(text).strip().partition(":")
    try:
        if kind == "list":
            return _listed(rest)
        numbers = [float(part) for part in rest.split(":")] if rest else []
        return _from_numbers(kind, numbers)
    except ValueError as error:
        reason = f": {error}" if str(error).startswith("expected") else ""
        raise UsageError(f"not a length or a distribution of lengths: {text!r}{reason}", advice=_ADVICE) from error


def _from_numbers(kind: str, numbers: list[float]) -> Lengths:
    if not numbers:
        return Fixed(_tokens(float(kind)))
    if kind == "uniform":
        return _uniform([_tokens(number) for number in numbers])
    if kind == "exponential":
        return _bounded(kind, numbers[0], numbers[0], numbers[1:])
    if kind not in ("normal", "lognormal"):
        raise ValueError("expected uniform, normal, lognormal, exponential or list")
    if len(numbers) < 2:
        raise ValueError("expected a mean and a deviation")
    return _bounded(kind, numbers[0], numbers[1], numbers[2:])


def _uniform(bounds: list[int]) -> Uniform:
    if len(bounds) != 2 or bounds[0] > bounds[1]:
        raise ValueError("expected a lower bound and a higher one")
    return Uniform(bounds[0], bounds[1])


def _bounded(kind: str, average: float, deviation: float, bounds: list[float]) -> Bounded:
    if not 0 < average <= MOST or not 0 < deviation <= MOST:
        raise ValueError("expected a mean and a deviation above zero")
    cuts = [_tokens(number) for number in bounds]
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
    return Listed(tuple(_tokens(float(length)) for length, _, _ in pairs), weights)


def _tokens(number: float) -> int:
    if not number.is_integer() or not 1 <= number <= MOST:
        raise ValueError(f"expected a whole number of tokens from 1 to {MOST:,}, found {number:g}")
    return int(number)
