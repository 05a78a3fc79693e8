"""How many tokens each event holds: as told with it, or the whole answer's count divided over its events.

Where the server tells an answer's count only as a whole, its events share it: the first one by its share of the text,
which is what TPOT rests on, the others evenly. Where it tells none, nothing is known of that answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.measure.records import COMPLETED, MISSING, Floats, Ints, Records, remembered

Mask = NDArray[np.bool_]


@remembered
def told_per_event(records: Records) -> Mask:
    """Requests of which the tokens of each event are known."""
    return np.asarray(records.count_told == "per_event", dtype=bool)


def counted(records: Records) -> Mask:
    """Requests of which it is known how many tokens their answer has, so far as it came."""
    return told_per_event(records) | (records.output_tokens != MISSING)


@remembered
def arrived_tokens(records: Records) -> Ints:
    """Sum of token_count of each request."""
    return sum_of_events(records, records.token_count, np.int64)


def sum_of_events(records: Records, values: NDArray[Any], kind: type) -> NDArray[Any]:
    """The sum of a value of each event, of each request."""
    if values.dtype.kind == "i" and len(values) and values.min() == (each := values.max()):
        return (records.event_counts * int(each)).astype(kind)  # mostly all are one
    sums: NDArray[Any] = np.zeros(len(records), dtype=kind)
    some = records.event_counts > 0
    if some.any():
        sums[some] = np.add.reduceat(values, records.offsets[:-1][some], dtype=kind)
    return sums


@remembered
def _all_told(records: Records) -> bool:
    """The tokens of every event are what token_count says."""
    return bool(_known(records).all())


def _known(records: Records) -> Mask:
    arrived = arrived_tokens(records)
    return told_per_event(records) | (records.output_tokens == arrived) | (records.event_counts == 0)


def event_tokens(records: Records) -> Floats:
    """Tokens of each event, fractions where an answer's count is divided; NaN where none was told."""
    tokens = records.token_count.astype(np.float64)
    if _all_told(records):
        return tokens
    events, arrived, total = records.event_counts, arrived_tokens(records), records.output_tokens
    known = _known(records)
    owner = np.repeat(np.arange(len(records)), events)
    shared = ~known & (total != MISSING)
    if shared.any():
        first, rest = _divided(records, events, arrived)
        each = rest[owner]
        each[records.offsets[:-1][events > 0]] = first[events > 0]
        tokens = np.where(shared[owner], each, tokens)
    tokens[~(known | shared)[owner]] = np.nan
    return tokens


def tokens_or_zero(records: Records) -> NDArray[Any]:
    """The same with 0 where none was told; no copy where all were."""
    return records.token_count if _all_told(records) else np.nan_to_num(event_tokens(records))


def _divided(records: Records, events: Ints, arrived: Ints) -> tuple[Floats, Floats]:
    """For each request the tokens of its first event, and of each other one, of output_tokens in all."""
    total = records.output_tokens.astype(np.float64)
    some = np.maximum(events, 1)
    own = np.ones(len(records))
    own[events > 0] = records.token_count[records.offsets[:-1][events > 0]]
    others = events - 1
    hidden = own - 1  # came before the first text, and is counted in its event
    even = own + (total - arrived) / some
    by_text = hidden + np.maximum(1.0, (total - hidden) * np.nan_to_num(records.first_share))
    first = np.where(np.isnan(records.first_share), even, np.minimum(by_text, total - others))
    first = np.where(total < arrived, own * total / np.maximum(arrived, 1), first)
    first = np.where(events == 1, total, first)
    return first, (total - first) / np.maximum(others, 1)


def filled(records: Records) -> NDArray[Any]:
    """Tokens of each event, where an answer tells none as many as an event of the others holds; NaN where none does.

    What failed, or was still coming, was generated too; with the count at the end it never came to tell it.
    """
    if _all_told(records):
        return records.token_count
    tokens = event_tokens(records)
    unknown = np.isnan(tokens)
    if unknown.any() and not unknown.all():
        tokens[unknown] = tokens[~unknown].mean()
    return tokens


def stamped(records: Records) -> tuple[Floats, NDArray[Any]]:
    """Moments and tokens of all that was generated: an answer none of whose tokens is visible has them at its end."""
    unseen = records.having(COMPLETED) & (records.event_counts == 0) & (records.output_tokens > 0)
    if not unseen.any():
        return records.token_at, filled(records)
    moments = np.concatenate([records.token_at, records.finished_at[unseen]])
    return moments, np.concatenate([filled(records), records.output_tokens[unseen].astype(np.float64)])


def tokens_per_event(records: Records) -> float:
    """Mean over the events of answers whose tokens are known; NaN without any."""
    if _all_told(records):
        events = len(records.token_at)
        return int(arrived_tokens(records).sum()) / events if events else float("nan")
    tokens = event_tokens(records)
    known = tokens[~np.isnan(tokens)]
    return float(known.mean()) if len(known) else float("nan")


def one_each(records: Records) -> bool:
    """Whether every event is known to be one token, or is not known at all."""
    if _all_told(records):
        return not len(records.token_count) or (records.token_count.min(), records.token_count.max()) == (1, 1)
    tokens = event_tokens(records)
    return not bool(np.any(tokens[~np.isnan(tokens)] != 1.0))
