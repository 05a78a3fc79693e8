"""Comparison: each figure's change, and whether all of them pass a gate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from harness.stats.figure import or_none
from harness.stats.gate import Accepted
from harness.stats.good_share import GOOD_SHARE
from harness.stats.run_figure import THROUGHPUT

Verdict = Literal["same", "faster", "slower", "inconclusive"]

MOST_REPEATS = 99
UNKNOWN = "not measured"  # where the spread between runs is from, if it is from nowhere


@dataclass(frozen=True)
class Needs:
    """What would decide. repeats: more of each side. seconds: that they take, both sides together."""

    repeats: int
    seconds: float


@dataclass(frozen=True)
class Change:
    """One figure of one level. base, new: seconds, tokens per second, or a share. ratio: new / base.

    ci95: of the ratio. worse: by how much NEW is worse, as a share. spread: between runs of the same thing, as a share;
    None where nobody measured it, and ci95 is then only that of these two runs.
    spread_from: where it was measured. smallest: share of the smallest change that is found in 80 % of such repeats.
    trend: share by which the figure moved from run to run, taken out. limit: share by which it may be worse. gated: it
    counts. passes: the gate; None where this data cannot tell. needs: more repeats that could. accepted: why the
    limit is for a while another than the gate's own. expired: why it was until lately.
    """

    figure: str
    level: int
    load: str
    base: float
    new: float
    ratio: float
    ci95: tuple[float, float]
    worse: float
    spread: float | None
    spread_from: str
    smallest: float | None
    limit: float
    verdict: Verdict
    gated: bool
    passes: bool | None
    trend: float | None = None
    needs: int = 0
    accepted: Accepted | None = None
    expired: Accepted | None = None

    @property
    def most_worse(self) -> float:
        """The largest share that the interval does not exclude."""
        low, high = self.ci95
        if self.figure == GOOD_SHARE:
            return self.base * (1 - low)
        return 1 / max(low, 1e-9) - 1 if self.figure == THROUGHPUT else high - 1

    @property
    def limit_ratio(self) -> float:
        """The ratio at which NEW is worse by the limit; NaN where BASE's share is 0."""
        if self.figure == GOOD_SHARE:
            return 1 - self.limit / self.base if self.base > 0 else math.nan
        return 1 / (1 + self.limit) if self.figure == THROUGHPUT else 1 + self.limit

    def as_dict(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "load": self.load,
            "base": or_none(self.base),
            "new": or_none(self.new),
            "ratio": or_none(self.ratio),
            "ci95": [or_none(end) for end in self.ci95],
            "run_to_run_spread": self.spread,
            "spread_from": self.spread_from,
            "smallest_detectable_change": self.smallest,
            "trend_per_run": self.trend,
            "limit": self.limit,
            "verdict": self.verdict,
            "gated": self.gated,
            "passes": self.passes,
            "repeats_needed": self.needs,
            "accepted": self.accepted and self.accepted.as_dict(),
            "expired": self.expired and self.expired.as_dict(),
        }


@dataclass(frozen=True)
class Comparison:
    """problems: why the two cannot be compared, or a figure is missing; any of them fails the gate.

    differences: what else is not the same, for the reader: model, engine, settings. left_out: figures that neither side
    can have, and why, which say nothing for or against NEW. notes: what to know when reading: order, drift, repeats
    that were left out. needs: what would decide what is not; None where nothing is open.
    """

    base: tuple[str, ...]
    new: tuple[str, ...]
    emulated: bool
    changes: tuple[Change, ...]
    problems: tuple[str, ...]
    differences: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    needs: Needs | None = None
    undecided_passes: bool = False

    @property
    def gated(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.gated)

    @property
    def verdict(self) -> Verdict:
        """Of the gated figures together. The same: none is shown to differ, and none can be worse beyond its limit;
        one that may yet be better does not make that inconclusive.
        """
        found = {change.verdict for change in self.gated}
        if self.problems or not found:
            return "inconclusive"
        if not found & {"slower", "faster"} and all(change.passes for change in self.gated):
            return "same"
        order: tuple[Verdict, ...] = ("slower", "inconclusive", "faster", "same")
        return next(verdict for verdict in order if verdict in found)

    @property
    def undecided(self) -> tuple[Change, ...]:
        """Of the gated ones those that may or may not be worse by more than their limit."""
        return tuple(change for change in self.gated if change.passes is None)

    def breaks(self, change: Change) -> bool:
        """Whether this change alone breaks the gate."""
        return change.gated and (change.passes is False or (change.passes is None and not self.undecided_passes))

    @property
    def passes(self) -> bool:
        return not self.problems and bool(self.gated) and not any(map(self.breaks, self.gated))

    def as_dict(self) -> dict[str, Any]:
        worst: dict[str, Change] = {}
        for change in sorted(self.changes, key=_severity):
            worst.setdefault(change.figure, change)
        names = dict.fromkeys(change.figure for change in self.changes)
        levels = dict.fromkeys((change.level, change.load) for change in self.changes)
        return {
            "verdict": self.verdict,
            "passes": self.passes,
            "emulated": self.emulated,
            "base": list(self.base),
            "new": list(self.new),
            "problems": list(self.problems),
            "differences": list(self.differences),
            "left_out": list(self.left_out),
            "notes": list(self.notes),
            "needs": self.needs and {"repeats": self.needs.repeats, "seconds": self.needs.seconds},
            "metrics": {name: worst[name].as_dict() for name in names},
            "levels": [
                {
                    "level": level,
                    "load": load,
                    "metrics": {each.figure: each.as_dict() for each in self.changes if each.level == level},
                }
                for level, load in levels
            ],
        }


def _severity(change: Change) -> tuple[bool, int, int, float]:
    order = ("slower", "inconclusive", "faster", "same")
    rank: Callable[[bool | None], int] = {False: 0, None: 1, True: 2}.__getitem__
    return not change.gated, rank(change.passes), order.index(change.verdict), -change.worse
