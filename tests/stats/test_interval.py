"""Confidence intervals of quantiles: do they hold the truth as often as they say?"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stats.interval import quantile_interval, share_interval, student
from harness.stats.metrics import Values


def one_each(samples: np.ndarray) -> Values:
    return Values(samples, np.arange(len(samples)), 0)


def interval(values: Values, level: float) -> tuple[float, float]:
    return quantile_interval(values, np.sort(values.samples), level)


def covered(draw, truth: float, level: float, runs: int = 300) -> float:
    """How often the interval holds the truth."""
    random = np.random.default_rng(7)
    hits = 0
    for _ in range(runs):
        low, high = interval(draw(random), level)
        hits += low <= truth <= high
    return hits / runs


@pytest.mark.parametrize(("count", "level"), [(100, 0.5), (400, 0.95), (1000, 0.99)])
def test_independent_samples_are_covered_as_promised(count: int, level: float) -> None:
    """19 in 20 intervals hold the true quantile of an exponential distribution."""
    truth = -math.log(1 - level)
    assert covered(lambda random: one_each(random.exponential(size=count)), truth, level) >= 0.92


def test_samples_that_hang_together_widen_the_interval() -> None:
    """Gaps of one request are alike: the interval counts requests, not gaps."""

    def draw(random: np.random.Generator) -> Values:
        own = np.exp(0.3 * random.normal(size=100))
        return Values(np.repeat(own, 50) * np.exp(0.02 * random.normal(size=5000)), np.repeat(np.arange(100), 50), 0)

    assert covered(draw, 1.0, 0.5) >= 0.9


def test_samples_that_follow_one_another_widen_the_interval() -> None:
    """Requests close in time share a queue."""

    def draw(random: np.random.Generator) -> Values:
        values = np.empty(900)
        state = random.normal()
        for place in range(900):
            state = 0.8 * state + 0.6 * random.normal()
            values[place] = state
        return one_each(np.exp(values))

    assert covered(draw, 1.0, 0.5, runs=150) >= 0.88


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("count", [200, 2000])
def test_a_queue_at_four_fifths_of_its_capacity_is_covered_or_has_no_upper_end(count: int, level: float) -> None:
    """M/M/1: its sojourns are exponential with mean 1 / (1 - 0.8), and remember for some sixty requests."""
    random = np.random.default_rng(5)
    truth = -math.log(1 - level) / 0.2
    missed = unbounded = 0
    for _ in range(200):
        due, takes = np.cumsum(random.exponential(1 / 0.8, count + 100)), random.exponential(size=count + 100)
        total = np.cumsum(takes)
        sojourns = (total + np.maximum.accumulate(due - (total - takes)) - due)[100:]
        low, high = interval(one_each(sojourns), level)
        missed += not low <= truth <= high
        unbounded += math.isinf(high)
    assert missed <= 0.07 * 200
    assert unbounded >= 0.95 * 200 if count == 200 and level > 0.5 else unbounded < 200 or level == 0.99


def test_a_tail_of_independent_samples_has_an_upper_end_once_there_are_enough() -> None:
    """p95 of 40 has none, of 400 it has one."""
    random = np.random.default_rng(6)
    ends = {
        count: [interval(one_each(random.exponential(size=count)), 0.95)[1] for _ in range(100)] for count in (40, 400)
    }
    assert np.isinf(ends[40]).all()
    assert np.isfinite(ends[400]).mean() >= 0.95


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=80), st.sampled_from([0.5, 0.95, 0.99]))
def test_the_interval_holds_its_own_estimate(samples: list[float], level: float) -> None:
    """Low, estimate, high, in this order, within the samples; or no end where they are too few."""
    values = one_each(np.array(samples))
    low, high = interval(values, level)
    assert low == 0 or min(samples) - 1e-9 <= low <= float(np.quantile(samples, level)) + 1e-9
    assert float(np.quantile(samples, level)) - 1e-9 <= high
    assert high <= max(samples) + 1e-9 or math.isinf(high)


@pytest.mark.parametrize(
    ("share", "size", "expected"),
    [(0.5, 10, (0.187, 0.813)), (0.95, 100, (0.887, 0.984)), (1.0, 72, (0.950, 1.0)), (0.0, 20, (0.0, 0.168))],
)
def test_an_interval_of_a_share_matches_the_tables(share: float, size: float, expected: tuple[float, float]) -> None:
    """Clopper and Pearson, 95 %."""
    assert share_interval(share, size, 0.025) == pytest.approx(expected, abs=0.001)


def test_the_same_records_give_the_same_interval() -> None:
    """Nothing is drawn."""
    values = one_each(np.random.default_rng(1).exponential(size=300))
    assert interval(values, 0.95) == interval(values, 0.95)


def test_no_samples_have_no_interval() -> None:
    """Not a number, both ends."""
    assert all(math.isnan(end) for end in interval(one_each(np.array([])), 0.5))


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706), (2, 4.303), (3, 3.182), (10, 2.228), (30, 2.042), (1000, 1.962)]
)
def test_students_distribution_matches_the_tables(freedom: int, expected: float) -> None:
    """97.5 % points to one per cent."""
    assert student(freedom) == pytest.approx(expected, rel=0.01)
