"""The difference of two sides of repeats, on values whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats.effect import Effect, Spread, effect, holm, repeats_needed, sure_at_each

ABBA, BLOCKS = "ABBAABBAAB", "AAAAABBBBB"


def drawn(seed: int, turns: str, spread: float, change: float = 0.0, drift: float = 0.0) -> Effect:
    """Runs in this order, their logarithms: scattered by `spread`, NEW's larger by `change`, each by `drift` more."""
    random = np.random.default_rng(seed)
    values = random.normal(0, spread, len(turns)) + drift * np.arange(len(turns))
    values += [change if turn == "B" else 0.0 for turn in turns]
    base, new = ([place for place, turn in enumerate(turns) if turn == which] for which in "AB")
    within = ([1e-4] * len(base), [1e-4] * len(new))
    found = effect(values[base].tolist(), values[new].tolist(), within, [*base, *new])
    assert found is not None
    return found


def test_it_is_welchs_test() -> None:
    """Difference, p and interval are those of scipy, where no order is told."""
    base, new = [0.0, 0.3, 0.1], [0.5, 0.45, 0.7, 0.52]
    found = effect(base, new, ([0.0] * 3, [0.0] * 4))
    assert found is not None
    theirs = stats.ttest_ind(new, base, equal_var=False)
    assert (found.difference, found.p) == pytest.approx((np.mean(new) - np.mean(base), theirs.pvalue))
    assert found.interval() == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_the_interval_holds_the_truth() -> None:
    """In 95 % of repeats, interleaved or not, and whether or not the machine drifts meanwhile."""
    for turns, drift in ((ABBA, 0.0), (BLOCKS, 0.0), (ABBA, 0.01)):
        ends = [drawn(seed, turns, 0.01, 0.05, drift).interval() for seed in range(400)]
        assert np.mean([low <= 0.05 <= high for low, high in ends]) >= 0.92


@pytest.mark.parametrize(("turns", "drift", "often"), [(ABBA, 0.0, 0.95), (ABBA, 0.01, 0.95), (BLOCKS, 0.0, 0.9)])
def test_a_difference_that_is_there_is_found(turns: str, drift: float, often: float) -> None:
    """5 % of one figure among six, five runs a side, a spread of 1 %; where they took turns also beside a drift."""
    found = [drawn(seed, turns, 0.01, 0.05, drift).p < 0.05 / 6 for seed in range(300)]
    assert np.mean(found) >= often


def test_a_drift_is_no_difference() -> None:
    """One after the other, a machine that drifts looks like a change; it is called one as seldom as chance would be."""
    for turns in ("AAABBB", BLOCKS):
        for spread in (0.0005, 0.005, 0.01):
            found = [drawn(seed, turns, spread, drift=0.01) for seed in range(300)]
            assert all(each.apart for each in found)
            assert np.mean([each.p < 0.05 / 6 for each in found]) <= 0.03


@pytest.mark.parametrize(("runs", "most"), [(3, 0.01), (4, 0.02)])
def test_of_few_runs_that_drift_no_figure_is_called_different(runs: int, most: float) -> None:
    """So many and then as many, 1 % slower each: of five figures together hardly ever is one."""
    alarms = []
    for seed in range(400):
        random, place = np.random.default_rng(seed), np.arange(2 * runs)
        figures = (0.01 * place + random.normal(0, 0.005, 2 * runs) for _ in range(5))
        found = [effect(*np.split(each, 2), ([0.005] * runs,) * 2, place.tolist()) for each in figures]
        alarms.append(min(holm({number: each.p for number, each in enumerate(found) if each}).values()) < 0.05)
    assert np.mean(alarms) <= most


def test_runs_are_never_closer_than_their_requests_allow() -> None:
    """Two runs that agree by chance to the last digit still scatter as their requests do."""
    found = effect([0.0, 0.0], [0.01, 0.01], ([0.02, 0.02], [0.02, 0.02]))
    assert found is not None
    assert found.interval() == pytest.approx((0.01 - 1.96 * 0.02, 0.01 + 1.96 * 0.02), abs=1e-5)
    assert found.p == pytest.approx(2 * stats.norm.sf(0.5))


