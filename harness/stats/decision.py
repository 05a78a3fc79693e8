"""Whether a level holds a bound: the share of requests that meet it, its interval, and the decision that follows.

A bound on a quantile, such as p95 of TTFT within 1 s, holds where at least that share (95 %) is within the limit. The
share of one level is an estimate: its interval is that of interval.py, taken between batches of consecutive requests.
The bound is decided to hold where the whole interval lies above the share that is needed, to break where it lies below,
and is undecided where the interval contains it. Requests without an answer count as misses, as MLPerf LoadGen counts
queries over latency: early_stopping.h finds the same interval for independent ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import ndtr

from harness.catalog.slo import Bound, Slo, parse_bound
from harness.measure.records import COMPLETED, DROPPED, FAILED, Records
from harness.stats.absence import lacks
from harness.stats.dependence import Batches, Mask, batch_starts, batches_of
from harness.stats.interval import share_interval, size_of_share, student
from harness.stats.metrics import BY_NAME, Values
from harness.stats.slo import QUANTILES, UNJUDGED_MOST

Decision = Literal["holds", "breaks", "undecided"]


@dataclass(frozen=True)
class BoundShare:
    """How much of a level meets one bound. share: 0 to 1, of requests, or of gaps for a bound on ITL; NaN where nothing
    was due or too much lacks the figure. samples: behind it. size: the independent ones that they amount to.
    interval: 95 %. batches: how the parts of those that did not fail differ; None where there are too few, or an
    earlier version did not keep it.
    """

    bound: Bound
    share: float
    samples: int
    size: float
    interval: tuple[float, float]
    batches: Batches | None = None

    @property
    def needed(self) -> float:
        """The share that the bound asks for."""
        return QUANTILES[self.bound.statistic]

    @property
    def decision(self) -> Decision:
        lower, upper = self.interval
        if lower > self.needed:
            return "holds"
        return "breaks" if upper < self.needed else "undecided"

    def as_dict(self) -> dict[str, Any]:
        known = not math.isnan(self.share)
        return {
            "name": self.bound.name,
            "limit": self.bound.limit,
            "needed": self.needed,
            "share": self.share if known else None,
            "samples": self.samples,
            "independent_samples": self.size,
            "interval": list(self.interval),
            "decision": self.decision,
            "batches": self.batches.as_dict() if self.batches is not None else None,
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> BoundShare:
        """The reverse of as_dict. Raises KeyError, TypeError and ValueError for what as_dict did not make."""
        share = math.nan if entry["share"] is None else float(entry["share"])
        low, high = entry["interval"]
        bound = parse_bound(entry["name"], entry["limit"])
        sizes = int(entry["samples"]), float(entry["independent_samples"])
        return cls(bound, share, *sizes, (float(low), float(high)), Batches.from_dict(entry.get("batches")))


def decide(shares: Sequence[BoundShare]) -> Decision:
    """Of all bounds at once: they hold where each holds, and break where one breaks."""
    found = {each.decision for each in shares}
    if "breaks" in found:
        return "breaks"
    return "holds" if found == {"holds"} else "undecided"


def bound_shares(records: Records, slo: Slo) -> tuple[BoundShare, ...]:
    """Of each bound on a quantile; bounds on `max` and `mean` are left out, since no share decides them. records: those
    due in the window, in order of time, those without an outcome included.
    """
    return tuple(bound_share(records, bound) for bound in slo.bounds if bound.statistic in QUANTILES)


def bound_share(records: Records, bound: Bound) -> BoundShare:
    """Failed, dropped and unfinished requests are misses: of a bound on ITL with as many gaps as others have."""
    values = _outcomes(records, bound)
    samples = values.samples
    lacking = np.count_nonzero(lacks(records, bound.metric) & records.having(COMPLETED))
    if len(samples) == 0 or lacking > UNJUDGED_MOST * len(records):
        return BoundShare(bound, math.nan, 0, 0.0, (0.0, 1.0))
    met = samples <= bound.limit
    starts = batch_starts(values.starts)
    share, size = float(met.mean()), size_of_share(met, values, starts)
    beyond = float(ndtr(-student(max(len(starts) - 1, 1))))  # few batches know their spread badly
    interval = share_interval(share, size, beyond)
    return BoundShare(bound, share, len(samples), size, interval, _batches(records, values, met))


def _batches(records: Records, values: Values, met: Mask) -> Batches | None:
    """Of the samples that stand for no failed or dropped request."""
    kept = ~_lost(records)[values.request]
    return batches_of(~met[kept], Values(values.samples[kept], values.request[kept], 0).starts)


def failures(records: Records) -> dict[str, float]:
    """By kind of error, the share of these requests that failed or were dropped."""
    lost = _lost(records)
    return {kind or "unknown": count / len(records) for kind, count in Counter(records.error_kind[lost]).items()}


def _lost(records: Records) -> Mask:
    return records.having(FAILED) | records.having(DROPPED)


def _outcomes(records: Records, bound: Bound) -> Values:
    """Samples in order of their requests, a lost one beyond the limit."""
    metric = BY_NAME[bound.metric]
    done = records.having(COMPLETED)
    values = metric.of(records)
    if done.all():
        return values
    kept = done[values.request]
    samples, owner = values.samples[kept], values.request[kept]
    lost = np.flatnonzero(~done)
    each = max(1, round(len(samples) / max(1, len(np.unique(owner))))) if metric.pooled else 1
    # Far enough out to be a miss, near enough not to drown what the others share.
    beyond = max(2 * bound.limit, float(samples.max(initial=0.0)))
    samples = np.concatenate([samples, np.full(len(lost) * each, beyond)])
    owner = np.concatenate([owner, np.repeat(lost, each)])
    order = np.argsort(owner, kind="stable")
    return Values(samples[order], owner[order], 0)
