"""Distributions of lengths: their shape, their bounds, and the texts that make them."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.workload.lengths import Bounded, Fixed, Lengths, Listed, Uniform, mean, parse_lengths

GRID = [(step + 0.5) / 20_000 for step in range(20_000)]


def sample(text: str) -> list[int]:
    lengths = parse_lengths(text)
    return [lengths.at(fraction) for fraction in GRID]


@pytest.mark.parametrize(
    ("text", "average", "deviation"),
    [
        ("200", 200, 0),
        # Of the whole numbers from a to b: ((b - a + 1)^2 - 1) / 12.
        ("uniform:100:300", 200, ((201**2 - 1) / 12) ** 0.5),
        ("normal:500:100", 500, 100),
        ("lognormal:500:300", 500, 300),
        ("exponential:200", 200, 200),
        ("list:100,200*3", 175, 43.30),
        ("4k", 4096, 0),
        ("normal:4k:0.5k", 4096, 512),
        ("lognormal:1.5K:1e2", 1536, 100),
    ],
)
def test_mean_and_spread_are_those_that_the_text_names(text: str, average: float, deviation: float) -> None:
    """Over the whole range of fractions, to half a percent; rounding to whole tokens included."""
    lengths = sample(text)
    assert statistics.mean(lengths) == pytest.approx(average, rel=0.005)
    assert statistics.pstdev(lengths) == pytest.approx(deviation, rel=0.01)
    assert mean(parse_lengths(text)) == pytest.approx(average, rel=0.005)


def test_bounds_cut_and_do_not_pile_up() -> None:
    """What lies beyond a bound is spread over what lies within, so the bound is no likelier than its neighbour."""
    lengths = sample("normal:100:50:80:120")
    assert (min(lengths), max(lengths)) == (80, 120)
    assert lengths.count(80) == pytest.approx(lengths.count(81), rel=0.1)
    assert statistics.mean(lengths) == pytest.approx(100, rel=0.005)


def test_a_listed_length_comes_as_often_as_its_weight() -> None:
    """Twice as heavy, twice as often."""
    lengths = sample("list:10,20*2,30")
    assert [lengths.count(tokens) for tokens in (10, 20, 30)] == [5000, 10000, 5000]


numbers = st.integers(1, 10_000)
distributions: st.SearchStrategy[Lengths] = st.one_of(
    st.builds(Fixed, numbers),
    st.builds(lambda low, width: Uniform(low, low + width), numbers, numbers),
    st.builds(
        lambda kind, mean, spread, low, width: Bounded(kind, mean, spread, min(low, mean), mean + width),
        st.sampled_from(["normal", "lognormal"]),
        numbers,
        st.floats(0.1, 5000),
        numbers,
        numbers,
    ),
    st.builds(lambda mean, high: Bounded("exponential", mean, mean, 1, mean + high), numbers, numbers),
    st.builds(lambda pairs: Listed(*zip(*pairs, strict=True)), st.lists(st.tuples(numbers, numbers), min_size=1)),
)


@given(distributions)
def test_the_text_of_a_distribution_makes_it_again(lengths: Lengths) -> None:
    """So that a plan can carry it as text."""
    assert parse_lengths(lengths.text()) == lengths
    assert str(lengths) == lengths.text()


@given(distributions, st.floats(0, 1, exclude_min=True, exclude_max=True), st.floats(0, 1))
def test_lengths_rise_with_the_fraction_and_stay_within_bounds(lengths: Lengths, one: float, other: float) -> None:
    """The inverse of a cumulative distribution never falls."""
    low, high = sorted((one, min(max(other, 1e-12), 1 - 1e-12)))
    if not isinstance(lengths, Listed):
        assert lengths.at(low) <= lengths.at(high)
    assert lengths.longest is not None
    assert 1 <= lengths.at(one) <= lengths.longest


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a length"),
        ("many", "not a length"),
        ("0", "expected a whole number of tokens from 1 to 10,000,000, found 0"),
        ("1.5", "expected a whole number of tokens"),
        ("nan", "expected a number such as 200 or 4k, found 'nan'"),
        ("inf", "expected a number such as 200 or 4k, found 'inf'"),
        ("0.3k", "expected a whole number of tokens from 1 to 10,000,000, found 307.2"),
        ("10m", "expected a whole number of tokens"),
        ("4kb", "expected a number such as 200 or 4k"),
        ("4k:4k", "expected uniform, normal"),
        ("uniform:5", "expected a lower bound and a higher one"),
        ("uniform:5:4", "expected a lower bound and a higher one"),
        ("normal:100", "expected a mean and a deviation"),
        ("normal:100:0", "expected a mean and a deviation above zero"),
        ("normal:100:10:50:40", "expected at most a lower bound and a higher one"),
        ("normal:100:1:1000:2000", "expected bounds that leave something of the distribution"),
        ("normal:nan:1", "expected a number such as 200 or 4k, found 'nan'"),
        ("exponential:10:1:2:3", "expected at most a lower bound and a higher one"),
        ("zipf:2", "expected uniform, normal, lognormal, exponential, list or file"),
        ("list:", "not a length"),
        ("list:3,0", "expected a whole number of tokens"),
        ("list:3*0", "expected weights above zero"),
        ("-5", "expected a number such as 200 or 4k"),
    ],
)
def test_a_wrong_text_is_told_what_was_expected(text: str, reason: str) -> None:
    """Exit 2, the text as given, and the forms that there are."""
    with pytest.raises(UsageError) as caught:
        parse_lengths(text)
    assert repr(text) in str(caught.value)
    assert reason in str(caught.value)
    assert "Write 200, 4k, uniform:100:300" in str(caught.value)
