"""How many independent samples a series amounts to, held against series whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from harness.stats.dependence import (
    Batches,
    batch_starts,
    batches,
    batches_of,
    independent_size,
    inflation,
    lag_one,
    pooled_effect,
)


def autoregressive(random: np.random.Generator, count: int, memory: float) -> np.ndarray:
    """Of first order, with unit variance: worth count * (1 - memory) / (1 + memory) independent samples."""
    values = np.empty(count)
    values[0] = random.normal()
    steps = np.sqrt(1 - memory * memory) * random.normal(size=count)
    for place in range(1, count):
        values[place] = memory * values[place - 1] + steps[place]
    return values


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9, 0.97])
def test_an_autoregressive_series_is_worth_what_theory_says(memory: float) -> None:
    """The mean over many series is the known number, up to the caution that is asked for: within 0.6 to 1.15 of it."""
    random = np.random.default_rng(1)
    count = 4000
    found = [independent_size(autoregressive(random, count, memory), batch_starts(np.arange(count))) for _ in range(60)]
    known = count * (1 - memory) / (1 + memory)
    assert 0.6 * known <= np.median(found) <= 1.15 * known


def test_a_memory_longer_than_the_series_leaves_next_to_nothing() -> None:
    """A series that only wanders once is one observation, not two hundred."""
    random = np.random.default_rng(2)
    found = [independent_size(autoregressive(random, 200, 0.995), batch_starts(np.arange(200))) for _ in range(40)]
    assert np.median(found) < 5


@pytest.mark.parametrize(("samples", "expected"), [([1.0] * 50, 50.0), ([0.3] * 2, 2.0), ([], 0.0), ([5.0], 1.0)])
def test_samples_that_do_not_vary_or_are_hardly_any(samples: list[float], expected: float) -> None:
    """Constant samples share nothing that could be seen; of fewer than three batches each counts once."""
    values = np.array(samples)
    assert independent_size(values, batch_starts(np.arange(len(values)))) == expected


def test_rounding_is_no_variation() -> None:
    """Latencies that differ in the sixteenth digit are the same."""
    values = 0.05 + np.cumsum(np.full(300, 1e-18)) - 1e-17 * (np.arange(300) % 7)
    assert independent_size(values, batch_starts(np.arange(300))) == 300.0


def test_batches_are_of_about_equal_size_and_in_order() -> None:
    """At most 32, ascending from 0 without gaps."""
    for units in (1, 5, 31, 32, 33, 100, 1000):
        found = batches(units)
        assert found.tolist() == sorted(found.tolist())
        assert set(found.tolist()) == set(range(min(units, 32)))
        assert np.ptp(np.bincount(found)) <= 1


def test_neighbours_that_are_unlike_do_not_make_a_series_more_sure() -> None:
    """Alternating residuals have negative correlation, which is taken for none."""
    alternating = np.array([1.0, -1.0] * 20)
    assert lag_one(alternating, mean_terms=3.0) == 0.0
    assert inflation(alternating) == 1.0


def misses(random: np.random.Generator, count: int, memory: float, share: float = 0.05) -> np.ndarray:
    """A chain of hits and misses whose correlation is memory^k at distance k, so that (1 + memory) / (1 - memory)
    samples are worth an independent one.
    """
    chain, drawn = np.empty(count, dtype=bool), random.uniform(size=count)
    chain[0] = drawn[0] < share
    for place in range(1, count):
        chain[place] = drawn[place] < (1 - memory) * share + memory * chain[place - 1]
    return chain


@pytest.mark.parametrize("memory", [0.0, 0.8, 0.95, 0.97])
def test_several_levels_tell_how_long_a_queue_remembers(memory: float) -> None:
    """Ten levels together, each too short for it: within a third of what is known, and to the same from a file; as
    levels that miss little do, their own word is half of it.
    """
    random = np.random.default_rng(3)
    known = (1 + memory) / (1 - memory)
    found = []
    for _ in range(12):
        levels = [batches_of(misses(random, 1200, memory), np.arange(1200)) for _ in range(10)]
        assert [Batches.from_dict(each.as_dict() if each else None) for each in levels] == levels
        found.append(pooled_effect(levels, np.ones(10), own=known / 2))
    assert 0.67 * known <= np.median(found) <= 1.5 * known


def test_levels_that_miss_nothing_are_taken_at_their_own_word() -> None:
    """As are those of an earlier version, that did not keep how their parts differ."""
    nothing = batches_of(np.zeros(400, dtype=bool), np.arange(400))
    assert pooled_effect([nothing, None], np.ones(2), own=7.0) == 7.0
    assert batches_of(np.zeros(3, dtype=bool), np.arange(3)) is None
    with pytest.raises(ValueError, match="batches"):
        Batches.from_dict({"count": 1, "scatter": 1.0, "excess": 1.0, "together": 0.0})
