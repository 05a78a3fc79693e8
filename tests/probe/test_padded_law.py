"""All laws of a padded engine's budget that agree with what was found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.probe.padded_law import Bound, PaddedLaw, corners_of

MEMORY = 60_000
LENGTHS = (700, 4000, 9000)


@given(linear=st.floats(0.0, 0.6), square=st.floats(0.0, 3e-4), near=st.floats(0.0005, 0.02))
def test_what_is_true_lies_between_the_outermost_laws(linear: float, square: float, near: float) -> None:
    """The budget at lengths that were not tried, the longest prompt with its answer, and as long ones for several."""

    def left(length: float) -> float:
        return MEMORY - linear * length - square * length**2

    bounds = [Bound(each, left(each) * (1 - near), left(each) * (1 + near)) for each in LENGTHS]
    law = PaddedLaw(corners_of(tuple(bounds)))
    for length in (100, 2000, 15_000):
        low, high = law.span(length)
        assert low <= left(length) <= high
    for rows, answer in ((1, 0), (1, 512), (3, 128)):
        longest = max(range(1, MEMORY), key=lambda each: (rows * (each + answer) <= left(each), each))
        low, high = law.longest(answer, rows)
        assert int(low) <= longest <= high
        assert left(low) >= rows * (low + answer) - 1
        assert left(high) <= rows * (high + answer) + 1


def test_a_prompt_that_is_too_long_for_the_warm_up_bounds_what_shorter_ones_leave_open() -> None:
    """And one that came up bounds it from below."""
    told = (Bound(700, 49_000, 51_000), Bound(8000, 40_000, 40_100))
    low, high = PaddedLaw(corners_of(told)).longest()
    assert high > 1.3 * low
    middle = int((low * high) ** 0.5)
    assert PaddedLaw(corners_of((*told, Bound(middle, most=middle)))).longest()[1] == pytest.approx(middle, rel=0.002)
    assert PaddedLaw(corners_of((*told, Bound(middle, least=middle)))).longest()[0] == pytest.approx(middle, rel=0.002)


def test_bounds_that_contradict_each_other_still_give_a_law() -> None:
    """Less memory was free in a later start: what is left lies about between."""
    law = PaddedLaw(corners_of((Bound(1000, 50_000, 50_100), Bound(500, most=48_000))))
    low, high = law.span(500)
    assert 48_000 <= low <= high <= 50_000
