"""A span of a level in which the service was away and came back: its failures tell of that and not of the load.

A service that is overloaded goes on serving those whom it took: its failures lie between the tokens and answers of
others. In an outage there are none of these, and whoever asks meanwhile fails too. That no answer came between so many
failures may be chance where failures are frequent: of ended requests in random order, of which n are answers and f are
failures, the failures between two answers fall into n + 1 places that are alike, so that k or more follow each other
somewhere with a chance of at most (n + 1) C(n + f - k, n) / C(n + f, n) (the distribution of the longest run; F.
Mosteller, "Note on an Application of Runs to Quality Control Charts", Annals of Mathematical Statistics 12 (1941)
228-232). Refusals of a full queue come in clumps too, while it works at something long; an outage is a silence of
another order: of n exponential spaces the longest is twice the next one with a chance of about 1 / n, as the one
exceeds the other by the mean, and that is ln n means (A. Renyi, "On the theory of order statistics", Acta Mathematica
Academiae Scientiarum Hungaricae 4 (1953) 191-231). An overload may put an end to a service too: therefore no outage is
seen where the SLO was missed before it, and a search measures the load again and lets no second one pass
(capacity_search.py).
"""

from __future__ import annotations

import math

import numpy as np

from harness.catalog.slo import Slo
from harness.measure.records import COMPLETED, FAILED, Floats, Ints, Records
from harness.stats.absence import whole
from harness.stats.answers import mostly
from harness.stats.decision import bound_shares
from harness.stats.metrics import ttft
from harness.stats.quantile import quantile
from harness.stats.series import in_flight
from harness.stats.steadiness import stall_limit
from harness.stats.window import Window

TIMES_THE_NEXT = 2.0  # that the silence is longer than any other of the level
CHANCE = 0.01  # of so many failures in a row, were they spread over the level
OF_THE_LOAD = ("overloaded",)  # kinds of failure by which a service itself says that it is asked too much


def outage_seconds(records: Records, window: Window, slo: Slo) -> float:
    """How long nobody was answered; 0 where there was no outage, or the SLO was missed before it.

    records: of one level, all of it.
    """
    done = records.having(COMPLETED)
    signs = np.unique(np.concatenate([records.token_at, records.finished_at[done]]))
    place = _most_failures(records, signs)
    if place is None:
        place = _silence(records, signs)
    gaps = np.diff([window.began, *signs, max(window.end, signs[-1])]) if len(signs) else np.zeros(1)
    if place is None or gaps[place] < TIMES_THE_NEXT * np.delete(gaps, place).max(initial=0.0):
        return 0.0
    began = float(signs[place - 1]) if place else window.began
    ended = float(signs[place]) if place < len(signs) else window.end
    # An outage may spare what runs already: it began after the last request that was sent and answered.
    asked = float(records.sent_at[done & (records.sent_at <= began)].max(initial=window.began))
    before = records.select(
        window.holds(records.scheduled_at) & (records.finished_at <= began) & (records.sent_at <= asked)
    )
    held = all(math.isnan(each.share) or each.share >= each.needed for each in bound_shares(before, slo))
    return max(ended - began, 0.0) if held and ended > window.start else 0.0


def _most_failures(records: Records, signs: Floats) -> int | None:
    """Between which two signs of the service (0: before the first) more were sent and failed than by chance."""
    lost = records.having(FAILED) & np.isfinite(records.finished_at) & np.isfinite(records.sent_at)
    lost &= ~np.isin(records.error_kind, OF_THE_LOAD)
    sent, ended = (np.searchsorted(signs, each[lost]) for each in (records.sent_at, records.finished_at))
    between: Ints = np.bincount(ended[sent == ended])
    if not between.any():
        return None
    answers, failures = int(np.count_nonzero(records.having(COMPLETED))), int(np.count_nonzero(lost))
    place = int(between.argmax())
    return place if _chance_of_run(int(between[place]), answers, failures) < CHANCE else None


def _chance_of_run(count: int, answers: int, failures: int) -> float:
    """An upper bound of the chance that so many failures follow each other, in random order."""
    least, whole_count = answers + failures - count, answers + failures
    ways = math.lgamma(least + 1) - math.lgamma(failures - count + 1)
    all_ways = math.lgamma(whole_count + 1) - math.lgamma(failures + 1)
    return min(1.0, (answers + 1) * math.exp(ways - all_ways))


def _silence(records: Records, signs: Floats) -> int | None:
    """Between which two signs somebody waited for longer than a service that works takes."""
    if len(signs) < 2 or mostly(whole(records)):
        return None  # an answer that comes whole is silent until its end
    waits = ttft(records).samples
    limit = stall_limit(quantile(waits, 0.5) if len(waits) else math.nan)
    gaps = np.diff(signs)
    long = np.flatnonzero(gaps > limit)
    waited = long[in_flight(records, signs[long]) > 0]
    return int(waited[gaps[waited].argmax()]) + 1 if len(waited) else None
