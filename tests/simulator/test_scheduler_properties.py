"""What holds for any load: budgets, order, no starvation, no lost blocks, the same run for the same seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.simulator.kv_cache import RadixAllocator
from harness.simulator.request import EngineRequest
from harness.simulator.scheduler import EngineCall, EngineSettings, Scheduler

TOTAL = 120


@dataclass
class Ask:
    """Arrival (counted in calls), prompt, bound of the answer, true length, and the call at which the client goes."""

    at: int
    prompt: list[int]
    new: int
    stops: int
    leaves: int | None
    cacheable: bool


asks = st.lists(
    st.builds(
        Ask,
        at=st.integers(0, 20),
        prompt=st.lists(st.integers(1, 3), min_size=1, max_size=40),
        new=st.integers(1, 30),
        stops=st.integers(1, 40),
        leaves=st.none() | st.integers(0, 40),
        cacheable=st.booleans(),
    ),
    min_size=1,
    max_size=14,
)


@st.composite
def engines(draw: st.DrawFn) -> EngineSettings:
    chunking = draw(st.booleans())
    padded = not chunking and draw(st.booleans())
    return EngineSettings(
        max_batch_prefill_tokens=draw(st.integers(8 if chunking else 40, 90)),
        max_batch_total_tokens=TOTAL,
        block_size=1 if padded else draw(st.sampled_from([1, 4])),
        chunking=chunking,
        prefix_cache=not padded and draw(st.booleans()),
        padded=padded,
        speculate=0 if chunking or padded else draw(st.integers(0, 2)),
        waiting_served_ratio=draw(st.sampled_from([0.3, 1.2])),
        max_waiting_tokens=draw(st.integers(1, 6)),
        max_batch_size=draw(st.none() | st.integers(1, 4)),
        faithful_put_back=draw(st.booleans()),
        faithful_pin_deadlock=False,
    )


@dataclass
class Played:
    """Everything that came out of one run."""

    scheduler: Scheduler
    requests: list[EngineRequest]
    calls: list[str] = field(default_factory=list)
    taken: list[EngineRequest] = field(default_factory=list)
    finished: dict[int | str, str] = field(default_factory=dict)
    onboarded: bool = False


def check_call(played: Played, call: EngineCall) -> None:
    """Budgets of one call, and the place of every block during it."""
    rules, members = played.scheduler.settings, list(call.members)
    if rules.padded:
        assert len(members) * max(each.input_length for each in members) <= TOTAL or call.kind == "decode"
    else:
        budget = -(-rules.max_batch_prefill_tokens // rules.block_size) * rules.block_size
        assert sum(part.new for part in call.prompts) + len(members) - len(call.prompts) <= budget + len(members)
    if not rules.chunking and rules.max_batch_size is not None:
        assert played.scheduler.running <= rules.max_batch_size
    assert all(part.new > 0 for part in call.prompts)
    check_shape(played.scheduler, call, after_onboarding=played.onboarded)
    played.onboarded = call.concat_reason is not None


def check_shape(scheduler: Scheduler, call: EngineCall, *, after_onboarding: bool) -> None:
    """What the cost model and the gauges are told is what the rows add up to; gauges are not set at a joining."""
    reading = {part.request for part in call.prompts}
    rows = [each for each in call.members if each not in reading]
    if not scheduler.settings.padded:
        wide = 1 + scheduler.settings.speculate
        assert call.step.rows == wide * len(rows)
        assert call.step.context == wide * sum(each.input_length + each.generated for each in rows)
        if call.kind == "decode" and not after_onboarding:
            reserved = sum(len(each.blocks) for each in call.members) * scheduler.settings.block_size
            assert (scheduler.batch_size, scheduler.batch_max_tokens) == (len(call.members), reserved)


def check_blocks(scheduler: Scheduler) -> None:
    """Every block but the reserved one is free, cached, or held by one running request."""
    allocator = scheduler.allocator
    if allocator is None:
        return
    count = Counter(allocator.free_list())
    for request in scheduler.members():
        assert request.allocation is not None
        count.update(request.blocks[request.allocation.cached_tokens // scheduler.settings.block_size :])
    if isinstance(allocator, RadixAllocator):
        count.update(allocator.trie.all_blocks())
    assert count == Counter(range(1, TOTAL // scheduler.settings.block_size))


def play(rules: EngineSettings, plan: list[Ask]) -> Played:
    calls: list[str] = []
    scheduler = Scheduler(rules, log=calls.append)
    requests = [EngineRequest(number, each.prompt, each.new, each.cacheable) for number, each in enumerate(plan)]
    played = Played(scheduler, requests, calls)
    waiting = sorted(zip(plan, requests, strict=True), key=lambda pair: pair[0].at)
    for turn in range(5000):
        while waiting and waiting[0][0].at <= turn:
            scheduler.enqueue(waiting.pop(0)[1], float(turn))
        for ask, request in zip(plan, requests, strict=True):
            if ask.leaves is not None and ask.leaves <= turn:
                scheduler.leave(request)
        call = scheduler.next_call(float(turn))
        check_blocks(scheduler)
        if call is None:
            if not waiting:
                return played
            continue
        played.taken += call.picked
        check_call(played, call)
        ended = lambda each: "eos_token" if each.generated >= plan[each.id].stops else None  # noqa: E731
        for emission in scheduler.complete(call, float(turn) + 0.5, ended):
            if emission.finished is not None:
                played.finished[emission.request.id] = emission.finished
        check_blocks(scheduler)
    raise AssertionError("never idle")


def fits(rules: EngineSettings, ask: Ask) -> bool:
    """Alone on the engine this request could run."""
    if rules.padded:
        return len(ask.prompt) <= rules.max_batch_prefill_tokens and len(ask.prompt) + ask.new <= TOTAL
    needed = len(ask.prompt) + ask.new + rules.speculate - 1
    if not rules.chunking and len(ask.prompt) > rules.max_batch_prefill_tokens:
        return False
    return -(-needed // rules.block_size) <= TOTAL // rules.block_size - 1


@settings(max_examples=250, deadline=None)
@given(engines(), asks)
def test_budgets_hold_blocks_are_kept_and_everyone_ends(rules: EngineSettings, plan: list[Ask]) -> None:
    """Any load of requests that fit: each ends by its length, its own end, or its client's leaving; nothing is left."""
    plan = [ask for ask in plan if fits(rules, ask)]
    played = play(rules, plan)
    dropped = {request.id for request in played.scheduler.take_dropped()}
    assert played.scheduler.queue_size == 0
    assert played.scheduler.running == 0
    for ask, request in zip(plan, played.requests, strict=True):
        assert (request.id in played.finished) != (request.id in dropped)
        if request.id in played.finished:
            assert played.finished[request.id] == ("length" if ask.new <= ask.stops else "eos_token")
            assert request.generated == min(ask.new, ask.stops)
        if ask.leaves is None:
            assert request.id in played.finished


