"""Loads fill exactly what they say, within the lengths that the setting admits."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines.base import EngineFacts
from harness.probe import loads
from harness.probe.setting import Setting, Shape
from tests.probe.model_engine import ModelEngine


@given(
    prefill=st.integers(256, 4096),
    each=st.integers(1, 6),
    rows=st.integers(2, 300),
    share=st.integers(20, 100),
    equal=st.booleans(),
)
def test_a_crowd_has_all_chats_and_one_whole_prefill_on_top(
    prefill: int, each: int, rows: int, share: int, equal: bool
) -> None:
    """So many chats as asked, the last prefill full, nothing that the limits refuse, and the size met; equal ones where
    each is counted as long as the longest.
    """
    length, longest, total = prefill // each, prefill, prefill + 4
    tops = min(each, rows - 1)
    size = tops * (length + 2) + (rows - tops) * total * share // 100
    load = loads.stacked(size, length, prefill, longest, total, rows=rows, equal=equal)
    assert load.rows == rows
    assert load.shapes[: load.leading] == (Shape(longest, 1),) * (rows > loads.FEW)
    assert [shape.input_tokens for shape in load.shapes[-tops:]] == [length] * tops
    assert load.longest <= longest
    assert all(shape.total <= total for shape in load.shapes)
    assert size * 0.98 - 2 * rows <= load.size <= size
    assert not equal or len(set(load.shapes[load.leading : -tops])) == 1
    longer = loads.stretched(load, 5, total)
    assert all(shape.total <= total for shape in longer.shapes)
    others = rows - 1 - sum(shape.input_tokens - 5 <= 8 for shape in load.shapes[load.leading : -1])
    assert tops > 1 or longer.shapes[-1].max_new_tokens >= load.shapes[-1].max_new_tokens + min(
        5, others, total - load.shapes[-1].total
    )
    assert longer.tokens == load.tokens
    assert longer.name == load.name
    assert tops > 1 or longer.closing == load.closing
    assert all(
        after.max_new_tokens >= before.max_new_tokens for before, after in zip(load.shapes, longer.shapes, strict=True)
    )


@given(rows=st.integers(5, loads.ROWS_CAP), each=st.integers(30, 400), prefill=st.integers(1000, 4096))
@settings(max_examples=20, deadline=None)
def test_the_last_of_many_short_chats_fill_one_prefill(rows: int, each: int, prefill: int) -> None:
    """As many as are let in are beside each other then, and each has hardly a token left to write."""
    engine = ModelEngine(10**9, "padded")
    setting = Setting(prefill, prefill + 128, prefill, 10**9, loads.LET_IN, purpose="explore")
    load = loads.evenly(rows * each, rows, prefill, prefill, prefill + 128, leads=loads.MOST_LEADS)
    started, _ = engine.start(setting)
    assert started is not None
    seen = engine.send(load, setting, started)
    assert (seen.refused, seen.beside, load.rows) == (0, rows, rows)
    assert (seen.carried or 0) >= load.size - 2 * rows
    assert load.size <= rows * each
    gate = max(at for at, shape in enumerate(load.shapes) if load.leads(shape.max_new_tokens))
    last = load.shapes[gate + 1 :]
    assert {shape.max_new_tokens for shape in last} == {2}, "read together"
    widest = max(shape.input_tokens for shape in last)
    assert len(last) * widest <= prefill
    assert len(last) == rows or (len(last) + 1) * max(widest, load.shapes[gate - 1].total) > prefill


@given(
    st.integers(2_000, 200_000),
    st.integers(64, 4096),
    st.integers(24, 400),
    st.integers(1, 300),
    st.sampled_from([1, 16, 256]),
)
def test_a_fill_never_exceeds_its_budget(budget: int, length: int, new: int, most: int, block: int) -> None:
    """Reservations in whole blocks add up to at most the budget, in at most so many chats, and nearly fill it."""
    load = loads.fill(budget, length, new, most=most, slack=1, block=block)
    taken = sum(-(-shape.reserved() // block) * block for shape in load.shapes)
    assert taken <= budget
    assert len(load.shapes) <= most
    assert len(load.shapes) == most or budget - taken <= new + 8 + block


@given(st.integers(600, 30_000), st.integers(1, 100), st.booleans())
def test_a_proof_asks_for_nothing_that_the_setting_refuses(total: int, permits: int, flash: bool) -> None:
    """All prompts and totals are within the limits, and only the overload goes beyond the permits."""
    setting = Setting(total - 128, total, 4096, None if flash else 3 * total, permits)
    started = EngineFacts("flash" if flash else "padded", flash, 3 * total, 1, None, 4096)
    proof = loads.proof(setting, started, started.usable if flash else 3 * total)
    assert [load.kind for load in proof].index("overload") == len(proof) - 1, "its waiting clients leave"
    for load in proof:
        assert len(load.shapes) - load.expected_rejections <= permits or load.kind == "onto"
        for shape in load.shapes:
            assert shape.input_tokens <= total - 128 or shape.input_tokens <= 40
            assert shape.total <= total or shape.total <= 100


@given(st.integers(2, 400), st.sampled_from([1, 16, 256]), st.integers(56, 300), st.floats(0.0005, 0.1))
def test_short_chats_of_a_proof_fit_beside_each_other(permits: int, block: int, each: int, itl: float) -> None:
    """In whole blocks, whatever pace was measured: of chats that cannot all be there the check would never run."""
    usable = permits * max(each, loads.slots(56, block))
    setting = Setting(usable - 128, usable, 4096, None, permits)
    started = EngineFacts("flash", True, usable + block, block, None, 4096)
    rows = loads.proof(setting, started, usable, itl)[0]
    taken = sum(loads.slots(shape.reserved(), block) for shape in rows.shapes)
    assert (rows.kind, rows.rows) == ("rows", permits)
    assert taken <= usable


@given(usable=st.integers(2_000, 100_000), permits=st.integers(2, 1024), share=st.floats(0.2, 1.0))
def test_a_long_prompt_joins_half_a_cache_of_short_chats(usable: int, permits: int, share: float) -> None:
    """What a flash engine's flags admit at the worst: many rows and a long prefill, with hardly a block left."""
    total = int(usable * share)
    setting = Setting(total - 128, total, usable, None, permits)
    started = EngineFacts("flash", True, usable + 1, 1, None, usable)
    joined = [load for load in loads.proof(setting, started, usable) if load.kind == "onto"][-1]
    chats, long = joined.shapes[:-1], joined.shapes[-1]
    assert len(chats) == min(permits - 1, usable // 2 // 63) or permits * 63 > usable // 2
    assert 0.9 * min(total - 128, usable - 64 * len(chats)) <= long.input_tokens <= total - 128
    assert sum(shape.reserved() for shape in joined.shapes) <= usable


@given(st.integers(2, 60), st.integers(32, 30_000), st.integers(8, 3000))
def test_a_grown_batch_is_joined_near_its_end(rows: int, prompt: int, answer: int) -> None:
    """All but one nearly as long as a chat may be when the last prompt is read, and none longer."""
    load = loads.grown(rows, prompt, prompt + answer)
    assert load.rows == rows
    assert all(shape.input_tokens == prompt and shape.total <= prompt + answer for shape in load.shapes)
    begun, whole = load.min_tokens_before_next_wave, min(answer, 1024)
    # The first was read a step before the second, and so on: it has gone on for as many tokens.
    assert begun == 1 or whole - 2 * loads.JOINING < begun + rows <= whole - loads.JOINING


def test_neighbours_differ_but_their_sum_stays() -> None:
    """Equal prompts that fill the prefill budget exactly would get a false cache hit."""
    load = loads.fill(10_000, 1000, 100, most=20, slack=1)
    varied = loads.varied(load)
    assert varied.tokens == load.tokens
    assert len({shape.input_tokens for shape in varied.shapes}) > 3


def test_steps_end_at_the_limit() -> None:
    """Each number of chats is at most twice the one before, so that a death is located well enough."""
    for limit in (1, 2, 7, 54, 1024):
        steps = list(loads.row_steps(limit, fine=16))
        assert steps[-1] == limit
        assert all(after <= 2 * before for before, after in pairwise(steps))
