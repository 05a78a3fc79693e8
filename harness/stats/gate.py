"""Gate: how much worse a candidate may be, by figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from harness.stats.good_share import GOOD_SHARE
from harness.stats.good_share import LIMIT as GOOD_SHARE_LIMIT
from harness.units import format_percent

DEFAULT_LIMIT = 0.10


@dataclass(frozen=True)
class Accepted:
    """A regression that is known and let pass for a while, of a figure or of both quantiles of a metric.

    limit: share by which it may be worse meanwhile. until: the last day, UTC. load: `8 users`; None: every load.
    """

    figure: str
    limit: float
    reason: str
    until: date
    load: str | None = None

    def covers(self, figure: str, load: str) -> bool:
        return self.figure in (figure, figure.rpartition("_")[0]) and self.load in (None, load)

    def __str__(self) -> str:
        at = f" at {self.load}" if self.load else ""
        return f"{self.figure}{at} may be {format_percent(self.limit)} worse until {self.until}: {self.reason}"

    def as_dict(self) -> dict[str, Any]:
        return {"limit": self.limit, "until": str(self.until), "reason": self.reason}


@dataclass(frozen=True)
class Gate:
    """What NEW may not exceed. limits: figure -> share by which it may be worse. default: of the figures not named.

    undecided_passes: what this data cannot tell passes. accepted: what may be worse than that on the day `today`.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    default: float = DEFAULT_LIMIT
    undecided_passes: bool = False
    accepted: tuple[Accepted, ...] = ()
    today: date = date.max

    def limit(self, figure: str) -> float:
        named = self.limits.get(figure, self.limits.get(figure.rpartition("_")[0]))
        if named is not None:
            return named
        return min(self.default, GOOD_SHARE_LIMIT) if figure == GOOD_SHARE else self.default

    def names(self, figure: str) -> bool:
        return figure in self.limits or figure.rpartition("_")[0] in self.limits

    def accepts(self, figure: str, load: str) -> Accepted | None:
        """The acceptance that is in force, if any."""
        return next((each for each in self.accepted if self.in_force(each) and each.covers(figure, load)), None)

    def accepted_once(self, figure: str, load: str) -> Accepted | None:
        """One that expired, where none is in force."""
        found = [each for each in self.accepted if each.covers(figure, load)]
        return None if any(map(self.in_force, found)) else max(found, key=lambda each: each.until, default=None)

    def in_force(self, accepted: Accepted) -> bool:
        return self.today <= accepted.until
