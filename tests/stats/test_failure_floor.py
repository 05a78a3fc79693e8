"""Which failures belong to no load, and what is left of the misses without them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.catalog.slo import parse_slo
from harness.stats.capacity_search import CapacitySearch, Goal
from harness.stats.decision import BoundShare
from harness.stats.failure_floor import NO_FLOOR, floor_of
from harness.stats.outcome import Outcome, outcome_of
from tests.stats.made_up import PrefillQueue
from tests.stats.searches import holds_the_truth, searched

BOUND = parse_slo("ttft_p95=1s").bounds[0]


def level(load: float, miss: float, failures: dict[str, float], due: int = 1000) -> Outcome:
    share = BoundShare(BOUND, 1 - miss, due, float(due), (0.0, 1.0))
    return Outcome(load, (share,), 60.0, failures=failures, due=due)


def test_what_fails_at_every_load_is_a_floor() -> None:
    """Its share is that of all levels together, and each level is taken as if it had had exactly that."""
    levels = [level(10, 0.04, {"stream_broken": 0.04}), level(20, 0.02 + 0.98 * 0.03, {"stream_broken": 0.02})]
    floor = floor_of(levels, 0.05)
    assert (floor.share, floor.kinds) == (pytest.approx(0.03), {"stream_broken"})
    slow = [floor.slow(1 - floor.levelled(each).shares[0].share) for each in levels]
    assert slow == pytest.approx([0.0, 0.03])
    assert floor.allowed(0.05) == pytest.approx(0.02 / 0.97)


def test_a_floor_is_not_what_limits() -> None:
    """Also where by chance more of a level failed than the bound allows."""
    levels = [level(10, 0.02, {"empty": 0.02}), level(20, 0.3, {"empty": 0.06}, due=100)]
    assert CapacitySearch(Goal(10.0, True), levels).answer().limited_by == "ttft_p95"
    refused = [level(10, 0.0, {}), level(20, 0.3, {"overloaded": 0.29})]
    assert CapacitySearch(Goal(10.0, True), refused).answer().limited_by == "refused requests (queue limit)"


@pytest.mark.parametrize("kind", ["overloaded", "timeout"])
def test_what_fails_by_the_load_is_none(kind: str) -> None:
    """Refusals begin where the queue is full; other failures beside them may be of any load all the same."""
    levels = [level(load, miss, {kind: miss}) for load, miss in ((5, 0.0), (10, 0.0), (20, 0.04), (21, 0.06))]
    assert floor_of(levels, 0.05) == NO_FLOOR
    mixed = [level(each.load, 0.01 + each.failed, {**each.failures, "empty": 0.01}) for each in levels]
    assert floor_of(mixed, 0.05).kinds == {"empty"}


def test_an_overload_tells_nothing_of_the_floor() -> None:
    """Nor does a file of an earlier version, which kept no number of requests."""
    levels = [level(10, 0.02, {"timeout": 0.02}), level(40, 0.9, {"timeout": 0.5})]
    assert floor_of(levels, 0.05).share == pytest.approx(0.02)
    assert floor_of([level(10, 0.02, {"timeout": 0.02}, due=0)], 0.05) == NO_FLOOR


def test_a_floor_that_leaves_no_room_is_none() -> None:
    """Then no load holds, and no line says where one would."""
    assert floor_of([level(10, 0.06, {"empty": 0.06})], 0.05) == NO_FLOOR


def test_a_level_without_a_figure_stays_so() -> None:
    """As where answers came in one piece."""
    floor = floor_of([level(10, 0.02, {"empty": 0.02})], 0.05)
    nothing = level(20, math.nan, {"empty": 0.5})
    assert math.isnan(floor.levelled(nothing).shares[0].share)


def test_the_parts_of_a_level_are_those_of_what_did_not_fail() -> None:
    """A failure tells nothing of how the slow ones hang together."""
    service = PrefillQueue(capacity=40, slo=parse_slo("ttft_p95=500ms"))
    parts = []
    for each in (service, PrefillQueue(capacity=40, slo=service.slo, always=0.03)):
        run, records = each.level(34.0, 60.0, np.random.default_rng(3))
        parts.append(outcome_of(run, records, each.slo, seconds=60.0).shares[0].batches)
    assert parts[0] is not None
    assert parts[1] is not None
    assert parts[1].scatter == pytest.approx(parts[0].scatter, rel=0.1)


@pytest.mark.parametrize("failing", [0.01, 0.03])
def test_the_interval_holds_the_knee_of_what_is_left(failing: float) -> None:
    """Where one of a hundred fails at any load, or so many that little is left of what the bound allows."""
    service = PrefillQueue(capacity=40, always=failing, slo=parse_slo("ttft_p95=500ms"))
    answers = [searched(service, seed).answer() for seed in (1001, 1002, 1003)]
    assert sum(holds_the_truth(each, service.knee) for each in answers) >= 2
    assert any("fail at any load" in note for note in answers[0].notes)
