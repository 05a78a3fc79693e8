"""The share of good answers, and how much of it was lost."""

from __future__ import annotations

import numpy as np
import pytest

from harness.measure.record import RequestRecord
from harness.measure.records import COMPLETED, Records
from harness.stats.good_share import loss
from harness.stats.run_figure import Part
from harness.stats.window import Window
from tests.runs import failed, ticking


def part(bad: int, requests: int, bad_one=failed) -> Part:
    """A level with so many bad answers, the others of 0.4 s."""
    made: list[RequestRecord] = [
        bad_one(at, float(at)) if at < bad else ticking(at, float(at)) for at in range(requests)
    ]
    records = Records.from_list(made)
    window = Window(0.0, float(requests), 0.0, "given")
    return Part("1/s", window, records, records, records.select(records.having(COMPLETED)))


def test_the_interval_is_newcombes_and_no_shorter() -> None:
    """56 of 70 against 48 of 80: his method gives 0.0524 to 0.3339 from Wilson's intervals; Pearson's are wider."""
    found = loss([part(14, 70)], [part(32, 80)])
    assert found is not None
    assert found.lost == pytest.approx(0.2)
    assert 0.03 < found.lowest < 0.0524
    assert 0.3339 < found.highest < 0.36


def test_without_a_miss_so_many_requests_exclude_one_per_cent() -> None:
    """ln 0.025 / ln 0.99: 368 requests."""
    for requests, excluded in ((360, False), (375, True)):
        found = loss([part(0, 1000)], [part(0, requests)])
        assert found is not None
        assert (found.highest < 0.01) is excluded


def test_bad_answers_that_come_in_one_run_are_less_sure() -> None:
    """Twenty failures in one of five runs tell less than four in each."""
    even = loss([part(0, 200)] * 5, [part(4, 200)] * 5)
    lumped = loss([part(0, 200)] * 5, [part(20, 200), *[part(0, 200)] * 4])
    assert even is not None
    assert lumped is not None
    assert even.lost == pytest.approx(lumped.lost)
    assert lumped.highest - lumped.lowest > 2 * (even.highest - even.lowest)


def test_an_answer_that_takes_absurdly_long_is_bad() -> None:
    """Three times what all but a hundredth of BASE's take; a little later than that is only late."""
    for first, good in ((0.9, True), (60.0, False)):
        found = loss([part(0, 500)], [part(50, 500, lambda at, due, first=first: ticking(at, due, first=first))])
        assert found is not None
        assert np.isclose(found.new, 1.0 if good else 0.9)


def test_those_that_hang_are_seen_where_some_did_before() -> None:
    """Two in a hundred of BASE's take a minute, and six of NEW's: BASE's p99 is a minute, and its p95 is not."""

    def stuck(at: int, due: float) -> RequestRecord:
        return ticking(at, due, first=60.0)

    found = loss([part(10, 500, stuck)] * 5, [part(30, 500, stuck)] * 5)
    assert found is not None
    assert (found.base, found.new) == pytest.approx((0.98, 0.94))
    assert found.lowest > 0.01


def test_nothing_due_is_nothing_told() -> None:
    """Neither good nor bad."""
    assert loss([part(0, 10)], [part(0, 0)]) is None
