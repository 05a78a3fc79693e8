"""Each metric against values known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from harness.measure.records import Records
from harness.stats.metrics import BY_NAME, METRICS, Values
from tests.runs import ticking


def of(name: str, *records) -> Values:
    return BY_NAME[name].of(Records.from_list(records))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ttft", [0.25]),  # from the moment due
        ("service_ttft", [0.2]),  # from the sending
        ("itl", [0.1, 0.1, 0.1]),  # three gaps of four tokens
        ("tpot", [0.1]),
        ("e2e", [0.55]),
        ("schedule_lag", [0.05]),
        ("queue", [0.01]),
    ],
)
def test_a_request_that_ticks_at_known_times_gives_exactly_those(name: str, expected: list[float]) -> None:
    """Formulas, on one request due at 1 s whose first token comes after 0.25 s and every other 0.1 s later."""
    record = ticking(0, 1.0, first=0.25, gap=0.1, tokens=4, lag=0.05, queue_time=0.01)
    assert of(name, record).samples == pytest.approx(expected, abs=1e-12)


def test_gaps_are_pooled_and_never_span_two_requests() -> None:
    """ITL has every gap of every request and none between one request's end and the next one's start."""
    values = of("itl", ticking(0, 0.0, gap=0.1, tokens=3), ticking(1, 50.0, gap=0.3, tokens=2))
    assert values.samples == pytest.approx([0.1, 0.1, 0.3])
    assert values.request.tolist() == [0, 0, 1]


def test_a_request_without_a_value_is_left_out_and_counted() -> None:
    """One token has no gap and no TPOT; it is no zero."""
    records = (ticking(0, 0.0, tokens=1), ticking(1, 0.0, tokens=5))
    for name, samples in (("itl", 4), ("tpot", 1)):
        values = of(name, *records)
        assert (len(values.samples), values.left_out) == (samples, 1)
    assert of("ttft", ticking(0, 0.0, tokens=0)).left_out == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"output_tokens": 12},  # the server counted other than what arrived
        {"output_tokens": None, "count_told": None},  # the server tells none
        {"token_at": [0.2], "token_count": [11]},  # all in one event: when the first came is not known
    ],
)
def test_tpot_is_undefined_where_tokens_cannot_be_told_apart(changes: dict) -> None:
    """No value is better than a wrong one."""
    values = of("tpot", ticking(0, 0.0, tokens=11, **changes))
    assert (len(values.samples), values.left_out) == (0, 1)


def test_an_event_with_several_tokens_is_one_gap_but_counts_all_for_tpot() -> None:
    """Speculative decoding: fewer gaps than tokens."""
    record = ticking(0, 0.0, token_at=[1.0, 1.4], token_count=[1, 4], output_tokens=5)
    assert of("itl", record).samples == pytest.approx([0.4])
    assert of("tpot", record).samples == pytest.approx([0.1])


def test_tpot_divides_by_the_tokens_after_the_first_event() -> None:
    """Those of the first event came with it: three tokens an event, and the last token 0.6 s after six more."""
    bursts = ticking(0, 0.0, token_at=[1.0, 1.3, 1.6], token_count=[3, 3, 3], output_tokens=9)
    assert of("tpot", bursts).samples == pytest.approx([0.1])


def test_a_count_that_was_told_at_the_end_makes_tpot_and_gaps_per_token() -> None:
    """Four tokens an event, told of the whole answer only: 28 of 32 came after the first event, in 0.56 s."""
    at = [0.1 + 0.08 * each for each in range(8)]
    record = ticking(0, 0.0, token_at=at, token_count=[1] * 8, output_tokens=32, count_told="per_answer")
    assert of("tpot", record).samples == pytest.approx([0.02])
    assert of("itl", record).samples == pytest.approx([0.08] * 7)
    assert of("itl_per_token", record).samples == pytest.approx([0.02] * 7)


def test_gaps_per_token_need_a_count() -> None:
    """Without one a gap is known, and what it is shared by is not."""
    record = ticking(0, 0.0, output_tokens=None, count_told=None)
    assert len(of("itl", record).samples) == 10
    assert (len(of("itl_per_token", record).samples), of("itl_per_token", record).left_out) == (0, 1)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_takes_no_records_at_all(metric) -> None:
    """An empty run has no samples, not an error."""
    assert len(metric.of(Records.from_list([])).samples) == 0


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_names_the_request_of_each_sample_in_order(metric) -> None:
    """Intervals rely on it."""
    records = [ticking(n, float(n), tokens=n % 4, queue_time=0.1) for n in range(20)]
    owners = metric.of(Records.from_list(records)).request
    assert np.all(np.diff(owners) >= 0)
