"""Whether a bound holds on a level: the share that meets it, its interval, and what follows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.catalog.slo import parse_slo
from harness.measure.records import Records
from harness.stats.decision import BoundShare, bound_shares, decide
from harness.stats.window import steady_window
from tests.runs import dropped, failed, ticking
from tests.stats.made_up import KvBound, MadeUp, PrefillQueue

TTFT = parse_slo("ttft_p95=1s")


def shares_of(service: MadeUp, load: float, seed: int, seconds: float = 60.0) -> tuple[BoundShare, ...]:
    level, records = service.level(load, seconds, np.random.default_rng(seed))
    window = steady_window(level, records)
    return bound_shares(records.select(window.holds(records.scheduled_at)), service.slo)


def test_what_has_no_answer_misses_every_bound() -> None:
    """Failed, dropped and unfinished requests count among those due, whatever they had of an answer."""
    lost = [failed(1, 0.1), dropped(2, 0.2), replace(ticking(3, 0.3), status="in_flight", finished_at=None)]
    records = Records.from_list([ticking(0, 0.0), *lost])
    for bounds in ("ttft_p50=1s", "itl_p50=1s", "e2e_p50=10s", "tpot_p50=1s"):
        (found,) = bound_shares(records, parse_slo(bounds))
        assert found.share == pytest.approx(0.25), bounds


def test_a_lost_request_weighs_as_many_gaps_as_others_have() -> None:
    """Pooled figures cannot be held against requests otherwise."""
    records = Records.from_list([*(ticking(n, n / 10) for n in range(9)), failed(9, 0.95)])
    (found,) = bound_shares(records, parse_slo("itl_p95=30ms"))
    assert (found.samples, found.share) == (100, 0.9)


@pytest.mark.parametrize(
    ("first", "decision"), [((0.2,) * 400, "holds"), ((0.2,) * 20, "undecided"), ((0.2, 2.0) * 200, "breaks")]
)
def test_only_an_interval_beside_the_bound_decides(first: tuple[float, ...], decision: str) -> None:
    """Twenty requests within the bound are no proof that one in twenty does not miss it."""
    records = Records.from_list([ticking(n, n / 10, first=each) for n, each in enumerate(first)])
    (found,) = bound_shares(records, TTFT)
    assert found.decision == decision
    assert found.interval[0] <= found.share <= found.interval[1]


def test_all_bounds_hold_or_one_breaks() -> None:
    """Else nothing is decided."""
    bound = TTFT.bounds[0]
    holds, unsure, breaks = (
        BoundShare(bound, 0.97, 100, 100.0, ends) for ends in ((0.96, 0.99), (0.94, 0.99), (0.8, 0.9))
    )
    assert decide([holds, holds]) == "holds"
    assert decide([holds, unsure]) == "undecided"
    assert decide([unsure, breaks, holds]) == "breaks"
    assert decide([]) == "undecided"


def test_bounds_that_are_no_shares_are_left_out() -> None:
    """No number of samples shows a maximum to hold."""
    records = Records.from_list([ticking(0, 0.0)])
    assert [each.bound.name for each in bound_shares(records, parse_slo("ttft_max=1s,e2e_mean=1s,itl_p99=1s"))] == [
        "itl_p99"
    ]


def test_nothing_due_decides_nothing() -> None:
    """The share is not a number, the interval all there is."""
    (found,) = bound_shares(Records.from_list([]), TTFT)
    assert math.isnan(found.share)
    assert (found.interval, found.decision, found.as_dict()["share"]) == ((0.0, 1.0), "undecided", None)


@pytest.mark.parametrize(("service", "seeds"), [(PrefillQueue(capacity=40, slo=parse_slo("ttft_p95=500ms")), 60)])
def test_a_level_at_the_knee_is_hardly_ever_decided(service: MadeUp, seeds: int) -> None:
    """There the true share is the one that is needed: one in twenty may be decided, by chance."""
    decided = [decide(shares_of(service, service.knee, seed)) for seed in range(seeds)]
    assert decided.count("undecided") >= 0.93 * seeds


def test_a_level_beside_a_sharp_knee_is_decided() -> None:
    """Thousands of gaps a minute tell a twentieth apart."""
    service = KvBound()
    assert decide(shares_of(service, service.knee * 0.94, 1)) == "holds"
    assert decide(shares_of(service, service.knee * 1.06, 1)) == "breaks"
