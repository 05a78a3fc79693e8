"""Attainment and goodput."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.catalog.slo import Slo, parse_slo
from harness.measure.records import Records
from harness.stats.slo import attain, meets
from tests.runs import dropped, failed, ticking

BURST = ticking(0, 0.0, token_at=[0.8] * 11)
UNTOLD = ticking(0, 0.0, output_tokens=None, count_told=None)
UNSEEN = ticking(0, 0.0, tokens=0, output_tokens=3, notes="invisible")


def columns(*records) -> Records:
    return Records.from_list(records)


@pytest.mark.parametrize(
    ("slo", "record", "expected"),
    [
        ("ttft_p95=0.2s", ticking(0, 0.0, first=0.2), True),  # the bound itself holds
        ("ttft_p95=0.19s", ticking(0, 0.0, first=0.2), False),
        ("ttft_p99=1s,itl_p95=10ms", ticking(0, 0.0, gap=0.02), False),  # all bounds at once
        ("itl_p95=60ms", ticking(0, 0.0, tokens=1), True),  # no gap breaks no bound on gaps
        ("tpot_p95=60ms", ticking(0, 0.0, tokens=1), True),
        ("ttft_p95=9s", ticking(0, 0.0, tokens=0), False),  # no token at all
        ("ttft_p95=9s", failed(0, 0.0), False),
        ("ttft_p95=9s", dropped(0, 0.0), False),
        ("itl_max=0.05s", ticking(0, 0.0, token_at=[0.0, 0.01, 0.2], token_count=[1] * 3), False),
        ("itl_mean=0.11s", ticking(0, 0.0, token_at=[0.0, 0.01, 0.2], token_count=[1] * 3), True),
        ("e2e_p50=0.5s", ticking(0, 0.0, first=0.2, gap=0.02, tokens=11), True),
        ("itl_p95=60ms", BURST, False),  # nobody knows its gaps: it is no good one
        ("tpot_p95=60ms", UNTOLD, False),
    ],
)
def test_which_requests_meet_an_slo(slo: str, record, expected: bool) -> None:
    """One case per rule."""
    assert meets(columns(record), parse_slo(slo)).tolist() == [expected]


@given(
    st.lists(st.lists(st.sampled_from([0.01, 0.02, 0.03, 0.0555, 0.07]), max_size=25), min_size=1, max_size=6),
    st.sampled_from(["p50", "p90", "p95", "p99", "max", "mean"]),
    st.sampled_from([0.0151, 0.0253, 0.0421, 0.0607]),
)
def test_a_bound_on_itl_is_one_on_the_requests_own_gaps(gaps: list[list[float]], statistic: str, limit: float) -> None:
    """Counting gaps gives what computing each request's quantile gives."""
    records = [
        ticking(
            n,
            0.0,
            token_at=[0.0, *np.cumsum(own).tolist()],
            token_count=[1] * (len(own) + 1),
            output_tokens=len(own) + 1,
        )
        for n, own in enumerate(gaps)
    ]
    exact = columns(*records)
    expected = []
    for row in range(len(records)):
        own = np.diff(exact.token_at[exact.offsets[row] : exact.offsets[row + 1]])
        if len(own) == 0:
            expected.append(True)
        elif statistic in ("max", "mean"):
            expected.append(bool(getattr(own, statistic)() <= limit * (1 + 1e-12)))
        else:
            expected.append(bool(np.quantile(own, int(statistic[1:]) / 100) <= limit * (1 + 1e-15)))
    assert meets(exact, parse_slo(f"itl_{statistic}={limit}")).tolist() == expected


def test_failed_and_dropped_requests_count_among_those_due() -> None:
    """8 of 10 met the bound; the one in flight has no outcome and is not counted."""
    records = [ticking(n, 0.0) for n in range(8)] + [failed(8, 0.0), dropped(9, 0.0)]
    in_flight = ticking(10, 0.0, status="in_flight", finished_at=None)
    found = attain(columns(*records, in_flight), parse_slo("ttft_p50=1s"))
    assert (found.met, found.due, found.fraction) == (8, 10, 0.8)
    assert found.holds is True


