"""SLO attainment and goodput: which requests meet the SLO, and whether the level holds it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.catalog.slo import Bound, Slo
from harness.measure.records import COMPLETED, DROPPED, FAILED, Floats, Records
from harness.stats.absence import NO_GAP, RUSH_GAP, TOGETHER, Cause, lacks, main_cause
from harness.stats.metrics import BY_NAME, Values
from harness.stats.quantile import quantile, quantiles_of_sorted
from harness.stats.tokens import Mask

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
UNJUDGED_MOST = 0.05  # share of the requests that may lack a figure


@dataclass(frozen=True)
class BoundResult:
    """One bound against what was measured. found: seconds; infinite where failures alone exceed what it allows.

    holds: None where it cannot be judged, for the `cause`.
    """

    bound: Bound
    found: float
    holds: bool | None
    cause: Cause | None = None

    def as_dict(self) -> dict[str, Any]:
        found = self.found if math.isfinite(self.found) else None
        told = {"name": self.bound.name, "limit": self.bound.limit, "found": found, "holds": self.holds}
        return told if self.cause is None else {**told, "cause": self.cause.text}


@dataclass(frozen=True)
class Attainment:
    """How an SLO fared. met: requests that meet all bounds; due: completed, failed and dropped ones; unjudged: those of
    them that lack a figure which a bound asks for, and break no other bound.

    holds: every bound holds on its statistic; None where nothing was due, no bound was set, or one of them cannot be
    judged and none is broken.
    """

    slo: Slo
    met: int
    due: int
    bounds: tuple[BoundResult, ...]
    holds: bool | None
    unjudged: int = 0

    @property
    def fraction(self) -> float:
        """Of those that can be judged; NaN where too many cannot."""
        judged = self.due - self.unjudged
        return self.met / judged if judged and self.judged else float("nan")

    @property
    def judged(self) -> bool:
        """So few requests cannot be judged that the others speak for them."""
        return self.unjudged <= UNJUDGED_MOST * self.due


def attain(records: Records, slo: Slo) -> Attainment:
    """records: those due in the window. Requests still in flight have no outcome yet and are not counted."""
    decided = records.having(COMPLETED) | records.having(FAILED) | records.having(DROPPED)
    due = int(np.count_nonzero(decided))
    bounds = tuple(bound_result(records, bound) for bound in slo.bounds)
    broken, unsure = any(each.holds is False for each in bounds), any(each.holds is None for each in bounds)
    holds = None if not bounds or not due or (unsure and not broken) else not broken
    met, unjudged = map(int, map(np.count_nonzero, _met_and_unjudged(records, slo)))
    return Attainment(slo, met, due, bounds, holds, unjudged)


def meets(records: Records, slo: Slo) -> NDArray[np.bool_]:
    """Which requests meet all bounds at once; failed, dropped and unfinished ones never do.

    A bound on a metric with one value per request bounds that value, whatever its statistic. A bound on ITL bounds that
    statistic of the request's own gaps. A completed request of one token breaks no bound on gaps, as it has none; one
    whose figure cannot be had neither meets nor breaks the bound.
    """
    return _met_and_unjudged(records, slo)[0]


def _met_and_unjudged(records: Records, slo: Slo) -> tuple[Mask, Mask]:
    """Those that meet all bounds; and completed ones that lack a figure which a bound asks for, and break no other."""
    done = records.having(COMPLETED)
    met, left, lacking = done.copy(), done.copy(), np.zeros(len(records), dtype=bool)
    for bound in slo.bounds:
        within, missing = _meets(records, bound), lacks(records, bound.metric)
        met &= within & ~missing
        left &= missing | within
        lacking |= missing
    return met, left & lacking


def bound_result(records: Records, bound: Bound) -> BoundResult:
    """The bound's statistic over completed, failed and dropped requests, a request without an answer as infinite."""
    completed = records.select(records.having(COMPLETED))
    values = BY_NAME[bound.metric].of(completed)
    lost = int(np.count_nonzero(records.having(FAILED) | records.having(DROPPED)))
    found = _statistic_with_losses(values, bound, len(completed), lost)
    cause = None if found == np.inf else _cause(completed, values, bound, found)
    if cause is not None:
        return BoundResult(bound, float("nan"), None, cause)
    return BoundResult(bound, found, bool(found <= bound.limit))


