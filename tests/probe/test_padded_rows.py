"""Where a batch is as long as its longest prompt: the budget beside a prompt, and how many chats of one length fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engines.base import EngineFacts
from harness.probe.ask import Search
from harness.probe.evidence import gather
from harness.probe.fills import padded_steps
from harness.probe.loads import lasting
from harness.probe.padded_rows import lone_chat_died, padded_budgets, rows_at
from harness.probe.setting import Failure, Load, LoadResult, Outcome, Prior, ProbeGoal, Setting
from harness.probe.stairs import on_short_chats
from tests.probe.cells import best_history, most_rows
from tests.probe.model_engine import ModelEngine, run

OPEN, ANSWER = 1_000_000, 128


def sent(engine: ModelEngine, load: Load, longest: int, total: int, purpose: str = "explore") -> Outcome:
    setting = Setting(longest, total, longest, OPEN, 1024, purpose=purpose)  # type: ignore[arg-type]
    facts = EngineFacts("padded", False, OPEN, 1, None, longest, longest, total)
    result = engine.send(load, setting, facts)
    died = Failure("under load", "memory", "out of memory") if result.verdict == "died" else None
    return Outcome(setting, facts, True, died, (result,))


@given(
    rows=st.integers(2, 40),
    share=st.floats(0.0, 0.9),
    at=st.integers(1, 10),
    at_admission=st.booleans(),
    late=st.booleans(),
)
def test_a_death_brackets_what_is_left_beside_the_prompt(
    rows: int, share: float, at: int, at_admission: bool, late: bool
) -> None:
    """Of as many chats as it says, each as long as the longest, with the activations of the one that is read; whether a
    prompt pads the others when it is read or when it joins them.
    """
    lengths = [3000 + 30 * step for step in range(12)]
    true = rows * (lengths[at] - 10)
    engine = ModelEngine(
        0,
        "padded",
        padded_rows=True,
        padded_late=late,
        at_admission=at_admission,
        activation=lambda n, top: share * top,
    )
    engine.memory = int(true + engine.activation(1, lengths[at] - 10))
    outcome = sent(engine, on_short_chats(rows, lengths, 4096, 40), 4000, 4096)
    steps = list(padded_steps(outcome.loads[0]))
    assert not steps[-1].held
    (found,) = padded_budgets(gather([outcome]))
    assert found.length == lengths[at]
    assert found.low <= true < found.high
    assert found.high - found.low <= 33 * rows


@pytest.mark.parametrize("late", [False, True])
def test_a_long_prompt_that_pads_its_batch_is_noticed(late: bool) -> None:
    """By prompts that join short chats, though the one that is read on top of them is short."""
    engine = ModelEngine(20_000, "padded", padded_rows=True, padded_late=late)
    load = on_short_chats(8, [2000, 2300, 2600, 2900, 3200], 4096, 40, 24)
    assert max(size for _, size, _ in load.stairs) < 4_000
    outcome = sent(engine, load, 4000, 4096)
    (found,) = padded_budgets(gather([outcome]))
    assert 0.8 * 20_000 <= found.low < found.high <= 1.1 * 20_000


@given(rows=st.integers(2, 20), more=st.integers(1, 64))
def test_a_pair_is_over_before_the_next_however_often_it_is_sent(rows: int, more: int) -> None:
    """Chats that stay may get more to write where they ended too early, but no prompt of a pair: it would still be in
    the batch with the next pair, and what that died of would be put down to fewer chats.
    """
    load = on_short_chats(rows, [1000, 1100, 1200], 4096, 40)
    again = lasting(load, more, 2048)
    pairs = again.waves[-len(load.stairs) :]
    assert pairs == load.waves[-len(load.stairs) :]
    assert all(shape.max_new_tokens < load.min_tokens_before_next_wave for pair in pairs for shape in pair)
    assert again.tokens == load.tokens + more * load.stays


def test_short_chats_that_have_ended_prove_nothing() -> None:
    """A prompt that was read alone held, which says nothing of a batch."""
    load = on_short_chats(8, [1000, 1100], 4096, 40)
    whole = LoadResult(load, "held", reads=(2000 + 6 * 30, 2200 + 6 * 31))
    assert [step.size for step in padded_steps(whole)] == [8007, 8807]
    assert [step.size for step in padded_steps(replace(whole, reads=(2000 + 6 * 30, 2200)))] == [8007]


def test_what_died_in_a_proof_gets_fewer_chats_or_a_shorter_history() -> None:
    """Though the law would let in as many."""
    engine = ModelEngine(40_000, "padded", padded_rows=True)
    learned = sent(engine, on_short_chats(10, list(range(3500, 4000, 4)), 4096, 40), 4000, 4096)
    rows = rows_at(gather([learned]), 3500, 3628)
    assert rows is not None
    load = Load("rows", ())
    for at_once, fewer in ((rows, rows - 1), (1, 1)):
        died = Setting(3500, 3628, 3500, rows * 3628, 128, max_batch_size=at_once, purpose="verify")
        proof = Outcome(died, learned.started, True, learned.failure, (LoadResult(load, "died"),))
        assert rows_at(gather([learned, proof]), 3500, 3628) == fewer
        assert lone_chat_died(gather([learned, proof])) == (3500 if at_once == 1 else None)


@pytest.mark.parametrize(("memory", "answer"), [(600, 1024), (2000, 4096)])
@pytest.mark.parametrize("square", [0.0, 2e-4])
def test_an_answer_that_leaves_no_room_for_a_prompt_ends_a_search_in_order(
    memory: int, answer: int, square: float
) -> None:
    """Nothing is called proved by a load that was refused."""
    engine = ModelEngine(
        memory,
        "padded",
        padded_rows=True,
        padded_late=True,
        activation=lambda n, top: 0.05 * n * top + square * n * top**2,
        context=4096,
    )
    search = run(Search(ProbeGoal(goal="history", answer_tokens=answer), Prior(context=4096)), engine)
    assert engine.starts <= 8
    assert any(result.verdict == "refused" for result in search.evidence.outcomes[-1].loads)


LAWS = {
    "linear": lambda n, top: 0.3 * n * top,
    "steep": lambda n, top: 0.6 * n * top,
    "with the square": lambda n, top: 0.05 * n * top + 2e-5 * n * top**2,
    "square above all": lambda n, top: 0.2 * n * top + 5e-4 * n * top**2,
}


@pytest.mark.parametrize("goal", ["balanced", "history"])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("memory", [20_000, 90_000])
@pytest.mark.parametrize("late", [False, True])
def test_history_and_chats_are_found_within_one_percent(memory: int, law: str, goal: str, late: bool) -> None:
    """However the activations grow; never more chats than survive."""
    engine = ModelEngine(memory, "padded", padded_rows=True, padded_late=late, activation=LAWS[law], context=131_072)
    search = run(Search(ProbeGoal(goal=goal, answer_tokens=ANSWER), Prior(context=131_072)), engine)  # type: ignore[arg-type]
    assert search.proved is not None
    setting = search.proved.setting
    found = setting.max_input_tokens or 0
    best = best_history(engine, goal, ANSWER)  # type: ignore[arg-type]
    assert 0.99 * best <= found <= 1.01 * best
    rows = most_rows(engine, setting.max_total_tokens or 0, found)
    assert rows - 1 <= setting.most_at_once <= rows
    assert engine.starts <= 7