def test_failures_count_as_infinitely_late_in_a_bound_on_the_level() -> None:
    """With 10 % failed, p90 of TTFT is at the edge and p95 out of reach; a bound on gaps breaks likewise."""
    records = columns(*[ticking(n, 0.0) for n in range(18)], failed(18, 0.0), failed(19, 0.0))
    assert attain(records, parse_slo("ttft_p50=1s")).holds is True
    broken = attain(records, parse_slo("ttft_p95=1s"))
    assert (broken.holds, broken.bounds[0].found) == (False, math.inf)
    assert attain(records, parse_slo("itl_p90=1s")).holds is True
    assert attain(records, parse_slo("itl_p95=1s")).holds is False


@pytest.mark.parametrize(
    ("slo", "record", "cause"),
    [
        ("itl_p95=60ms", BURST, "the answers came in one piece"),
        ("tpot_p95=60ms", BURST, "the answers came in one piece"),
        ("tpot_p95=60ms", UNTOLD, "the server tells no counts"),
        ("ttft_p95=1s", replace(BURST, notes="not_streamed"), "the answers were not streamed"),
        ("ttft_p95=1s", UNSEEN, "no token of the answers is visible"),
        ("itl_p50=60ms", ticking(0, 0.0, tokens=1), "no answer has more than one token"),
        ("itl_p50=60ms", ticking(0, 0.0, token_at=[0.1, 0.1, 0.1, 0.2, 0.2, 0.2] + [0.3] * 5),
         "most events arrive together with an earlier one"),
    ],
)  # fmt: skip
def test_a_bound_on_a_figure_that_cannot_be_had_is_neither_held_nor_broken(slo: str, record, cause: str) -> None:
    """Whatever its limit; the cause is told, and the rest of the SLO does not change that."""
    records = columns(*[replace(record, request_id=f"{n}") for n in range(20)])
    found = attain(records, parse_slo(slo))
    assert (found.holds, found.bounds[0].holds, found.bounds[0].as_dict()["cause"]) == (None, None, cause)
    assert found.bounds[0].as_dict()["found"] is None
    assert attain(records, parse_slo(f"e2e_p50=9s,{slo}")).holds is None
    assert attain(records, parse_slo(f"e2e_p50=1ms,{slo}")).holds is False
    lost = columns(*[replace(record, request_id=f"{n}") for n in range(5)], *[failed(n, 0.0) for n in range(5, 20)])
    assert attain(lost, parse_slo(slo)).holds is False  # of those that failed it is known that they hold nothing


def test_requests_that_cannot_be_judged_are_neither_good_nor_bad() -> None:
    """Few of them leave the rest to speak; where they are many, goodput is not known."""
    slo = parse_slo("itl_p95=60ms")
    few = attain(columns(*[ticking(n, 0.0) for n in range(38)], failed(38, 0.0), replace(BURST, request_id="x")), slo)
    assert (few.met, few.unjudged, few.due) == (38, 1, 40)
    assert few.fraction == pytest.approx(38 / 39)
    assert few.holds is True
    many = attain(columns(*[ticking(n, 0.0) for n in range(10)], replace(BURST, request_id="x")), slo)
    assert (many.judged, many.holds) == (False, None)
    assert math.isnan(many.fraction)


def test_without_bounds_nothing_holds_or_breaks() -> None:
    """No SLO is no verdict; completed requests all meet it."""
    found = attain(columns(ticking(0, 0.0), failed(1, 0.0)), Slo())
    assert (found.holds, found.fraction) == (None, 0.5)


def test_nothing_due_is_no_verdict() -> None:
    """An empty window says nothing of the SLO."""
    assert attain(columns(), parse_slo("ttft_p95=1s")).holds is None
