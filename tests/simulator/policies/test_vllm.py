"""vLLM's law: shared steps, blocks, preemption of the last, prefix cache; no block is ever lost."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.simulator.policies import PoolRequest, PoolScheduler, VllmScheduler, VllmSettings
from tests.simulator.policies.playing import Ask, all_answered, asks, play


def conserved(scheduler: PoolScheduler) -> None:
    """Every block is free or held, and held as often as requests hold it; what is free holds nobody's tokens."""
    assert isinstance(scheduler, VllmScheduler)
    pool = scheduler.pool
    held = Counter(block for chain in scheduler._chains.values() for block in chain.held)
    assert {block: count for block, count in enumerate(pool._holders) if count} == dict(held)
    assert set(pool._free).isdisjoint(held)
    assert len(pool._free) + len(held) == pool.usable
    assert 0 not in held
    assert set(scheduler._chains) == set(scheduler.batch)
    for request, chain in scheduler._chains.items():
        assert len(chain.held) * pool.size >= request.computed


@st.composite
def engines(draw: st.DrawFn) -> VllmSettings:
    size = draw(st.sampled_from([1, 4, 16]))
    return VllmSettings(
        blocks=-(-70 // size) + 1 + draw(st.integers(0, 10)),
        max_num_batched_tokens=draw(st.integers(8, 90)),
        max_num_seqs=draw(st.integers(1, 8)),
        block_size=size,
        prefix_caching=draw(st.booleans()),
        watermark=draw(st.sampled_from([0.0, 0.1])),
        reserve_full=draw(st.booleans()),
        long_prefill_token_threshold=draw(st.sampled_from([0, 5])),
    )


@given(engines(), asks())
@settings(max_examples=300, deadline=None)
def test_every_answer_comes_and_no_block_is_lost(engine: VllmSettings, wanted: list[Ask]) -> None:
    """Whatever arrives, leaves and is preempted: all are answered in full, and in the end every block is free."""
    scheduler = VllmScheduler(engine)
    played = play(scheduler, wanted, conserved)
    all_answered(played, wanted)
    assert not played.failed
    assert scheduler.pool.free == scheduler.pool.usable


@given(st.integers(1, 6), st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_below_the_bound_nobody_is_preempted(rows: int, prompt: int, new: int, spare: int) -> None:
    """Where every request has room for its whole length, none goes back to the queue; one block less, and one does.

    The last token of an answer is never written, so that prompt + answer - 1 tokens are the most it holds.
    """
    each = -(-(prompt + new - 1) // 4)
    wanted = [Ask(0, [100 * number + 1] * prompt, new, 999, whole=True) for number in range(rows)]
    enough = VllmSettings(rows * each + 1 + spare, 10_000, 64, block_size=4, prefix_caching=False)
    assert play(VllmScheduler(enough), wanted).put_back == 0
    first = -(-prompt // 4)
    if each > first and rows > 1:
        less = VllmSettings(rows * each, 10_000, 64, block_size=4, prefix_caching=False)
        assert play(VllmScheduler(less), wanted).put_back > 0


def test_the_last_one_is_preempted_and_computed_again() -> None:
    """Three of 8 + 9 tokens on nine blocks of four: the last gives its blocks up, and comes back first."""
    scheduler = VllmScheduler(VllmSettings(10, 100, 8, block_size=4, prefix_caching=False))
    requests = [PoolRequest(number, [number + 1] * 8, 9) for number in range(3)]
    for request in requests:
        scheduler.enqueue(request, 0.0)
    moved = []
    while (call := scheduler.next_call(0.0)) is not None:
        moved += [(request.id, len(scheduler.queue), request.generated) for request in call.put_back]
        scheduler.complete(call, 0.0)
    # At 12 tokens each, nine blocks are full; the two others grow on into the three of the last.
    assert moved == [(2, 1, 5)]
    assert [request.generated for request in requests] == [9, 9, 9]
    assert scheduler.put_back == 1


def test_a_step_is_shared_by_decodes_and_prompts() -> None:
    """Running requests come first, prompts get what is left of max_num_batched_tokens and are read in pieces."""
    scheduler = VllmScheduler(VllmSettings(200, 10, 8, block_size=4, prefix_caching=False))
    for number, length in enumerate((6, 30)):
        scheduler.enqueue(PoolRequest(number, [number + 1] * length, 20), 0.0)
    steps = []
    for _ in range(5):
        call = scheduler.next_call(0.0)
        assert call is not None
        steps.append([(row.request.id, row.new) for row in call.rows])
        scheduler.complete(call, 0.0)
    assert steps == [[(0, 6), (1, 4)], [(0, 1), (1, 9)], [(0, 1), (1, 9)], [(0, 1), (1, 8)], [(0, 1), (1, 1)]]


@pytest.mark.parametrize(("full", "admitted"), [(True, 1), (False, 2)])
def test_a_prompt_joins_only_when_all_of_it_has_room(full: bool, admitted: int) -> None:
    """Without the gate its first chunk is enough, as before 0.21."""
    scheduler = VllmScheduler(VllmSettings(11, 8, 8, block_size=4, prefix_caching=False, reserve_full=full))
    for number in range(2):
        scheduler.enqueue(PoolRequest(number, [number + 1] * 24, 4), 0.0)
    for _ in range(4):
        call = scheduler.next_call(0.0)
        assert call is not None
        scheduler.complete(call, 0.0)
    assert scheduler.running == admitted


def test_nothing_joins_in_a_step_that_preempts() -> None:
    """Else it would take the blocks that were just given up."""
    scheduler = VllmScheduler(VllmSettings(8, 100, 8, block_size=4, prefix_caching=False))
    for number in range(2):
        scheduler.enqueue(PoolRequest(number, [number + 1] * 8, 20), 0.0)
    scheduler.enqueue(PoolRequest(9, [9], 1), 0.0)
    seen = []
    while (call := scheduler.next_call(0.0)) is not None and len(seen) < 8:
        seen.append((sorted(str(row.request.id) for row in call.rows), [each.id for each in call.put_back]))
        scheduler.complete(call, 0.0)
    preempting = next(index for index, (_, moved) in enumerate(seen) if moved)
    assert seen[preempting] == (["0"], [1])


def test_prompts_and_answers_are_found_again() -> None:
    """Whole blocks of both; of a prompt that is all cached the last token is computed again."""
    scheduler = VllmScheduler(VllmSettings(100, 100, 8, block_size=4), spoken=lambda request, index: 50 + index)
    first = PoolRequest(0, [1, 2, 3, 4, 5, 6, 7, 8], 9)
    for request in (first, PoolRequest(1, [1, 2, 3, 4, 5, 6, 7, 8], 1), PoolRequest(2, first.ids(), 1)):
        if request.id == 2:
            request.tokens = [*first.tokens, *first.said]
            request.input_length = len(request.tokens)
        scheduler.enqueue(request, 0.0)
        while (call := scheduler.next_call(0.0)) is not None:
            scheduler.complete(call, 0.0)
        found = {0: 0, 1: 4, 2: 16}[int(request.id)]
        assert request.cached_tokens == found
    assert (scheduler.queried, scheduler.found) == (8 + 8 + 17, 20)


def test_cached_blocks_go_before_running_requests_do() -> None:
    """What nobody holds is handed out again, the longest free first, without a preemption."""
    scheduler = VllmScheduler(VllmSettings(9, 100, 8, block_size=4))
    for number in range(4):
        scheduler.enqueue(PoolRequest(number, [10 * number + i for i in range(12)], 2), 0.0)
        while (call := scheduler.next_call(0.0)) is not None:
            scheduler.complete(call, 0.0)
    assert scheduler.put_back == 0
    assert scheduler.pool.free == 8
    again = PoolRequest(9, [30 + i for i in range(12)], 1)
    lost = PoolRequest(10, list(range(12)), 1)
    for request, found in ((again, 8), (lost, 0)):
        scheduler.enqueue(request, 0.0)
        call = scheduler.next_call(0.0)
        assert call is not None
        scheduler.complete(call, 0.0)
        assert request.cached_tokens == found
