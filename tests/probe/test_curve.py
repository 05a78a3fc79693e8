"""The budget over the longest prompt, from few points."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.probe.curve import BudgetCurve


@given(st.integers(10_000, 100_000), st.floats(0.01, 2.0), st.integers(1000, 3000), st.integers(4000, 9000))
def test_two_points_give_a_straight_line_exactly(memory: int, share: float, first: int, second: int) -> None:
    """The longest prompt with its answer just fits the budget at that length."""
    curve = BudgetCurve.through([(each, int(memory - share * each)) for each in (first, second)])
    longest = curve.longest(1, memory, 0.0, 128)
    assert abs(longest + 128 - (memory - share * longest)) <= 4 + 0.002 * memory


def test_a_first_point_from_before_memory_was_lost_is_lowered() -> None:
    """A fall that none of the later points shares is no slope."""
    curve = BudgetCurve.through([(4000, 29_200), (16_000, 23_800), (10_000, 25_000)])
    assert abs(curve.at(4000) - 26_200) < 10


def test_of_one_length_the_smallest_budget_counts() -> None:
    """What differed once will differ again."""
    assert BudgetCurve.through([(4000, 20_000), (4000, 19_000)]).at(4000) == 19_000


@given(st.floats(0.0, 0.3), st.floats(1e-6, 1e-4))
def test_three_points_find_where_attention_scores_bend_it(linear: float, square: float) -> None:
    """Activations that grow with the square of the prompt: the longest history is met from points far apart."""

    def budget(length: int) -> int:
        return int(400_000 - linear * length - square * length**2)

    curve = BudgetCurve.through([(each, budget(each)) for each in (4096, 15_000, 50_000)])
    for length in range(4096, 50_000, 1000):
        assert abs(curve.at(length) - budget(length)) <= 3
