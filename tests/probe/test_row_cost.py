"""What a chat costs by itself is bounded by loads of few and of many, and by nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.engines.base import EngineFacts
from harness.probe.ask import Search
from harness.probe.fills import FillPoint, fill_points
from harness.probe.row_cost import read_at_once, row_cost
from harness.probe.setting import Load, LoadResult, Outcome, Prior, ProbeGoal, Setting, Shape
from tests.probe.cells import budget
from tests.probe.model_engine import ModelEngine, run


def few(longest: int, *, held: int, died: int, rows: int = 4) -> list[FillPoint]:
    return [FillPoint(longest, longest, held, rows, held=held), FillPoint(longest, longest, died, rows, died=died)]


def many(longest: int, rows: int, *, held: int | None = None, died: int | None = None) -> FillPoint:
    return FillPoint(longest, longest, held or died or 0, rows, crowd=True, held=held, died=died)


@given(st.floats(0, 300), st.integers(20, 500), st.floats(0.0, 0.02))
def test_the_cost_lies_within_its_bounds(cost: float, rows: int, step: float) -> None:
    """Whatever a chat costs, brackets of few and of many chats at one length contain it."""
    memory, longest = 200_000, 4000

    def most(count: int) -> float:
        return memory - 0.2 * longest - cost * count

    points = few(longest, held=int(most(4) * (1 - step)), died=int(most(4)) + 1)
    points += [many(longest, rows, held=int(most(rows) * (1 - step))), many(longest, rows, died=int(most(rows)) + 1)]
    found = row_cost(points)
    assert found.least <= cost + 0.1
    assert found.most is not None
    assert cost <= found.most + 0.1
    assert found.most - found.least <= (2 * step * memory + 4) / (rows - 4)


def test_many_that_died_of_their_tokens_cost_nothing() -> None:
    """Few chats died of as much: nothing is left that the number of chats would explain."""
    points = [*few(4000, held=20_000, died=20_100), many(4000, 100, died=20_050)]
    assert row_cost(points).least == 0


def test_what_few_carry_is_told_by_other_lengths() -> None:
    """Many died at a length at which few were not tried: between two others the budget is a straight line."""
    points = [*few(4000, held=29_100, died=29_200), *few(16_000, held=26_700, died=26_800)]
    points += [many(10_000, 100, held=21_800), many(10_000, 100, died=22_000)]
    found = row_cost(points)  # few carry about 27,950 there, so that a chat costs about 60
    assert 50 < found.least < 61
    assert 61 < (found.most or 0) < 72


def test_many_short_prompts_say_nothing_of_a_long_one() -> None:
    """What held while little was read is no bound from above where much is read."""
    weak = FillPoint(30, 4000, 24_000, 50, crowd=True, held=24_000)
    assert row_cost([*few(4000, held=25_000, died=25_100), weak]).most is None


def test_chats_that_are_a_token_too_many_for_one_prefill_are_not_read_at_once() -> None:
    """The last of them is read alone, and what held then says nothing of a whole prefill."""
    assert read_at_once(FillPoint(1500, 9000, 9000, 6, crowd=True, held=9000)) == 9000
    assert read_at_once(FillPoint(1501, 9000, 9006, 6, crowd=True, held=9006)) == 1501


def test_what_many_read_last_is_told_by_all_of_their_prompts() -> None:
    """The last prompt may be shorter than the others that are read with it."""
    last = Load("fill", ((Shape(4000, 1), *[Shape(60, 4)] * 9, Shape(30, 2)),), chats=10, budget=606, leading=1)
    started = EngineFacts("padded", False, None)
    outcome = Outcome(Setting(max_input_tokens=500), started, True, None, (LoadResult(last, "held", carried=570),))
    (point,) = fill_points([(outcome, outcome.loads[0])])
    assert read_at_once(point) == 8 * 60


def test_the_budget_beside_chats_that_cost_something_is_what_many_carried() -> None:
    """84 chats of 45 tokens each, where few chats alone leave a range of a tenth."""
    engine = ModelEngine(
        19_243, "padded", context=4096, row_cost=45.0, activation=lambda rows, top: 0.3276 * rows * top
    )
    search = run(Search(ProbeGoal(answer_tokens=128), Prior(context=4096)), engine)
    assert search.proved is not None
    setting = search.proved.setting
    true = budget(engine, setting.max_input_tokens or 0, setting.max_concurrent_requests or 0)
    assert 0.985 * true < (setting.max_batch_total_tokens or 0) <= true + (setting.max_concurrent_requests or 0)
    assert engine.starts <= 5
