"""SGLang's law: prompts first, admission by expectation, retraction, the radix tree; no token is ever lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.simulator.policies import PoolRequest, PoolScheduler, SglangScheduler, SglangSettings
from tests.simulator.policies.playing import Ask, all_answered, asks, play

TOTAL = 120


def conserved(scheduler: PoolScheduler) -> None:
    """Tokens are free, in the tree, or somebody's own; locked are the paths of those who run."""
    assert isinstance(scheduler, SglangScheduler)
    pool = scheduler.pool
    held = list(scheduler._held.values())
    assert pool.free + pool.tree.tokens + sum(each.own for each in held) == pool.tokens
    assert min(pool.free, pool.tree.evictable) >= 0
    paths = set()
    for each in held:
        node = each.node
        while node is not pool.tree.root:
            paths.add(node)
            node = node.parent
    assert pool.tree.locked == sum(len(node.key) for node in paths)
    assert set(scheduler._held) == set(scheduler.batch)
    for request, each in scheduler._held.items():
        assert each.kept + each.own >= request.computed
        assert each.own >= 0


@st.composite
def engines(draw: st.DrawFn) -> SglangSettings:
    return SglangSettings(
        max_total_tokens=TOTAL,
        max_running_requests=draw(st.integers(1, 8)),
        chunked_prefill_size=draw(st.none() | st.integers(4, 50)),
        max_prefill_tokens=draw(st.integers(45, 200)),
        page_size=draw(st.sampled_from([1, 4])),
        radix_cache=draw(st.booleans()),
        schedule_conservativeness=draw(st.sampled_from([0.1, 1.0])),
    )


@given(engines(), asks())
@settings(max_examples=300, deadline=None)
def test_every_answer_comes_and_no_token_is_lost(engine: SglangSettings, wanted: list[Ask]) -> None:
    """Whatever arrives, leaves and is retracted: all are answered in full, and in the end nobody holds anything."""
    scheduler = SglangScheduler(engine)
    played = play(scheduler, wanted, conserved)
    all_answered(played, wanted)
    assert not played.failed
    assert scheduler.pool.available == scheduler.pool.tokens
    assert scheduler.used_tokens == 0


@given(st.integers(1, 8), st.integers(1, 30), st.integers(1, 60))
@settings(max_examples=150, deadline=None)
def test_answers_that_cannot_end_early_are_never_retracted(rows: int, prompt: int, new: int) -> None:
    """Up to 4096 tokens their whole length is reserved, however few fit at once."""
    wanted = [Ask(0, [100 * number + 1] * prompt, new, 1, whole=True) for number in range(rows)]
    assert play(SglangScheduler(SglangSettings(150, 64)), wanted).put_back == 0


def test_answers_that_outgrow_the_expectation_are_retracted() -> None:
    """Those with the fewest tokens, and of these the longest prompts; the ratio then follows what was seen."""
    scheduler = SglangScheduler(SglangSettings(275, 64, schedule_conservativeness=0.1))
    requests = [PoolRequest(number, [number + 1] * length, 100) for number, length in enumerate((10, 30, 20))]
    moved: list[object] = []
    for step in range(400):
        if step < 2:
            for request in requests[:1] if step == 0 else requests[1:]:
                scheduler.enqueue(request, 0.0)
        call = scheduler.next_call(0.0)
        if call is None:
            break
        if call.put_back and not moved:
            # Prompts of 60 tokens, and three answers, whose newest token is not in the pool yet.
            assert 0 <= 275 - (60 + sum(request.generated - 1 for request in requests)) < 3
            said = requests[0].generated + requests[2].generated
            assert scheduler.new_token_ratio == pytest.approx((said + 2 * 20) / 201)
        moved += [request.id for request in call.put_back]
        scheduler.complete(call, 0.0)
    assert moved == [1]
    assert [request.generated for request in requests] == [100, 100, 100]


