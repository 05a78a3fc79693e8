"""llama.cpp's law: slots, one prompt after the other, a shared pool that ends every answer when it is full."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.simulator.policies import LlamaScheduler, LlamaSettings, PoolRequest, PoolScheduler
from tests.simulator.policies.playing import Ask, all_answered, asks, play

FULL = "Context size has been exceeded."


def within(scheduler: PoolScheduler) -> None:
    """A request has one slot, and all slots together never hold more than the pool."""
    assert isinstance(scheduler, LlamaScheduler)
    assert [slot.request for slot in scheduler.slots if slot.request] == sorted(
        scheduler.batch,
        key=lambda request: scheduler.slots.index(scheduler.slot_of(request)),  # type: ignore[arg-type]
    )
    assert scheduler.used_tokens <= scheduler.settings.pool


@given(asks(), st.integers(1, 5), st.integers(4, 60), st.booleans())
@settings(max_examples=200, deadline=None)
def test_slots_with_shares_never_fail(wanted: list[Ask], slots: int, batch: int, cache: bool) -> None:
    """Everybody gets an answer, in turn; nothing is ever put back."""
    engine = LlamaSettings(slots, 80, 80 * slots, False, batch + slots, prompt_cache=cache, kept_tokens=100)
    scheduler = LlamaScheduler(engine)
    played = play(scheduler, wanted, within)
    all_answered(played, wanted)
    assert not played.failed
    assert (played.put_back, scheduler.used_tokens, scheduler.running) == (0, 0, 0)


@given(asks(), st.integers(2, 5))
@settings(max_examples=200, deadline=None)
def test_a_shared_pool_ends_answers_and_goes_on(wanted: list[Ask], slots: int) -> None:
    """Who fails fails with the one text; all others are answered in full, and the pool is empty in the end."""
    scheduler = LlamaScheduler(LlamaSettings(slots, 90, 90, True, 64))
    played = play(scheduler, wanted, within)
    all_answered(played, wanted)
    assert set(played.failed.values()) <= {FULL}
    assert scheduler.used_tokens == 0


def test_a_full_pool_ends_every_running_answer_in_the_same_step() -> None:
    """Four of 320 + 193 tokens fill 2048 cells, the newest token of each not yet in the cache (as seen)."""
    scheduler = LlamaScheduler(LlamaSettings(4, 2048, 2048, True))
    requests = [PoolRequest(number, [number + 1] * 320, 800) for number in range(4)]
    later = PoolRequest(9, [9] * 5, 3)
    for request in (*requests, later):
        scheduler.enqueue(request, 0.0)
    failed = []
    while (call := scheduler.next_call(0.0)) is not None:
        failed += scheduler.take_failed()
        scheduler.complete(call, 0.0)
    assert [(each.request, each.text, each.status) for each in failed] == [(each, FULL, 500) for each in requests]
    assert [request.generated for request in requests] == [193] * 4
    assert later.generated == 3


def test_prompts_alone_can_fill_the_pool() -> None:
    """Nobody is kept out by memory: three prompts of 820 start on 2048 cells, and all of them end (as seen)."""
    scheduler = LlamaScheduler(LlamaSettings(4, 2048, 2048, True))
    for number in range(3):
        scheduler.enqueue(PoolRequest(number, [number + 1] * 820, 5), 0.0)
    calls = 0
    while (call := scheduler.next_call(0.0)) is not None:
        calls += 1
        scheduler.complete(call, 0.0)
    assert [each.request.id for each in scheduler.take_failed()] == [0, 1, 2]
    assert calls == 1


def test_prompts_are_read_one_slot_after_the_other() -> None:
    """Decodes ride along; the first prompt is read whole before the next begins."""
    scheduler = LlamaScheduler(LlamaSettings(3, 100, 300, False, batch=10))
    for number, length in enumerate((4, 15, 8)):
        scheduler.enqueue(PoolRequest(number, [number + 1] * length, 9), 0.0)
    steps = []
    for _ in range(4):
        call = scheduler.next_call(0.0)
        assert call is not None
        steps.append([(row.request.id, row.new) for row in call.rows])
        scheduler.complete(call, 0.0)
    assert steps == [
        [(0, 4), (1, 6)],
        [(0, 1), (1, 9)],
        [(0, 1), (1, 1), (2, 8)],
        [(0, 1), (1, 1), (2, 1)],
    ]


def test_who_leaves_while_it_waits_is_noticed_at_its_turn() -> None:
    """It counts as deferred until then; who leaves a slot makes room at once."""
    scheduler = LlamaScheduler(LlamaSettings(1, 100, 100, False))
    first, second, third = (PoolRequest(number, [number + 1] * 5, 50) for number in range(3))
    for request in (first, second, third):
        scheduler.enqueue(request, 0.0)
    call = scheduler.next_call(0.0)
    assert call is not None
    scheduler.leave(second)
    scheduler.complete(call, 0.0)
    call = scheduler.next_call(0.0)
    assert (scheduler.queue_size, scheduler.take_dropped()) == (2, [])
    assert call is not None
    scheduler.leave(first)
    scheduler.complete(call, 0.0)
    call = scheduler.next_call(0.0)
    assert call is not None
    assert [row.request.id for row in call.rows] == [2]
    assert {request.id for request in scheduler.take_dropped()} == {0, 1}


def test_what_a_slot_has_left_is_not_computed_again() -> None:
    """A prompt goes to the slot that has most of it; one token is always computed; the host keeps the rest."""
    scheduler = LlamaScheduler(LlamaSettings(2, 100, 200, False, kept_tokens=1000))

    def ask(number: int, prompt: list[int], cacheable: bool = True) -> tuple[int, int]:
        request = PoolRequest(number, prompt, 1, cacheable=cacheable)
        scheduler.enqueue(request, 0.0)
        call = scheduler.next_call(0.0)
        assert call is not None
        slot = scheduler.slot_of(request)
        assert slot is not None
        scheduler.complete(call, 0.0)
        return slot.id, request.cached_tokens

    one, other = list(range(20)), list(range(100, 120))
    assert ask(0, one) == (0, 0)
    assert ask(1, other) == (1, 0)
    assert ask(2, one) == (0, 19)
    assert ask(3, [*one[:10], *range(50, 60)]) == (0, 10)
    assert ask(4, one, cacheable=False)[1] == 0
    for number in range(5, 10):
        ask(number, list(range(1000 * number, 1000 * number + 20)))
    assert ask(11, other)[1] == 19
