"""METRICS: the formula of each metric. Nothing else computes them; reports, SLOs and comparisons go through the list.

Formulas are over t_1 ... t_n, the moments of a request's token events, and N, its generated tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.measure.records import PIECE, Floats, Ints, Records, Rows, remembered
from harness.stats.absence import in_one_piece, lacks, whole
from harness.stats.tokens import Mask, event_tokens, sum_of_events, tokens_or_zero


@dataclass(frozen=True)
class Values:
    """Samples of one metric in seconds, never NaN. request: the row that each sample belongs to, ascending.

    left_out: requests without a defined value; they are in no sample.
    """

    samples: Floats
    request: Rows
    left_out: int

    @cached_property
    def ordered(self) -> Floats:
        """The samples, ascending."""
        return np.sort(self.samples)

    def keep_ordered(self, ordered: Floats) -> None:
        """What `ordered` is, for whoever knows it already."""
        self.__dict__["ordered"] = ordered

    @cached_property
    def starts(self) -> Ints:
        """Where the samples of each request that has any begin."""
        if not len(self.request):
            return np.zeros(0, dtype=np.int64)
        return np.concatenate([[0], np.flatnonzero(self.request[1:] != self.request[:-1]) + 1])


@dataclass(frozen=True)
class Metric:
    """One figure. name: its key in every file. label: for people. formula: how it is computed, in words.

    of: from completed requests to values. pooled: a request may give several samples. optional: shown only where it is
    told, or says more than another figure does.
    """

    name: str
    label: str
    formula: str
    of: Callable[[Records], Values]
    unit: str = "s"
    pooled: bool = False
    optional: bool = False


def ttft(records: Records) -> Values:
    """t_1 - scheduled_at; undefined without a token, and for an answer that was not streamed."""
    return _per_request(first_token(records) - records.scheduled_at)


def service_ttft(records: Records) -> Values:
    """t_1 - sent_at; undefined likewise."""
    return _per_request(first_token(records) - records.sent_at)


@remembered
def itl(records: Records) -> Values:
    """Every single gap t_(i+1) - t_i, pooled over requests; an event with several tokens is one gap.

    Undefined for an answer that came in one piece: that its events have no gap is the work of a buffer.
    """
    counts, inside = gap_counts(records), _inside(records)
    samples, done = np.empty(int(counts.sum())), 0
    for start in range(0, len(inside), PIECE):
        found = np.diff(records.token_at[start : start + PIECE + 1])[inside[start : start + PIECE]]
        samples[done : done + len(found)] = found
        done += len(found)
    owner = np.repeat(np.arange(len(records), dtype=np.int32), counts)
    return Values(samples, owner, int(np.count_nonzero(counts == 0)))


def itl_per_token(records: Records) -> Values:
    """Every gap over the tokens of the event that ends it; undefined where those are not told."""
    later, owner = gap_ends(records), itl(records).request
    tokens = event_tokens(records)[later]
    known = tokens > 0
    later, owner = later[known], owner[known]
    return Values(
        (records.token_at[later] - records.token_at[later - 1]) / tokens[known], owner, _without(records, owner)
    )


def tpot(records: Records) -> Values:
    """(t_n - t_1) / (tokens after the first event); N - 1 of them where each event is one token.

    Undefined where none came after it, where their number is not told or differs from what came, and where the answer
    came in one piece.
    """
    tokens, some = tokens_or_zero(records), records.event_counts > 0
    after = sum_of_events(records, tokens, np.float64)
    after[some] -= tokens[records.offsets[:-1][some]]
    defined = (after > 1e-9) & ~lacks(records, "tpot")
    spans = last_token(records) - first_token(records)
    return _per_request(np.where(defined, spans / np.where(defined, after, 1.0), np.nan))


def e2e(records: Records) -> Values:
    """finished_at - scheduled_at."""
    return _per_request(records.finished_at - records.scheduled_at)


def schedule_lag(records: Records) -> Values:
    """sent_at - scheduled_at: the lateness of the load generator itself; 0 in a closed loop by definition."""
    return _per_request(records.sent_at - records.scheduled_at)


def queue(records: Records) -> Values:
    """The wait inside the server as it tells it, per request."""
    return _per_request(records.queue_time)


METRICS: tuple[Metric, ...] = (
    Metric("ttft", "TTFT", "first token - moment due", ttft),
    Metric("service_ttft", "Service TTFT", "first token - moment sent", service_ttft),
    Metric("itl", "ITL", "each gap between token events, pooled over requests", itl, pooled=True),
    Metric(
        "itl_per_token", "ITL per token", "each gap / tokens of the event behind it, pooled", itl_per_token,
        pooled=True, optional=True,
    ),
    Metric("tpot", "TPOT", "(last token - first token) / (tokens after the first event), per request", tpot),
    Metric("e2e", "End-to-end", "end of answer - moment due", e2e),
    Metric("schedule_lag", "Schedule lag", "moment sent - moment due", schedule_lag),
    Metric("queue", "Queue", "wait inside the server, as it tells", queue, optional=True),
)  # fmt: skip

BY_NAME = {metric.name: metric for metric in METRICS}


@remembered
def first_token(records: Records) -> Floats:
    """The moment of each request's first token; NaN without, and of an answer that was not streamed."""
    return np.where(whole(records), np.nan, _event(records, records.offsets[:-1]))


def last_token(records: Records) -> Floats:
    """The moment of each request's last token; NaN without."""
    return _event(records, records.offsets[1:] - 1)


def _event(records: Records, index: NDArray[Any]) -> Floats:
    moments = np.full(len(records), np.nan)
    some = records.event_counts > 0
    moments[some] = records.token_at[index[some]]
    return moments


def gap_counts(records: Records) -> Ints:
    """How many gaps of `itl` each request has."""
    return np.where(_streamed(records), np.maximum(records.event_counts - 1, 0), 0)


def gap_ends(records: Records) -> Ints:
    """The event that ends each gap of `itl`, in the same order."""
    return np.flatnonzero(_inside(records)) + 1


def _inside(records: Records) -> Mask:
    """Of each event but the last of all, whether a gap to the next one of the same streamed answer follows it."""
    inside = np.repeat(_streamed(records), records.event_counts)[1:]
    borders = records.offsets[1:-1]
    inside[borders[(borders > 0) & (borders < len(records.token_at))] - 1] = False
    return inside


@remembered
def _streamed(records: Records) -> Mask:
    return ~(in_one_piece(records) | whole(records))


def _without(records: Records, owner: Rows) -> int:
    """Requests that own no sample."""
    return len(records) - int(np.count_nonzero(np.bincount(owner, minlength=len(records))))


def _per_request(values: Floats) -> Values:
    defined = ~np.isnan(values)
    return Values(values[defined], np.flatnonzero(defined), int(np.count_nonzero(~defined)))
