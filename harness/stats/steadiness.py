"""Is the server steady? Queues that grow, silences, and whether two parts of a level differ."""

from __future__ import annotations

import math

import numpy as np

from harness.measure.records import Floats, Records
from harness.stats.dependence import batches, independent_size
from harness.stats.metrics import first_sign
from harness.stats.quantile import quantile
from harness.stats.series import in_flight, waiting_for_first
from harness.stats.window import Window


def longest_silence(records: Records, until: float | None = None, resolution: float = 0.5) -> float:
    """The longest time, in seconds, in which requests were in flight and nobody got a token, to within `resolution`.

    until: when waiting ended; None takes the last moment that was recorded.
    """
    if len(records) == 0:
        return 0.0
    seen = np.concatenate([records.scheduled_at, records.token_at, records.finished_at])
    seen = seen[np.isfinite(seen)]
    last = seen.max() if until is None else max(seen.max(), until - 2 * resolution)
    edges = np.arange(seen.min(), last + 2 * resolution, resolution)
    # A request that ends, however it does, is a sign of life too.
    busy = np.histogram(
        np.concatenate([records.token_at, records.finished_at[np.isfinite(records.finished_at)]]), edges
    )[0]
    waiting = np.minimum(in_flight(records, edges[:-1]), in_flight(records, edges[1:])) > 0
    silent = np.concatenate([[False], waiting & (busy == 0), [False]]).astype(np.int8)
    runs = np.flatnonzero(np.diff(silent) == -1) - np.flatnonzero(np.diff(silent) == 1)
    return float(runs.max(initial=0)) * resolution


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
    alike = independent_size(below, batches(m), caution=0.0) / m
    return float((middle.sum() - n * (n + m + 1) / 2) / math.sqrt(n * m * (n + m + 1) / 12 / alike))


def enough_for(level: float) -> int:
    """The fewest independent samples whose largest lies above the true quantile with 97.5 % confidence.

    From level^n <= 0.025. The same reasoning as the early stopping of MLPerf LoadGen for a run without a violation.
    """
    return math.ceil(math.log(0.025) / math.log(level))


def queue_growth(records: Records, window: Window) -> float:
    """Requests by which those without a first token grow over the window, by a straight line through 40 moments.

    Those that are being answered do not count: under a trace whose rate rises, or while the first long answers of a
    level run, they grow without any queue.
    """
    moments: Floats = np.linspace(window.start, window.end, 40)
    slope = np.polyfit(moments - moments[0], waiting_for_first(records, moments), 1)[0]
    return float(slope) * window.length


def wait_growth(inside: Records, window: Window) -> float:
    """Median TTFT of the window's last quarter over that of its first; infinite if the last got no answers. Of answers
    that came whole their end counts.
    """
    waits = first_sign(inside) - inside.scheduled_at
    known, quarter = ~np.isnan(waits), window.length / 4
    first = waits[known & (inside.scheduled_at < window.start + quarter)]
    last = waits[known & (inside.scheduled_at >= window.end - quarter)]
    if len(last) == 0 or len(first) == 0:
        return math.inf
    return quantile(last, 0.5) / max(quantile(first, 0.5), 1e-9)
