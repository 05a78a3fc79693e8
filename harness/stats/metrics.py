"""METRICS: what each figure means. Nothing else computes them; reports, SLOs and comparisons go through the list.

Formulas are over t_1 ... t_n, the moments of a request's token events, and N, its generated tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.measure.records import MISSING, Floats, Ints, Records


@dataclass(frozen=True)
class Values:
    """Samples of one metric in seconds, never NaN. request: the row that each sample belongs to, ascending.

    left_out: requests without a defined value; they are in no sample.
    """

    samples: Floats
    request: Ints
    left_out: int


@dataclass(frozen=True)
class Metric:
    """One figure. name: its key in every file. label: for people. formula: how it is computed, in words.

    of: from completed requests to values. pooled: a request may give several samples.
    """

    name: str
    label: str
    formula: str
    of: Callable[[Records], Values]
    unit: str = "s"
    lower_is_better: bool = True
    pooled: bool = False


def ttft(records: Records) -> Values:
    """t_1 - scheduled_at; undefined without a token."""
    return _per_request(first_token(records) - records.scheduled_at)


def service_ttft(records: Records) -> Values:
    """t_1 - sent_at; undefined without a token."""
    return _per_request(first_token(records) - records.sent_at)


def itl(records: Records) -> Values:
    """Every single gap t_(i+1) - t_i, pooled over requests; an event with several tokens is one gap."""
    owner = np.repeat(np.arange(len(records)), records.event_counts)
    within = owner[1:] == owner[:-1]
    samples = np.diff(records.token_at)[within]
    return Values(samples, owner[1:][within], int(np.count_nonzero(records.event_counts < 2)))


def tpot(records: Records) -> Values:
    """(t_n - t_1) / (N - 1).

    Undefined for N < 2, where the server's own count differs from the tokens that arrived, and where all tokens came
    in one event: then t_1 is not the moment of the first of them.
    """
    tokens = records.output_tokens
    defined = (tokens >= 2) & (records.event_counts >= 2) & (tokens == arrived_tokens(records))
    spans = _last_token(records) - first_token(records)
    return _per_request(np.where(defined, spans / np.where(defined, tokens - 1, 1), np.nan))


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
    Metric("tpot", "TPOT", "(last token - first token) / (output tokens - 1), per request", tpot),
    Metric("e2e", "End-to-end", "end of answer - moment due", e2e),
    Metric("schedule_lag", "Schedule lag", "moment sent - moment due", schedule_lag),
    Metric("queue", "Queue", "wait inside the server, as it tells", queue),
)

BY_NAME = {metric.name: metric for metric in METRICS}


def arrived_tokens(records: Records) -> Ints:
    """Sum of token_count of each request."""
    running = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(records.token_count, dtype=np.int64)])
    return running[records.offsets[1:]] - running[records.offsets[:-1]]


def generated_tokens(records: Records) -> Ints:
    """The server's own count of each answer, or what arrived where it tells none."""
    return np.where(records.output_tokens == MISSING, arrived_tokens(records), records.output_tokens)


def first_token(records: Records) -> Floats:
    """The moment of each request's first token, NaN without."""
    return _event(records, records.offsets[:-1])


def _last_token(records: Records) -> Floats:
    return _event(records, records.offsets[1:] - 1)


def _event(records: Records, index: NDArray[Any]) -> Floats:
    moments = np.full(len(records), np.nan)
    some = records.event_counts > 0
    moments[some] = records.token_at[index[some]]
    return moments


def _per_request(values: Floats) -> Values:
    defined = ~np.isnan(values)
    return Values(values[defined], np.flatnonzero(defined), int(np.count_nonzero(~defined)))
