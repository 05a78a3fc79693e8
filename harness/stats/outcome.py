"""The outcome of one level of a capacity search: what its records say of the SLO, and whether they are steady."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from harness.catalog.slo import Slo
from harness.measure.offered import arrived
from harness.measure.records import COMPLETED, FAILED, Records
from harness.measure.run_folder import Level
from harness.stats.decision import BoundShare, Decision, bound_shares, decide, failures
from harness.stats.outage import outage_seconds
from harness.stats.steadiness import backlog_growth, growth_limit
from harness.stats.trend import PACES, trends
from harness.stats.window import Window, steady_window

Approach = Literal["below", "above"]


@dataclass(frozen=True)
class Outcome:
    """load: users, or requests per second. shares: of each bound. seconds: it took, waits included. approach: whether
    the level before was beyond the knee (`above`). saturated: its backlog grew to the end. drifts: it got slower or
    faster while it lasted, so its share is of no one state. brief: it was only to show on which side of the knee it is.
    failures: by kind, the share of those due that failed or were dropped; empty where an earlier version did not keep
    it. came: requests, or conversations that began, per second of the window, where chance says when they come; None
    elsewhere. due: requests in the window; 0 where an earlier version did not keep it. outage: seconds in which the
    service was away and nobody was answered (outage.py).
    """

    load: float
    shares: tuple[BoundShare, ...]
    seconds: float
    approach: Approach = "below"
    saturated: bool = False
    drifts: bool = False
    brief: bool = False
    failures: Mapping[str, float] = field(default_factory=dict)
    came: float | None = None
    due: int = 0
    outage: float = 0.0

    @property
    def offered(self) -> float:
        """The load as it came, where chance says when requests come; else as it was asked for.

        Of Poisson arrivals the share of misses and the number that came go together as the share and the rate do
        (Cov(miss, N) = rate d E[miss] / d rate: the score of P. W. Glynn, "Likelihood Ratio Gradient Estimation for
        Stochastic Systems", Communications of the ACM 33 (1990) 75-84). So a level tells of the rate that it had, and
        what chance did to that rate is no error of the share.
        """
        return self.came if self.came is not None else self.load

    @property
    def decision(self) -> Decision:
        """Of this level alone."""
        if self.saturated:
            return "breaks"
        found = decide(self.shares)
        return "undecided" if self.outage or (self.drifts and found == "holds") else found

    @property
    def attainment(self) -> BoundShare | None:
        """Of the bound that is nearest to breaking; None where nothing was due."""
        known = [each for each in self.shares if not math.isnan(each.share)]
        return min(known, key=lambda each: (each.share - each.needed) / (1 - each.needed), default=None)

    @property
    def tells(self) -> bool:
        """Whether it gave any figure that a bound could be held against; a level shorter than a pause may give none."""
        return self.saturated or self.attainment is not None

    @property
    def seems_to_hold(self) -> bool:
        """By the shares as they are, however sure; not where there is none."""
        return not self.saturated and bool(self.shares) and all(each.share >= each.needed for each in self.shares)

    @property
    def failed(self) -> float:
        """Share of the requests due."""
        return sum(self.failures.values())

    @property
    def main_failure(self) -> str | None:
        """The most frequent kind, where failures alone break the bound that is nearest to breaking; else None."""
        nearest = self.attainment
        if nearest is None or self.failed <= 1 - nearest.needed + 1e-9:
            return None
        return max(self.failures, key=lambda kind: self.failures[kind])

    def as_dict(self) -> dict[str, Any]:
        """An entry of `levels` in capacity.json."""
        nearest = self.attainment
        return {
            "load": self.load,
            "attainment": nearest.share if nearest else None,
            "needed": nearest.needed if nearest else None,
            "interval": list(nearest.interval) if nearest else None,
            "decision": self.decision,
            "seconds": self.seconds,
            "approach": self.approach,
            "oversaturated": self.saturated,
            "drifts": self.drifts,
            "brief": self.brief,
            "bounds": [each.as_dict() for each in self.shares],
            "failures": dict(self.failures),
            "came": self.came,
            "due": self.due,
            "outage": self.outage,
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Outcome:
        """The reverse of as_dict. Raises KeyError, TypeError and ValueError for what as_dict did not make."""
        return cls(
            load=float(entry["load"]),
            shares=tuple(BoundShare.from_dict(each) for each in entry["bounds"]),
            seconds=float(entry["seconds"]),
            approach=entry["approach"],
            saturated=bool(entry["oversaturated"]),
            drifts=bool(entry["drifts"]),
            brief=bool(entry["brief"]),
            came=None if entry.get("came") is None else float(entry["came"]),
            due=int(entry.get("due", 0)),
            outage=float(entry.get("outage", 0.0)),
            failures={str(kind): float(share) for kind, share in entry.get("failures", {}).items()},
        )


def outcome_of(
    level: Level, records: Records, slo: Slo, *, seconds: float, approach: Approach = "below", brief: bool = False
) -> Outcome:
    """level: as it ended. records: all of it, in order of the moment due."""
    window = steady_window(level, records)
    inside = records.select(window.holds(records.scheduled_at))
    open_loop = level.users is None
    outgrew = level.ended_by == "oversaturated" or (
        open_loop and len(inside) > 0 and backlog_growth(records, window) > growth_limit(len(inside))
    )
    return Outcome(
        load=float(level.users if level.users is not None else level.rate or 0.0),
        shares=bound_shares(inside, slo),
        seconds=seconds,
        approach=approach,
        saturated=outgrew,
        # Only by the engine's own pace: to leave out levels whose queue happened to grow would leave the lucky ones.
        drifts=not outgrew and any(each.drifts and each.metric in PACES for each in trends(inside, window)),
        brief=brief,
        failures=failures(inside),
        came=_rate_of(inside, window) if open_loop else None,
        due=len(inside),
        outage=0.0 if outgrew else outage_seconds(records, window, slo),
    )


def _rate_of(inside: Records, window: Window) -> float | None:
    """Of the arrivals, whatever follows in the conversations that they begin; None where nothing came."""
    count = int(np.count_nonzero(arrived(inside)))
    return count / window.length if count and window.length else None


def unanswered_from(records: Records) -> int | None:
    """The first level with a request that failed after the last one that was completed; None where there is none.

    records: of a whole run that the service put an end to: from then on nobody was answered.
    """
    last = float(records.finished_at[records.having(COMPLETED)].max(initial=-math.inf))
    lost = records.having(FAILED) & (records.finished_at > last)
    return int(records.level[lost].min()) if lost.any() else None
