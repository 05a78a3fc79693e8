"""What each goal is said to give, held against a search for that goal."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest

from harness.probe.ask import Search
from harness.probe.goals import goals_of
from harness.probe.setting import Goal, Prior, ProbeGoal
from tests.probe.model_engine import ModelEngine, run


def searched(goal: Goal) -> Search:
    engine = ModelEngine(30_000, chunking=False)
    return run(Search(ProbeGoal(goal=goal, answer_tokens=128), Prior(context=131_072, prefill_share=0.2)), engine)


@pytest.mark.parametrize("asked", ["balanced", "history"])
def test_many_chats_are_not_said_to_need_the_prefill_of_a_long_history(asked: Goal) -> None:
    """Without chunked prefill a long history costs budget; the goals of many chats keep their small pieces."""
    search = searched(asked)
    assert search.found is not None
    told = goals_of(search.state, search.found, None, proved=True)
    assert set(told) == set(get_args(Goal))
    for goal in ("chats", "latency"):
        true = searched(goal).found
        assert true is not None
        assert told[goal].max_input_tokens == true.history == 1024
        assert told[goal].chats == pytest.approx(true.setting.max_concurrent_requests, rel=0.02)
        assert told[goal].max_batch_total_tokens == pytest.approx(29_795, rel=0.02)


@pytest.mark.parametrize("asked", ["balanced", "history", "chats"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.55])
def test_no_goal_is_said_to_give_more_than_a_search_for_it_finds(share: float, asked: Goal) -> None:
    """With chunked prefill goals differ in their prefill budget, which was started for one of them only."""

    def found(goal: Goal) -> tuple[Search, int]:
        engine = ModelEngine(14_000, activation=lambda rows, longest: share * rows * longest)
        search = run(Search(ProbeGoal(goal=goal, answer_tokens=128), Prior(context=131_072)), engine)
        assert search.proved is not None
        return search, engine.budget(search.proved.setting.max_batch_prefill_tokens or 0)

    search, _ = found(asked)
    assert search.found is not None
    told = goals_of(search.state, search.found, None, proved=True)
    for goal in get_args(Goal):
        if goal in (asked, "latency"):
            continue
        true, budget = found(goal)
        assert true.found is not None
        assert 0.8 * true.found.history <= told[goal].max_input_tokens <= true.found.history
        assert 0.8 * budget <= (told[goal].max_batch_total_tokens or 0) <= budget


def test_a_budget_is_the_cache_also_where_few_chats_survive() -> None:
    """For the goal that was asked and for those that are estimated alike."""
    engine = ModelEngine(60_000, rows_die=12, context=4096)
    search = run(Search(ProbeGoal(answer_tokens=128), Prior(context=4096)), engine)
    assert search.found is not None
    told = goals_of(search.state, search.found, engine.budget(4096), proved=True)
    assert told["history"].max_batch_total_tokens == engine.budget(4096)


def test_chats_that_wait_beyond_a_batch_are_not_at_once() -> None:
    """Where a batch's size is what protects the engine, as many as it holds, for all goals."""
    engine = ModelEngine(30_000, "padded", padded_rows=True, padded_late=True, context=8192)
    search = run(Search(ProbeGoal(goal="history", answer_tokens=128), Prior(context=8192)), engine)
    assert search.proved is not None
    assert search.found is not None
    setting = search.proved.setting
    told = goals_of(search.state, search.found, None, proved=True)
    assert told["history"].chats == setting.max_batch_size
    assert (setting.max_concurrent_requests or 0) > max(each.chats or 0 for each in told.values())
    assert (told["chats"].chats or 0) > (setting.max_batch_size or 0)


@pytest.mark.parametrize(
    "engine",
    [
        lambda: ModelEngine(30_000, chunking=False),
        lambda: ModelEngine(9_000, "padded", padded_rows=True, padded_late=True),
    ],
)
def test_balanced_is_estimated_from_the_budget_that_the_engine_would_take_by_itself(
    engine: Callable[[], ModelEngine],
) -> None:
    """Not from the small one that other goals begin with, which would leave more to take a tenth of."""

    def found(goal: Goal) -> Search:
        return run(Search(ProbeGoal(goal=goal, answer_tokens=128), Prior(context=131_072)), engine())

    search, true = found("history"), found("balanced").found
    assert search.found is not None
    assert true is not None
    told = goals_of(search.state, search.found, None, proved=True)["balanced"]
    assert told.max_input_tokens == pytest.approx(true.history, rel=0.05)
