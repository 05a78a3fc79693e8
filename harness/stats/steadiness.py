"""Validity rules about steadiness: queues that grow, silences, and parts of a level that differ."""

from __future__ import annotations

import math

import numpy as np

from harness.measure.records import Floats, Records
from harness.stats.dependence import batch_starts, independent_size
from harness.stats.series import in_flight, sums_by_bin, waiting_for_first
from harness.stats.window import Window

# Requests; their Poisson deviations; a share of them.
GROWTH_LEAST, GROWTH_SIGMAS, GROWTH_SHARE = 3.0, 0.4, 0.1
STALL_MOST = 10.0  # seconds without a token to anyone while requests wait; where first tokens take long, more
STALL_WAITS = 3.0  # this many times the median TTFT: with a few users their waits alone are silences
MOST_BINS = 1_000_000  # of time, in which a silence is looked for


def longest_silence(records: Records, until: float | None = None, resolution: float = 0.5) -> float:
    """The longest time, in seconds, in which requests were in flight and nobody got a token, to within `resolution`.

    until: when waiting ended; None takes the last moment that was recorded. resolution: seconds; coarser where the
    records span more than MOST_BINS of them, be it by one moment that is wrong.
    """
    if len(records) == 0:
        return 0.0
    ended = records.finished_at[np.isfinite(records.finished_at)]
    seen = [column for column in (records.scheduled_at, records.token_at, ended) if len(column)]
    first, last = min(float(each.min()) for each in seen), max(float(each.max()) for each in seen)
    last = last if until is None else max(last, until - 2 * resolution)
    resolution = max(resolution, (last - first) / MOST_BINS)
    edges = np.arange(first, last + 2 * resolution, resolution)
    # A request that ends, however it does, is a sign of life too.
    busy = sum(sums_by_bin(each, first, resolution, len(edges) - 1) for each in (records.token_at, ended))
    waiting = np.minimum(in_flight(records, edges[:-1]), in_flight(records, edges[1:])) > 0
    silent = np.concatenate([[False], waiting & (busy == 0), [False]]).astype(np.int8)
    runs = np.flatnonzero(np.diff(silent) == -1) - np.flatnonzero(np.diff(silent) == 1)
    return float(runs.max(initial=0)) * resolution


def stall_limit(wait: float) -> float:
    """Seconds beyond which a silence is none of a service that works. wait: median TTFT; NaN where there is none."""
    return STALL_MOST if math.isnan(wait) else max(STALL_MOST, STALL_WAITS * wait)


def rank_sum(first: Floats, second: Floats) -> float:
    """Wilcoxon's rank sum of `first`, in standard deviations from what equal distributions would give.

    Both in order of time. As neighbours are alike, the deviation is taken for as many independent values as batches of
    `second` show.

    F. Wilcoxon, "Individual Comparisons by Ranking Methods", Biometrics Bulletin 1 (1945) 80-83.
    """
    n, m = len(first), len(second)
    pooled = np.concatenate([first, second])
    ordered = np.sort(pooled)
    middle = (np.searchsorted(ordered, first, "left") + np.searchsorted(ordered, first, "right") + 1) / 2
    below = (second <= np.median(second)).astype(np.float64)
    alike = independent_size(below, batch_starts(np.arange(m)), caution=0.0) / m
    return float((middle.sum() - n * (n + m + 1) / 2) / math.sqrt(n * m * (n + m + 1) / 12 / alike))


def enough_for(level: float) -> int:
    """The fewest independent samples whose largest lies above the true quantile with 97.5 % confidence.

    From level^n <= 0.025. The same reasoning as the early stopping of MLPerf LoadGen for a run without a violation.
    """
    return math.ceil(math.log(0.025) / math.log(level))


def backlog_growth(records: Records, window: Window) -> float:
    """Requests by which the backlog of the second half of the window never got below the least of the first quarter.

    A queue that is stable comes back to where it was again and again, one that is over-saturated does not (R. M.
    Loynes, "The stability of a queue with non-independent inter-arrival and service times", Proc. Cambridge Phil. Soc.
    58 (1962) 497-520); its least says this sooner than its mean, which wanders. Counted are the requests without a
    first token: those that are being answered grow without any queue while the first long answers of a level run.
    """
    moments: Floats = np.linspace(window.start, window.end, 40)
    waiting = waiting_for_first(records, moments)
    return float(waiting[20:].min() - waiting[:10].min())


def growth_limit(due: int, changing: bool = False) -> float:
    """Requests beyond which a backlog that grew is no play of chance. due: in the window. changing: the load does.

    Of M/G/c queues at 0.8 of their capacity fewer than one in a hundred grow by so much in a minute (tests/stats), of
    such at 1.1 times it four in five do at 10 requests per second, and nearly all at 40. A load that rises by its
    nature brings more that wait without any queue: there a tenth of all that were due, as well.
    """
    return max(GROWTH_LEAST, GROWTH_SIGMAS * math.sqrt(due), GROWTH_SHARE * due if changing else 0.0)
