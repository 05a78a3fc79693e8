"""What each goal is said to give, held against a search for that goal."""

from __future__ import annotations

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
