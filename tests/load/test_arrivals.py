"""Arrival processes: their gaps have the mean, the spread and the independence that their names promise."""

from __future__ import annotations

import math
import statistics
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.load.arrivals import moments
from harness.measure.arrivals import ARRIVALS, Poisson, arrival_of, parse_arrival
from harness.measure.offered import expected_arrivals
from harness.measure.run_folder import Level

COUNT = 20_000


def gaps(text: str, rate: float, seed: int = 7) -> list[float]:
    rising = [0.0, *islice(moments(arrival_of(text), rate, seed), COUNT)]
    return [later - earlier for earlier, later in pairwise(rising)]


@pytest.mark.parametrize(
    ("text", "variation"),
    [("poisson", 1.0), ("gamma:1", 1.0), ("gamma:0.25", 2.0), ("gamma:4", 0.5)],
)
def test_gaps_have_the_mean_and_the_spread_of_their_process(text: str, variation: float) -> None:
    """Mean 1/rate and coefficient of variation 1/sqrt(shape), within five standard errors."""
    found = gaps(text, 8.0)
    mean = statistics.fmean(found)
    assert mean == pytest.approx(1 / 8, abs=5 * variation / 8 / math.sqrt(COUNT))
    assert statistics.pstdev(found) / mean == pytest.approx(variation, rel=0.1)


def test_poisson_gaps_are_exponential_and_not_clipped() -> None:
    """The share of gaps beyond t means is exp(-t), far into the tail, and neighbours are uncorrelated."""
    found = gaps("poisson", 2.0)
    for means in (1, 3, 6):
        share = sum(gap > means / 2.0 for gap in found) / COUNT
        assert share == pytest.approx(math.exp(-means), abs=5 * math.sqrt(math.exp(-means) / COUNT))
    assert abs(statistics.correlation(found[:-1], found[1:])) < 5 / math.sqrt(COUNT)


def test_no_pattern_at_whole_seconds() -> None:
    """The fractions of a second in which Poisson arrivals fall are uniform."""
    tenths = [0] * 10
    for moment in islice(moments(Poisson(), 5.0, 3), COUNT):
        tenths[int(moment % 1 * 10)] += 1
    chi_square = sum((count - COUNT / 10) ** 2 / (COUNT / 10) for count in tenths)
    assert chi_square < 33.7  # 99.99 % of a chi-square with 9 degrees of freedom


def test_constant_gaps_are_equal_and_do_not_drift() -> None:
    """The thousandth arrival at 3 per second is due exactly where arithmetic puts it."""
    found = list(islice(moments(arrival_of("constant"), 3.0, 1), 1000))
    assert found[0] == pytest.approx(1 / 6)
    assert found[-1] == pytest.approx(999.5 / 3, abs=1e-9)


def test_ramp_rises_in_a_straight_line() -> None:
    """From 2 to 10 per second over 1,000 s: each quarter holds as many arrivals as the line says."""
    found = list(moments(arrival_of("ramp:10:1000"), 2.0, 5, duration=1000))
    for quarter in range(4):
        expected = 250 * (2 + 8 * (quarter + 0.5) / 4)
        count = sum(250 * quarter <= moment < 250 * (quarter + 1) for moment in found)
        assert count == pytest.approx(expected, abs=5 * math.sqrt(expected))


def test_steps_hold_each_rate_for_as_long_and_the_last_one_on() -> None:
    """Five per second, then fifty, then twenty, which stays; gaps within a step are those of a Poisson process."""
    found = list(moments(arrival_of("steps:400:50:20"), 5.0, 11, duration=1600))
    for step, rate in enumerate([5, 50, 20, 20]):
        count = sum(400 * step <= moment < 400 * (step + 1) for moment in found)
        assert count == pytest.approx(400 * rate, abs=5 * math.sqrt(400 * rate))
    middle = [later - earlier for earlier, later in pairwise(found) if earlier >= 400 and later < 800]
    assert statistics.pstdev(middle) / statistics.fmean(middle) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("text", ["poisson", "constant", "gamma:2", "ramp:30:20", "ramp:1:50", "steps:15:40:2:9"])
def test_as_many_come_as_are_expected(text: str) -> None:
    """The verdict on the rate that was sent rests on it, in whatever part of a level its window lies."""
    level = Level(0, rate=8.0, arrival=arrival_of(text))
    for start, end in ((0.0, 10.0), (12.0, 33.0), (25.0, 80.0)):
        expected = expected_arrivals(level, start, end)
        counts = [
            sum(start <= moment < end for moment in moments(arrival_of(text), 8.0, seed, duration=end))
            for seed in range(30)
        ]
        assert statistics.fmean(counts) == pytest.approx(expected, abs=1.0 + 5 * math.sqrt(expected / 30))


@given(
    st.sampled_from(["poisson", "constant", "gamma:0.5", "ramp:30:2", "steps:1:9:3"]),
    st.floats(0.1, 500),
    st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_moments_rise_within_the_duration_and_repeat_with_the_seed(text: str, rate: float, seed: int) -> None:
    """Whatever the process: rising, inside the duration, at most so many, and the same again."""
    process = arrival_of(text)
    first = list(moments(process, rate, seed, duration=3.0, requests=200))
    assert first == list(moments(process, rate, seed, duration=3.0, requests=200))
    assert all(earlier <= later for earlier, later in pairwise(first))
    assert all(0 <= moment < 3 for moment in first)
    assert len(first) <= 200


@pytest.mark.parametrize(
    "text", ["uniform", "gamma", "gamma:0", "gamma:x", "poisson:2", "ramp:5", "steps:3", "gamma:1:2", ""]
)
def test_unknown_processes_are_refused_with_the_known_forms(text: str) -> None:
    """What is no arrival process ends as wrong usage and says what would be one."""
    with pytest.raises(UsageError, match="--arrival"):
        parse_arrival(text)


def test_every_listed_process_can_be_made() -> None:
    """Each entry of ARRIVALS is made from its own form."""
    for form, _ in ARRIVALS.values():
        text = form.replace("SHAPE", "2").replace("TO_RATE", "9").replace("SECONDS", "5").replace("RATE:...", "3:4")
        assert next(iter(moments(parse_arrival(text), 1.0, 0))) > 0