def test_prompts_go_before_answers() -> None:
    """A prefill is a batch of its own, as long as somebody waits who may join; then all decode together."""
    scheduler = SglangScheduler(SglangSettings(1000, 64, chunked_prefill_size=10))
    for number, length in enumerate((6, 25)):
        scheduler.enqueue(PoolRequest(number, [number + 1] * length, 5), 0.0)
    steps = []
    for _ in range(6):
        call = scheduler.next_call(0.0)
        assert call is not None
        steps.append((call.kind, [(row.request.id, row.new) for row in call.rows]))
        scheduler.complete(call, 0.0)
    assert steps == [
        ("prefill", [(0, 6), (1, 4)]),
        ("prefill", [(1, 10)]),
        ("prefill", [(1, 10)]),
        ("prefill", [(1, 1)]),
        ("decode", [(0, 1), (1, 1)]),
        ("decode", [(0, 1), (1, 1)]),
    ]


@pytest.mark.parametrize(("pool", "whole", "joins"), [(222, False, True), (222, True, False), (210, False, False)])
def test_running_answers_count_with_the_share_that_is_expected(pool: int, whole: bool, joins: bool) -> None:
    """0.7 of what may be said at first, and all of it where it cannot end early."""
    scheduler = SglangScheduler(SglangSettings(pool, 64))
    for number in range(2):
        scheduler.enqueue(PoolRequest(number, [number + 1] * 20, 100, whole=whole), 0.0)
        call = scheduler.next_call(0.0)
        assert call is not None
        scheduler.complete(call, 0.0)
    # The second needs 20 + 100 + 1 tokens beside the 20 of the first and 99 x 0.7 (or 99) that it may say yet.
    assert (scheduler.running == 2) == joins


def test_who_finds_no_room_is_looked_at_again_when_somebody_leaves() -> None:
    """The batch counts as full until then."""
    scheduler = SglangScheduler(SglangSettings(230, 64))
    first, second = (PoolRequest(number, [number + 1] * 20, 100) for number in range(2))
    for request in (first, second):
        scheduler.enqueue(request, 0.0)
    while second.taken_at is None:
        call = scheduler.next_call(float(first.generated))
        assert call is not None
        scheduler.complete(call, 0.0)
    assert (first.generated, second.taken_at) == (100, 100.0)


def test_a_full_queue_refuses() -> None:
    """503, and who was retracted is refused like everybody."""
    scheduler = SglangScheduler(SglangSettings(100, 1, max_queued_requests=1))
    for number in range(3):
        scheduler.enqueue(PoolRequest(number, [number + 1] * 5, 5), 0.0)
    assert [(each.request.id, each.text, each.status) for each in scheduler.take_failed()] == [
        (1, "The request queue is full.", 503),
        (2, "The request queue is full.", 503),
    ]


def test_the_last_one_that_outgrows_the_pool_is_aborted() -> None:
    """Nobody is left to retract: 500."""
    scheduler = SglangScheduler(SglangSettings(40, 4))
    request = PoolRequest(0, [1] * 10, 20)
    scheduler.enqueue(request, 0.0)
    call = scheduler.next_call(0.0)
    assert call is not None
    scheduler.complete(call, 0.0)
    request.max_new_tokens = 100
    while (call := scheduler.next_call(0.0)) is not None:
        scheduler.complete(call, 0.0)
    (failed,) = scheduler.take_failed()
    assert (failed.request, failed.status) == (request, 500)
    assert failed.text.startswith("Out of memory even after retracting all other requests")
    assert request.generated == 31
    conserved(scheduler)


def test_prompts_are_shared_while_they_are_in_use_and_answers_after() -> None:
    """The second finds the first's prompt at once; a third finds its answer too, but never all of its own prompt."""
    scheduler = SglangScheduler(SglangSettings(1000, 64), spoken=lambda request, index: 50 + index)
    prompt = [1, 2, 3, 4, 5, 6, 7, 8]
    first = PoolRequest(0, prompt, 9)
    scheduler.enqueue(first, 0.0)
    call = scheduler.next_call(0.0)
    assert call is not None
    scheduler.complete(call, 0.0)
    second = PoolRequest(1, prompt, 2)
    scheduler.enqueue(second, 0.0)
    while (call := scheduler.next_call(0.0)) is not None:
        scheduler.complete(call, 0.0)
    third = PoolRequest(2, [*prompt, *first.said], 1)
    scheduler.enqueue(third, 0.0)
    assert scheduler.next_call(0.0) is not None
    assert (second.cached_tokens, third.cached_tokens) == (7, 16)