def _cause(completed: Records, values: Values, bound: Bound, found: float) -> Cause | None:
    """Why a bound cannot be judged by these values."""
    main = main_cause(completed, bound.metric)
    if main is not None and main[1] > UNJUDGED_MOST:
        return main[0]
    if len(values.samples) == 0:
        return NO_GAP if len(completed) and bound.metric in ("itl", "tpot") else None
    return TOGETHER if bound.metric == "itl" and bound.statistic in QUANTILES and found < RUSH_GAP else None


def _statistic_with_losses(values: Values, bound: Bound, completed: int, lost: int) -> float:
    if BY_NAME[bound.metric].pooled:
        # Gaps cannot be weighed against requests: more failures than the quantile leaves room for break it.
        allowed = 1 - QUANTILES.get(bound.statistic, 1.0)
        too_many = lost > allowed * (completed + lost) + 1e-9
        return np.inf if too_many else _statistic_of(values, bound.statistic)
    if not lost:
        return _statistic_of(values, bound.statistic)
    return statistic(np.concatenate([values.samples, np.full(lost, np.inf)]), bound.statistic)


def _statistic_of(values: Values, name: str) -> float:
    """The same of values that are ordered once for all that asks."""
    if name in QUANTILES and len(values.samples):
        return float(quantiles_of_sorted(values.ordered, [QUANTILES[name]])[0])
    return statistic(values.samples, name)


def statistic(samples: Floats, name: str) -> float:
    """`p50` ... `p99`, `max` or `mean` of samples; NaN of none."""
    if len(samples) == 0:
        return float("nan")
    if name == "mean":
        return float(samples.mean())
    return float(samples.max()) if name == "max" else quantile(samples, QUANTILES[name])


def _meets(records: Records, bound: Bound) -> NDArray[np.bool_]:
    values = BY_NAME[bound.metric].of(records)
    if not BY_NAME[bound.metric].pooled:
        met = np.full(len(records), bound.metric == "tpot")
        met[values.request] = values.samples <= bound.limit
        return met
    counts = _per_row(values, np.diff([*values.starts, len(values.samples)]), len(records))
    if bound.statistic == "mean":
        sums = np.bincount(values.request, weights=values.samples, minlength=len(records))
        return sums <= bound.limit * counts * (1 + 1e-12)
    within = (values.samples <= bound.limit).view(np.int8)
    held: NDArray[Any] = np.add.reduceat(within, values.starts, dtype=np.int64) if len(within) else within
    below = _per_row(values, held, len(records))
    return _own_quantile_holds(values, bound, counts, below)


def _per_row(values: Values, found: NDArray[Any], rows: int) -> NDArray[np.int64]:
    """What was found of each request that has samples, by its row; 0 of the others."""
    placed = np.zeros(rows, dtype=np.int64)
    placed[values.request[values.starts]] = found
    return placed


def _own_quantile_holds(
    values: Values, bound: Bound, counts: NDArray[np.int64], below: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the quantile of each request's gaps holds, by counting; only where it falls between two gaps on either
    side of the limit is it computed.
    """
    level = QUANTILES.get(bound.statistic, 1.0)
    lower = np.floor(level * (counts - 1)).astype(np.int64)
    met = (counts == 0) | (below >= np.minimum(lower + 2, counts))
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    for row in np.flatnonzero(~met & (below == lower + 1)):
        met[row] = quantile(values.samples[starts[row] : starts[row + 1]], level) <= bound.limit
    return met
