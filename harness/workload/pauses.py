"""Distributions of durations, such as how long a user thinks before the next question."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import UsageError
from harness.units import parse_duration
from harness.workload.lengths import Bounded, Fixed, Lengths, Uniform, mean

FORMS = "0, 5s, uniform:2s:10s, exponential:5s, normal:8s:2s or lognormal:8s:6s"
_LONGEST = 86_400.0  # seconds


@dataclass(frozen=True)
class Pauses:
    """In whole milliseconds, as a distribution of lengths; None is no pause at all. told: as it was written."""

    milliseconds: Lengths | None
    told: str

    def at(self, fraction: float) -> float:
        """Seconds below which this fraction of all pauses lies."""
        return 0.0 if self.milliseconds is None else self.milliseconds.at(fraction) / 1000

    @property
    def mean(self) -> float:
        return 0.0 if self.milliseconds is None else mean(self.milliseconds) / 1000

    def __str__(self) -> str:
        return self.told


NO_PAUSE = Pauses(None, "0")


def parse_pauses(text: str | int | float | Pauses, where: str | None = None) -> Pauses:
    """One of FORMS, or pauses as they are; bounds may follow as for lengths, as in `exponential:5s:1s:60s`. Raises
    UsageError.
    """
    if isinstance(text, Pauses):
        return text
    told = str(text).strip()
    kind, _, rest = told.partition(":")
    try:
        numbers = [_milliseconds(part) for part in (rest or kind).split(":")]
        return Pauses(_distribution(kind if rest else "", numbers), told)
    except ValueError as error:
        reason = f": {error}" if str(error).startswith("expected") else ""
        found = f"not a duration or a distribution of them: {told!r}{reason}"
        raise UsageError(found, where=where, advice=f"Write {FORMS}.") from error


def _milliseconds(text: str) -> int:
    seconds = parse_duration(text)
    if seconds > _LONGEST:
        raise ValueError("expected at most a day")
    return round(seconds * 1000)


def _distribution(kind: str, numbers: list[int]) -> Lengths | None:
    if not kind:
        return Fixed(numbers[0]) if numbers[0] else None
    if kind == "uniform" and len(numbers) == 2 and numbers[0] <= numbers[1]:
        return Uniform(*numbers)
    named = {"exponential": 1, "normal": 2, "lognormal": 2}.get(kind)
    if named is None:
        raise ValueError("expected uniform, exponential, normal or lognormal")
    shape, bounds = numbers[:named], numbers[named:]
    if len(shape) < named or min(shape) <= 0:
        raise ValueError("expected a mean, and for normal and lognormal a deviation, above zero")
    if len(bounds) > 2 or bounds != sorted(bounds):
        raise ValueError("expected at most a lower bound and a higher one")
    found = Bounded(kind, shape[0], shape[-1], *(bounds or [0]))
    if found.share_kept() < 1e-6:
        raise ValueError("expected bounds that leave something of the distribution")
    return found
