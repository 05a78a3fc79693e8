"""Attainment and goodput: which requests meet an SLO, and does the level hold it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.catalog.slo import Bound, Slo
from harness.measure.records import COMPLETED, DROPPED, FAILED, Floats, Records
from harness.stats.metrics import BY_NAME, Values
from harness.stats.quantile import quantile

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class BoundResult:
    """One bound against what was measured. found: seconds; infinite where failures alone exceed what it allows."""

    bound: Bound
    found: float
    holds: bool

    def as_dict(self) -> dict[str, Any]:
        found = self.found if math.isfinite(self.found) else None
        return {"name": self.bound.name, "limit": self.bound.limit, "found": found, "holds": self.holds}


@dataclass(frozen=True)
class Attainment:
    """How an SLO fared. met: requests that meet all bounds; due: completed, failed and dropped ones.

    holds: every bound holds on its statistic; None where nothing was due or no bound was set.
    """

    slo: Slo
    met: int
    due: int
    bounds: tuple[BoundResult, ...]
    holds: bool | None

    @property
    def fraction(self) -> float:
        return self.met / self.due if self.due else float("nan")


def attain(records: Records, slo: Slo) -> Attainment:
    """records: those due in the window. Requests still in flight have no outcome yet and are not counted."""
    decided = records.having(COMPLETED) | records.having(FAILED) | records.having(DROPPED)
    due = int(np.count_nonzero(decided))
    bounds = tuple(bound_result(records, bound) for bound in slo.bounds)
    holds = all(each.holds for each in bounds) if bounds and due else None
    return Attainment(slo, int(np.count_nonzero(meets(records, slo))), due, bounds, holds)


def meets(records: Records, slo: Slo) -> NDArray[np.bool_]:
    """Which requests meet all bounds at once; failed, dropped and unfinished ones never do.

    A bound on a metric with one value per request bounds that value, whatever its statistic. A bound on ITL bounds that
    statistic of the request's own gaps. A completed request without a value breaks no bound on gaps, as it has none; it
    does break one on the first token.
    """
    met = records.having(COMPLETED).copy()
    for bound in slo.bounds:
        met &= _meets(records, bound)
    return met


def bound_result(records: Records, bound: Bound) -> BoundResult:
    """The bound's statistic over completed, failed and dropped requests, a request without an answer as infinite."""
    completed = records.select(records.having(COMPLETED))
    values = BY_NAME[bound.metric].of(completed)
    lost = int(np.count_nonzero(records.having(FAILED) | records.having(DROPPED)))
    found = _statistic_with_losses(values, bound, len(completed), lost)
    return BoundResult(bound, found, bool(found <= bound.limit))


def _statistic_with_losses(values: Values, bound: Bound, completed: int, lost: int) -> float:
    if BY_NAME[bound.metric].pooled:
        # Gaps cannot be weighed against requests: more failures than the quantile leaves room for break it.
        allowed = 1 - QUANTILES.get(bound.statistic, 1.0)
        too_many = lost > allowed * (completed + lost) + 1e-9
        return np.inf if too_many else statistic(values.samples, bound.statistic)
    return statistic(np.concatenate([values.samples, np.full(lost, np.inf)]), bound.statistic)


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
    counts = np.bincount(values.request, minlength=len(records))
    if bound.statistic == "mean":
        sums = np.bincount(values.request, weights=values.samples, minlength=len(records))
        return sums <= bound.limit * counts * (1 + 1e-12)
    below = np.bincount(values.request[values.samples <= bound.limit], minlength=len(records))
    return _own_quantile_holds(values, bound, counts, below)


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
