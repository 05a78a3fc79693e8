"""One definition of a quantile."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stats.quantile import quantile, quantiles_of_sorted

samples = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)
levels = st.floats(0, 1)


@given(samples, levels)
def test_it_is_what_numpy_calls_linear(values: list[float], level: float) -> None:
    """Type 7, against another implementation."""
    assert quantile(values, level) == pytest.approx(float(np.quantile(values, level, method="linear")), abs=1e-6)


@given(samples, levels, levels)
def test_quantiles_rise_with_their_level(values: list[float], one: float, other: float) -> None:
    """A higher level never gives a lower value."""
    low, high = quantiles_of_sorted(np.sort(values), sorted([one, other]))
    assert low <= high + 1e-9 * max(1, abs(high))


@given(samples, st.randoms())
def test_the_order_of_samples_does_not_matter(values: list[float], random) -> None:
    """Shuffled samples have the same quantiles."""
    shuffled = values.copy()
    random.shuffle(shuffled)
    assert quantile(shuffled, 0.95) == quantile(values, 0.95)


def test_known_answers() -> None:
    """By hand: position 0.95 x 4 = 3.8 among five values."""
    assert quantile([1, 2, 3, 4, 10], 0.95) == pytest.approx(4 + 0.8 * 6)
    assert quantile([7], 0.99) == 7
    assert math.isnan(quantile([], 0.5))


def test_infinite_values_push_the_quantile_out_of_reach_only_where_they_stand() -> None:
    """A failed request is infinitely late: it takes the quantile with it from its own place on."""
    values = [1.0] * 19 + [math.inf]
    assert quantile(values, 0.9) == 1.0
    assert quantile(values, 0.99) == math.inf