@settings(max_examples=150, deadline=None)
@given(engines(), asks)
def test_requests_are_taken_in_the_order_of_their_arrival(rules: EngineSettings, plan: list[Ask]) -> None:
    """First in, first taken; who is put back keeps the place."""
    plan = [ask for ask in plan if fits(rules, ask)]
    played = play(rules, plan)
    order = sorted(range(len(plan)), key=lambda number: plan[number].at)
    taken = [request.id for request in played.taken]
    assert taken == [number for number in order if number in set(taken)]


@settings(max_examples=50, deadline=None)
@given(engines(), asks)
def test_the_same_load_gives_the_same_run(rules: EngineSettings, plan: list[Ask]) -> None:
    """Call for call."""
    plan = [ask for ask in plan if fits(rules, ask)]
    assert play(rules, plan).calls == play(rules, plan).calls


@settings(max_examples=100, deadline=None)
@given(asks, st.integers(8, 60), st.booleans())
def test_a_forward_with_chunks_stays_within_the_prefill_budget(plan: list[Ask], budget: int, cache: bool) -> None:
    """New prompt tokens plus one per running row never exceed it, but by one token per row that must not starve."""
    rules = EngineSettings(budget, 2000, prefix_cache=cache, faithful_put_back=False)
    scheduler = Scheduler(rules)
    for number, each in enumerate(plan):
        scheduler.enqueue(EngineRequest(number, each.prompt, each.new, each.cacheable), 0.0)
    while (call := scheduler.next_call(0.0)) is not None:
        assert call.step.tokens <= max(budget, len(call.members))
        scheduler.complete(call, 0.0)
