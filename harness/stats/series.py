"""The data of charts, already aggregated: latency over time, and distributions as a few hundred points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.measure.records import FAILED, Floats, Ints, Records, by_pieces
from harness.stats.metrics import first_token, gap_counts, ttft
from harness.stats.quantile import quantiles, quantiles_of_sorted
from harness.stats.tokens import stamped

MOST_BINS = 120
MOST_GAPS = 1_000_000  # per timeline: beyond, every k-th gap is drawn; the figures of the report use all
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
CURVE_LEVELS = np.unique(np.concatenate([np.linspace(0, 1, 101), 1 - np.logspace(-2, -4, 21), [0.005, 0.995]]))


@dataclass(frozen=True)
class TimePoint:
    """What happened in one bin of time; seconds, NaN where nothing fell into it. at: the bin's middle, run-relative.

    TTFT by the moment due, ITL and tokens by the moment of the token; tokens also NaN where the server tells no counts.
    in_flight: requests being served at its end.
    """

    at: float
    level: int
    ttft_p50: float
    ttft_p95: float
    itl_p50: float
    itl_p99: float
    output_tokens_per_second: float
    in_flight: int
    failed: int


@dataclass(frozen=True)
class Cdf:
    """A distribution: `share` of the samples are at or below `value` (seconds). Both ascending."""

    value: tuple[float, ...]
    share: tuple[float, ...]


def curve(ordered: Floats) -> Cdf:
    """ordered: samples, ascending."""
    if len(ordered) == 0:
        return Cdf((), ())
    return Cdf(tuple(quantiles_of_sorted(ordered, CURVE_LEVELS).tolist()), tuple(CURVE_LEVELS.tolist()))


def timeline(records: Records, level: int) -> tuple[TimePoint, ...]:
    """records: of one level, all of them, warm-up included."""
    if len(records) == 0:
        return ()
    start, end = float(records.scheduled_at.min()), _last_moment(records)
    width = next((step for step in _STEPS if (end - start) / step <= MOST_BINS), (end - start) / MOST_BINS)
    edges: Floats = start + width * np.arange(int((end - start) / width) + 2, dtype=np.float64)
    first = ttft(records)
    ttft_quantiles = _by_bin(records.scheduled_at[first.request], first.samples, edges, (0.5, 0.95))
    itl_quantiles = _by_bin(*_thinned(records), edges, (0.5, 0.99))
    when, generated = stamped(records)
    tokens = sums_by_bin(when, start, width, len(edges) - 1, generated) / width
    waiting = in_flight(records, edges[1:])
    failed = np.histogram(_end_moments(records)[records.having(FAILED)], edges)[0]
    return tuple(
        TimePoint(
            at=float(edges[bin] + width / 2),
            level=level,
            ttft_p50=float(ttft_quantiles[bin, 0]),
            ttft_p95=float(ttft_quantiles[bin, 1]),
            itl_p50=float(itl_quantiles[bin, 0]),
            itl_p99=float(itl_quantiles[bin, 1]),
            output_tokens_per_second=float(tokens[bin]),
            in_flight=int(waiting[bin]),
            failed=int(failed[bin]),
        )
        for bin in range(len(edges) - 1)
    )


def in_flight(records: Records, moments: Floats) -> Ints:
    """Requests that are due and have no outcome yet, at each moment."""
    return _between(records, _end_moments(records), moments)


def waiting_for_first(records: Records, moments: Floats) -> Ints:
    """Requests that are due and have neither a first token nor an outcome yet, at each moment."""
    return _between(records, ended_or_answered(records), moments)


def ended_or_answered(records: Records) -> Floats:
    """When each request had its first token or an outcome; infinite for one that still waits."""
    return np.fmin(first_token(records), _end_moments(records))


def _between(records: Records, over: Floats, moments: Floats) -> Ints:
    """Requests that were due at each moment and are not over."""
    sent = ~np.isnan(records.sent_at)
    due = np.sort(records.scheduled_at[sent])
    return np.searchsorted(due, moments, "right") - np.searchsorted(np.sort(over[sent]), moments, "right")


def _end_moments(records: Records) -> Floats:
    """When each request was over; infinite for one that still is in flight."""
    unknown = np.where(records.having(FAILED), records.sent_at, np.inf)
    return np.where(np.isnan(records.finished_at), unknown, records.finished_at)


def _last_moment(records: Records) -> float:
    columns = [records.scheduled_at, records.sent_at, records.finished_at, records.token_at]
    return max(float(np.nanmax(column)) for column in columns if len(column) and not np.isnan(column).all())


def _thinned(records: Records) -> tuple[Floats, Floats]:
    """Moment (of the later token) and length of gaps, at most MOST_GAPS of them."""
    counts = gap_counts(records)
    before = np.cumsum(counts) - counts
    chosen = np.arange(0, int(counts.sum()), max(1, -(-int(counts.sum()) // MOST_GAPS)))
    owner = np.searchsorted(before + counts, chosen, "right")
    later = records.offsets[owner] + chosen - before[owner] + 1
    moments = records.token_at[later]
    return moments, moments - records.token_at[later - 1]


def _by_bin(moments: Floats, values: Floats, edges: Floats, levels: Sequence[float]) -> Floats:
    """Quantiles of the values in each bin; NaN in empty ones. Shape (bins, levels)."""
    place = np.searchsorted(edges, moments, "right").astype(np.int16)  # as such it is sorted in one pass
    order = np.argsort(place, kind="stable")
    grouped, bounds = values[order], np.cumsum(np.bincount(place, minlength=len(edges) + 1))
    rows = [quantiles(grouped[low:high], levels) for low, high in pairwise(bounds[: len(edges)])]
    return np.array(rows).reshape(-1, len(levels))


def sums_by_bin(moments: Floats, start: float, width: float, bins: int, weights: NDArray[Any] | None = None) -> Floats:
    """How many moments lie in each bin of equal width from `start` on, or the sum of their weights."""
    place = by_pieces(moments, lambda part: np.clip((part - start) / width, -1, bins), np.int32)
    inside = (moments >= start) & (place < bins)
    if not inside.all():
        place, weights = place[inside], weights if weights is None else weights[inside]
    times = 1
    if weights is not None and weights.dtype.kind == "i" and len(weights) and weights.min() == weights.max():
        times, weights = int(weights[0]), None  # mostly all are one
    return times * np.bincount(place, weights, minlength=bins).astype(np.float64)
