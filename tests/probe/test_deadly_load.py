"""Flash engines that die with so many tokens in flight, wherever their cache ends: the most that survives is what they
die of, less one, whatever the memory fraction is; worked out here from the engine's own figures alone.
"""

from __future__ import annotations

import pytest

from harness.probe.ask import Search
from harness.probe.setting import Goal, Prior, ProbeGoal, Setting
from tests.probe.model_engine import ModelEngine, run

ANSWER = 128
ENGINES = {  # memory, and the tokens in flight that kill
    "a sixth below the cache": (30_000, 25_000),
    "a little below the cache": (30_000, 28_500),
    "half of the cache": (30_000, 15_000),
    "a tenth of the cache": (100_000, 10_000),
    "two thirds of a small cache": (12_000, 8_000),
    "five sixths of a large cache": (120_000, 100_000),
}


def prober(goal: Goal, context: int) -> Search:
    return Search(ProbeGoal(goal=goal, answer_tokens=ANSWER), Prior(context=context))


def proved(search: Search) -> Setting:
    assert search.proved is not None, [str(each.failure) for each in search.evidence.outcomes]
    return search.proved.setting


@pytest.mark.parametrize("at_admission", [False, True])
@pytest.mark.parametrize("goal", ["balanced", "history"])
@pytest.mark.parametrize("name", ENGINES)
def test_history_and_budget_are_within_one_percent_of_what_kills(name: str, goal: Goal, at_admission: bool) -> None:
    """The memory fraction makes the cache end just below what kills, and one chat can have nearly all of it, whether
    memory is taken for what is written or for what is let in: three starts, of which the second finds the boundary.
    """
    memory, deadly = ENGINES[name]
    engine = ModelEngine(memory, load_dies=deadly, at_admission=at_admission)
    search = run(prober(goal, 131_072), engine)
    setting, most = proved(search), deadly - 1
    assert setting.cuda_memory_fraction is not None
    cache = engine.budget(setting.max_batch_prefill_tokens or 0, setting.cuda_memory_fraction) - engine.block_size
    assert 0.99 * most <= cache <= most
    assert 0.99 * most <= (setting.max_total_tokens or 0) <= most
    assert setting.max_total_tokens == (setting.max_input_tokens or 0) + ANSWER
    assert engine.starts == 3


@pytest.mark.parametrize("name", ENGINES)
def test_a_short_context_leaves_the_budget_exact(name: str) -> None:
    """Where the context bounds the history, the cache still ends within one percent of what kills."""
    memory, deadly = ENGINES[name]
    engine = ModelEngine(memory, load_dies=deadly, context=4224)
    setting = proved(run(prober("balanced", 4224), engine))
    fraction = setting.cuda_memory_fraction
    cache = engine.budget(setting.max_batch_prefill_tokens or 0, fraction) - engine.block_size
    assert setting.max_total_tokens == 4224
    assert 0.99 * (deadly - 1) <= cache <= deadly - 1


@pytest.mark.parametrize("goal", ["balanced", "history", "chats"])
@pytest.mark.parametrize("name", ENGINES)
def test_where_less_memory_cannot_be_asked_for_the_number_of_chats_bounds_it(name: str, goal: Goal) -> None:
    """Concurrency limit times length stay below what kills; for a history the one chat has nearly all of it."""
    memory, deadly = ENGINES[name]
    engine = ModelEngine(memory, load_dies=deadly, heeds_fraction=False)
    search = run(prober(goal, 131_072), engine)
    setting = proved(search)
    total, chats = setting.max_total_tokens or 0, setting.max_concurrent_requests or 0
    assert setting.cuda_memory_fraction is None
    assert total * chats < deadly
    if goal != "chats":
        assert total >= 0.99 * (deadly - 1)
    assert search.found is not None
    assert search.found.capacity == total * chats


@pytest.mark.parametrize("at_admission", [False, True])
def test_many_short_chats_do_not_hide_what_kills(at_admission: bool) -> None:
    """With a short context the cache is filled by many chats, some of which have answered when the last are read."""
    engine = ModelEngine(190_000, load_dies=106_500, at_admission=at_admission, context=2048)
    setting = proved(run(prober("history", 2048), engine))
    cache = engine.budget(setting.max_batch_prefill_tokens or 0, setting.cuda_memory_fraction) - engine.block_size
    assert 0.985 * 106_499 <= cache <= 106_499
    assert setting.max_concurrent_requests > 0.5 * cache / (ANSWER + 24)  # type: ignore[operator]
    assert engine.starts <= 4


@pytest.mark.parametrize("goal", ["balanced", "history"])
@pytest.mark.parametrize(("share", "most"), [(0.1, 4), (0.3, 4), (0.5, 5)])
def test_without_chunking_the_fraction_is_told_apart_from_what_prefill_takes(
    goal: Goal, share: float, most: int
) -> None:
    """Every start has another prefill budget and another memory fraction: three tell both, and the next proves."""
    engine = ModelEngine(
        14_000, load_dies=8_500, chunking=False, activation=lambda rows, longest: share * rows * longest
    )
    setting = proved(run(prober(goal, 131_072), engine))
    cache = engine.budget(setting.max_batch_prefill_tokens or 0, setting.cuda_memory_fraction) - engine.block_size
    assert 0.99 * 8_499 <= cache <= 8_499
    assert 0.985 * 8_499 <= (setting.max_total_tokens or 0) <= 8_499
    assert setting.max_total_tokens == (setting.max_input_tokens or 0) + ANSWER
    assert engine.starts <= most


@pytest.mark.parametrize("full", [0.9, 0.97])
def test_the_last_blocks_of_any_cache_are_told_from_a_number_of_tokens(full: float) -> None:
    """A smaller cache that dies when it is full too is no matter of the number: then chats times length stay below."""
    engine = ModelEngine(40_000, full_dies=full)
    setting = proved(run(prober("history", 131_072), engine))
    usable = engine.budget(setting.max_batch_prefill_tokens or 0) - engine.block_size
    assert setting.cuda_memory_fraction is None
    assert 0.985 * full * usable <= (setting.max_total_tokens or 0) * (setting.max_concurrent_requests or 0)
    assert (setting.max_total_tokens or 0) * (setting.max_concurrent_requests or 0) < full * usable