def test_few_runs_are_not_allowed_for_twice() -> None:
    """Runs that differ only as their requests scatter, which is known: the interval holds the truth a little more often
    than in 95 %, and decides a limit of 10 % nearly as often as Student's alone would.
    """
    random, spread, limit = np.random.default_rng(1), 0.045, math.log(1.1)
    held, decided, students = [], [], []
    for _ in range(2000):
        base, new = random.normal(0, spread, 5).tolist(), random.normal(0, spread, 5).tolist()
        found = effect(base, new, ([spread] * 5, [spread] * 5))
        alone = effect(base, new, ([0.0] * 5, [0.0] * 5))
        assert found is not None
        assert alone is not None
        (low, high), plain = found.interval(), alone.interval()
        assert low <= plain[0] <= plain[1] <= high
        held.append(low <= 0 <= high)
        decided.append(high < limit)
        students.append(plain[1] < limit)
    assert 0.955 <= np.mean(held) <= 0.985
    assert np.mean(students) - 0.02 <= np.mean(decided) <= np.mean(students)


def test_with_a_trend_taken_out_runs_are_no_closer_either() -> None:
    """A line that goes through all runs by chance leaves what their requests scatter."""
    turns = "ABBAABBA"
    values = [0.1 * at for at in range(8)]
    base, new = ([at for at, turn in enumerate(turns) if turn == which] for which in "AB")
    found = effect([values[at] for at in base], [values[at] for at in new], ([0.02] * 4, [0.02] * 4), [*base, *new])
    assert found is not None
    assert found.trend == pytest.approx(0.1)
    assert found.interval()[1] - found.difference >= 1.95 * 0.02 / math.sqrt(2)


def test_a_single_run_needs_a_spread_from_elsewhere() -> None:
    """From the other side's repeats, or as measured before; else nobody knows."""
    assert effect([0.0], [0.1], ([0.01], [0.01])) is None
    known = effect([0.0], [0.1], ([0.01], [0.01]), known=Spread(0.03, 8))
    assert known is not None
    assert known.error == pytest.approx(0.03 * math.sqrt(2))
    other = effect([0.0, 0.02, 0.04], [0.1], ([0.0] * 3, [0.0]))
    assert other is not None
    assert other.spread == pytest.approx(0.02)


@pytest.mark.parametrize("most", [4, 10, 30])
def test_all_looks_together_find_chance_no_more_often_than_one(most: int) -> None:
    """Welch's test after three and each further run a side of the same thing: at the level of each, one in twenty such
    series finds a difference at any time, at that of a single test two to five times as many.
    """
    random = np.random.default_rng(2)
    base, new = random.normal(size=(2, 4000, most))
    ps = np.array(
        [stats.ttest_ind(base[:, :n], new[:, :n], axis=1, equal_var=False).pvalue for n in range(3, most + 1)]
    )
    assert np.mean(ps.min(axis=0) < sure_at_each(most)) <= 0.055
    assert np.mean(ps.min(axis=0) < 0.05) >= 0.06


def test_holm_is_the_textbooks() -> None:
    """Smallest first, times how many are left, never falling."""
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({}) == {}


def test_the_smallest_change_is_found_in_four_of_five() -> None:
    """As it says of itself."""
    size = float(np.median([drawn(seed, ABBA, 0.01).smallest(1) for seed in range(200)]))
    assert np.mean([drawn(seed, ABBA, 0.01, size).p < 0.05 for seed in range(400)]) == pytest.approx(0.8, abs=0.07)


def test_repeats_needed_are_enough() -> None:
    """The interval then reaches no further than asked for, and with one run less it does."""
    count = repeats_needed(0.05, 0.04, 2)
    reach = [stats.t.ppf(0.975, 2 * runs - 2) * 0.04 * math.sqrt(2 / runs) for runs in (count - 1, count)]
    assert reach[0] > 0.05 >= reach[1]
