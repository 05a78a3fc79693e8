"""The call sequences of TGI's own router (3.3.7, before a stub shard) come out of the scheduler as recorded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from harness.simulator.continuation import LengthLimits, first_chunk, next_chunk
from harness.simulator.request import EngineRequest
from harness.simulator.scheduler import Emission, EngineCall, EngineSettings, Scheduler

BOS = 1


def prompt(owner: int, length: int) -> list[int]:
    """A prompt that shares only its first token with those of other owners."""
    return [BOS] + [1000 + owner] * (length - 1)


def ask(id: int, length: int, new: int, **more: object) -> EngineRequest:
    return EngineRequest(id, prompt(id, length), new, **more)  # type: ignore[arg-type]


@dataclass
class Player:
    """Plays one engine: every call takes one second; arrivals wait for a moment or for a request's n-th token."""

    settings: EngineSettings
    calls: list[str] = field(default_factory=list)
    emissions: list[Emission] = field(default_factory=list)
    lookups: list[tuple[int, int]] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(
            self.settings, log=self.calls.append, on_lookup=lambda *pair: self.lookups.append(pair)
        )

    def arrive(self, *requests: EngineRequest) -> None:
        for request in requests:
            self.scheduler.enqueue(request, self.now)

    def step(self) -> EngineCall | None:
        call = self.scheduler.next_call(self.now)
        if call is not None:
            self.now += 1.0
            self.emissions += self.scheduler.complete(call, self.now)
        return call

    def until_idle(self, limit: int = 20_000) -> None:
        for _ in range(limit):
            if self.step() is None:
                return
        raise AssertionError("still busy")

    def until_token(self, request: EngineRequest, count: int) -> None:
        while request.generated < count:
            assert self.step() is not None

    def arrive_during(self, *requests: EngineRequest) -> None:
        """The next call starts, then these arrive, then it completes."""
        call = self.scheduler.next_call(self.now)
        assert call is not None
        self.arrive(*requests)
        self.now += 1.0
        self.emissions += self.scheduler.complete(call, self.now)

    def heard(self) -> list[str]:
        return squeeze(self.calls)


def squeeze(calls: Iterable[str]) -> list[str]:
    """`D 0`, `D 0` -> `D 0 x2`."""
    out: list[tuple[str, int]] = []
    for call in calls:
        out = [*out[:-1], (call, out[-1][1] + 1)] if out and out[-1][0] == call else [*out, (call, 1)]
    return [f"{call} x{count}" if count > 1 else call for call, count in out]


FLASH = EngineSettings(max_batch_prefill_tokens=512, max_batch_total_tokens=4000)


def test_newcomers_join_in_a_mixed_forward_with_one_decode_between() -> None:
    """A new request waits for the running forward, joins in a mixed one, and a pure decode follows before the next."""
    player = Player(FLASH)
    zero = ask(0, 22, 12)
    player.arrive(zero)
    player.until_token(zero, 4)
    player.arrive_during(ask(1, 32, 4))
    player.arrive_during(ask(2, 42, 4))
    player.until_idle()
    assert player.heard() == [
        "P new=0(22,0,22)",
        "D 0 x4",
        "P new=1(32,0,32) old=[0] fwd=33",
        "D 0,1",
        "P new=2(42,0,42) old=[0,1] fwd=44",
        "D 0,1,2",
        "F keep [0,2]",
        "D 0,2 x2",
        "F keep [0]",
        "D 0",
    ]


def test_prefill_budget_is_shared_and_a_chunk_goes_on_in_a_decode_call() -> None:
    """128 tokens less one running row: two prompts whole, one token of the third, its rest in a decode call."""
    player = Player(replace(FLASH, max_batch_prefill_tokens=128))
    zero = ask(0, 20, 4)
    player.arrive(zero)
    player.until_token(zero, 2)
    player.arrive_during(*(ask(each, 63, 10) for each in range(1, 6)))
    player.step(), player.step(), player.step()
    assert player.heard()[2:] == [
        "P new=1(63,0,63),2(63,0,63),3(63,0,1) old=[0] fwd=128",
        "F keep [1,2,3]",
        "D 1,2,3[62]",
        "P new=4(63,1,62),5(63,1,62) old=[1,2,3] fwd=127",
    ]


def test_a_newcomer_waits_for_the_last_chunk_of_a_long_prompt() -> None:
    """A prompt of 300 at P 64 runs in four chunks of 64; the newcomer shares the last forward of 44 + 4."""
    player = Player(replace(FLASH, max_batch_prefill_tokens=64))
    player.arrive(ask(0, 300, 3))
    player.arrive_during(ask(1, 4, 3))
    player.until_idle()
    assert player.heard() == [
        "P new=0(300,0,64)",
        "D 0[64] x3",
        "P new=1(4,0,4) old=[0] fwd=48",
        "D 0,1 x2",
    ]
    assert player.scheduler.inference_counts == {"prefill": 2, "decode": 5}


NO_CHUNKING = EngineSettings(
    max_batch_prefill_tokens=512, max_batch_total_tokens=4000, chunking=False, waiting_served_ratio=1.2
)


def test_without_chunking_the_waiting_are_served_by_ratio_or_after_twenty_tokens() -> None:
    """Five run and two wait, six would be needed: they are taken when nineteen decodes have passed."""
    player = Player(NO_CHUNKING)
    zero = ask(0, 10, 60)
    player.arrive(zero)
    player.step()
    player.arrive(*(ask(each, 10, 60) for each in range(1, 5)))
    player.step()
    player.arrive(ask(5, 10, 60), ask(6, 10, 60))
    for _ in range(21):
        player.step()
    assert player.heard() == [
        "P new=0(10,0,10)",
        "P new=1(10,0,10),2(10,0,10),3(10,0,10),4(10,0,10)",
        "Dx2 0,1,2,3,4",
        "D 0,1,2,3,4 x18",
        "P new=5(10,0,10),6(10,0,10)",
        "Dx2 0,1,2,3,4,5,6",
    ]
    assert player.scheduler.concat_reasons == {"backpressure": 1, "wait_exceeded": 1}


def test_a_ratio_that_is_reached_serves_at_the_next_round_as_backpressure() -> None:
    """At the default ratio of 0.3 five running ask for one waiting; a floor of 0 has the same label."""
    player = Player(replace(NO_CHUNKING, waiting_served_ratio=0.3))
    player.arrive(*(ask(each, 10, 60) for each in range(5)))
    player.step()
    player.arrive(ask(5, 10, 60), ask(6, 10, 60))
    player.step()
    assert player.heard()[1:] == ["P new=5(10,0,10),6(10,0,10)"]
    assert player.scheduler.concat_reasons == {"backpressure": 1}


def test_max_batch_size_holds_only_without_chunking() -> None:
    """Two rows at most without chunking; with it the same setting bounds only a batch that starts alone."""
    bounded = Player(replace(NO_CHUNKING, max_batch_size=2))
    bounded.arrive(*(ask(each, 10, 5) for each in range(4)))
    bounded.until_idle()
    assert [call for call in bounded.heard() if call.startswith("P")] == [
        "P new=0(10,0,10),1(10,0,10)",
        "P new=2(10,1,9),3(10,1,9)",
    ]
    chunking = Player(replace(FLASH, max_batch_size=2))
    chunking.arrive(*(ask(each, 10, 5) for each in range(4)))
    chunking.step(), chunking.step()
    assert chunking.scheduler.running == 4


def test_padded_rows_count_with_their_padding() -> None:
    """T 300 and 52 + 30 tokens each: three run together, the others when that batch has ended."""
    settings = replace(NO_CHUNKING, padded=True, prefix_cache=False, max_batch_total_tokens=300)
    player = Player(settings)
    player.arrive(*(ask(each, 52, 30) for each in range(5)))
    player.until_idle()
    assert player.heard() == [
        "P new=0(52,0,52),1(52,0,52),2(52,0,52)",
        "D 0,1,2 x29",
        "P new=3(52,0,52),4(52,0,52)",
        "D 3,4 x29",
    ]


def hits(settings: EngineSettings, *requests: EngineRequest) -> list[int]:
    """Cached tokens of each, served one after the other."""
    player = Player(settings)
    for request in requests:
        player.arrive(request)
        player.until_idle()
    return [request.cached_tokens for request in requests]


def test_prefix_cache_hits() -> None:
    """A repeated prompt is cached but for one token, a longer one in full, another by its first token."""
    same = prompt(0, 44)
    longer = [*same, 7, 8, 9]
    served = (EngineRequest(0, same, 3), EngineRequest(1, same, 3), EngineRequest(2, longer, 3), ask(3, 44, 3))
    assert hits(FLASH, *served) == [0, 43, 44, 1]
    assert [len(EngineRequest(0, longer, 3).blocks)] == [0]


def test_requests_with_prefill_details_neither_read_nor_fill_the_cache() -> None:
    """The first two prompts are not found later but for the common first token."""
    detailed = ask(2, 44, 3, cacheable=False)
    served = (ask(0, 10, 3), ask(1, 10, 3), detailed, EngineRequest(3, detailed.tokens, 3))
    assert hits(FLASH, *served) == [0, 1, 0, 1]


def test_only_whole_blocks_are_cached() -> None:
    """With blocks of 256 tokens a prompt of 304 is found by 256, one of 102 not at all; paged caches nothing."""
    flashdecoding = replace(FLASH, block_size=256)
    assert hits(flashdecoding, EngineRequest(0, prompt(0, 304), 3), EngineRequest(1, prompt(0, 304), 3)) == [0, 256]
    assert hits(flashdecoding, EngineRequest(0, prompt(0, 102), 3), EngineRequest(1, prompt(0, 102), 3)) == [0, 0]
    paged = replace(FLASH, block_size=16, prefix_cache=False)
    assert hits(paged, EngineRequest(0, prompt(0, 304), 3), EngineRequest(1, prompt(0, 304), 3)) == [0, 0]


def test_reserved_blocks_do_not_shrink_with_a_hit() -> None:
    """44 + 3 tokens reserve 46 slots whether cached or not."""
    player = Player(FLASH)
    for number in range(2):
        request = EngineRequest(number, prompt(0, 44), 3)
        player.arrive(request)
        player.until_token(request, 1)
        assert len(request.blocks) == 46
        player.until_idle()


def test_a_request_that_needs_the_reserved_block_waits_for_ever() -> None:
    """Two blocks of 256, one of them reserved: 300 + 100 tokens never start, and nobody behind them does."""
    player = Player(replace(FLASH, block_size=256, max_batch_total_tokens=512))
    player.arrive(ask(0, 300, 100), ask(1, 4, 4))
    player.until_idle()
    assert player.calls == []
    assert player.scheduler.queue_size == 2


def test_a_prefix_lookup_pins_what_must_be_evicted() -> None:
    """The second of two long prompts with a common first token never starts, until it leaves and another comes."""
    player = Player(replace(FLASH, max_batch_total_tokens=1000))
    stuck, tiny = ask(1, 500, 20), ask(2, 4, 4)
    player.arrive(ask(0, 500, 20))
    player.until_idle()
    player.calls.clear()
    player.arrive(stuck, tiny)
    player.until_idle()
    assert player.calls == []
    assert (player.scheduler.queue_size, player.scheduler.batch_size) == (2, 0)
    player.scheduler.leave(stuck)
    player.until_idle()
    assert player.calls == []
    player.arrive(ask(3, 4, 4))
    player.until_idle()
    assert player.heard() == ["P new=2(4,1,3),3(4,1,3)", "D 2,3 x3"]
    assert player.scheduler.take_dropped() == [stuck]


def test_the_pinned_prefix_can_be_mended_by_a_switch() -> None:
    """With the fault switched off only the matched part is pinned, and the second prompt runs."""
    player = Player(replace(FLASH, max_batch_total_tokens=1000, faithful_pin_deadlock=False))
    for number in range(2):
        player.arrive(ask(number, 500, 20))
        player.until_idle()
    assert player.heard()[2:] == ["P new=1(500,1,499)", "D 1 x19"]


def test_a_small_request_before_makes_the_common_beginning_a_node_of_its_own() -> None:
    """Then the same pair of long prompts runs without trouble."""
    player = Player(replace(FLASH, max_batch_total_tokens=1000))
    for request in (ask(8, 6, 3), ask(0, 500, 20), ask(1, 500, 20)):
        player.arrive(request)
        player.until_idle()
    assert player.scheduler.queue_size == 0
    assert player.heard()[-2:] == ["P new=1(500,1,499)", "D 1 x19"]


def test_a_blocked_head_holds_up_everyone_behind_it() -> None:
    """T 200: the small third request would fit at once, but waits behind the second until the first has ended."""
    player = Player(replace(FLASH, max_batch_total_tokens=200))
    player.arrive(ask(8, 6, 3))
    player.until_idle()
    player.arrive(ask(9, 6, 3))
    player.until_idle()
    player.calls.clear()
    first = ask(1, 52, 40)
    player.arrive(first)
    player.step()
    player.arrive(ask(2, 62, 100), ask(3, 5, 5))
    player.step()
    assert (player.scheduler.queue_size, player.scheduler.batch_size) == (2, 1)
    assert player.lookups[-1] == (1, 160)
    player.until_idle()
    assert player.heard() == [
        "P new=1(52,1,51)",
        "D 1 x39",
        "P new=2(62,1,61),3(5,1,4)",
        "D 2,3 x4",
        "F keep [2]",
        "D 2 x95",
    ]


def test_a_prompt_put_back_for_want_of_budget_hits_what_was_never_computed() -> None:
    """The third of four prompts finds no budget left, is put back, and then has 49 of its 50 tokens cached."""
    player = fill_the_budget(faithful_put_back=True)
    assert player.heard()[1:] == [
        "P new=1(50,0,50),2(50,0,50) old=[0] fwd=101",
        "D 0,1,2",
        "P new=3(50,49,1),4(50,0,50) old=[0,1,2] fwd=54",
    ]
    mended = fill_the_budget(faithful_put_back=False)
    assert mended.heard()[-1] == "P new=3(50,0,50),4(50,0,48) old=[0,1,2] fwd=101"


def fill_the_budget(*, faithful_put_back: bool) -> Player:
    player = Player(replace(FLASH, max_batch_prefill_tokens=101, faithful_put_back=faithful_put_back))
    player.arrive(ask(0, 20, 30))
    player.arrive_during(*(EngineRequest(each, [each] * 50, 30) for each in range(1, 5)))
    for _ in range(3):
        player.step()
    return player


def test_a_prompt_put_back_without_chunking_hits_too() -> None:
    """P 102 and prompts of 51: the third is over the budget and comes back with 50 tokens cached."""
    player = Player(replace(NO_CHUNKING, max_batch_prefill_tokens=102))
    player.arrive(*(ask(each, 51, 4) for each in range(1, 4)))
    player.until_idle()
    assert player.heard()[0] == "P new=1(51,0,51),2(51,0,51)"
    assert "3(51,50,1)" in " ".join(player.heard())


def test_long_answers_run_in_chunks_that_are_queued_again() -> None:
    """The second chunk is a new request of 13 + 1024 tokens with a hit of 13; 2048 tokens come out of 2000 asked."""
    limits = LengthLimits(max_input_tokens=2048, max_total_tokens=4096)
    player = Player(replace(FLASH, max_batch_prefill_tokens=4096, max_batch_total_tokens=8000))
    answer, chunk = first_chunk(limits, 2000, 13)
    player.arrive(EngineRequest(1, prompt(1, 13), chunk), EngineRequest(2, prompt(2, 20), 1500 - 476 + 100))
    total, number = 0, 1
    while player.step() is not None:
        for emission in player.emissions:
            total += emission.tokens if emission.request.id in (1, 3) else 0
            if emission.request.id == number and emission.finished:
                grown = [*emission.request.tokens, *range(10_000, 11_024)]
                answer, more = next_chunk(answer, emission.finished, 1024, len(grown))
                number = 3
                if more is not None:
                    player.arrive(EngineRequest(3, grown, more))
        player.emissions.clear()
    assert "P new=3(1037,13,1024) old=[2] fwd=1025" in player.heard()
    assert (total, answer.produced) == (2048, 2048)


def test_clients_that_leave_are_noticed_at_their_next_token() -> None:
    """The others are kept by a filter call; a cache is cleared when nobody is left; a queued one is just dropped."""
    player = Player(FLASH)
    one, two = ask(1, 10, 10), ask(2, 10, 10)
    player.arrive(one, two)
    player.until_token(two, 3)
    player.scheduler.leave(one)
    player.step(), player.step()
    queued = ask(3, 10, 10)
    player.scheduler.leave(two)
    player.arrive(queued, ask(4, 10, 2))
    player.scheduler.leave(queued)
    player.until_idle()
    assert player.heard() == [
        "P new=1(10,0,10),2(10,0,10)",
        "D 1,2 x3",
        "F keep [2]",
        "D 2",
        "P new=4(10,1,9) old=[2] fwd=10",
        "F keep [4]",
        "D 4",
    ]
    assert player.scheduler.take_dropped() == [one, queued, two]
    last = ask(5, 10, 10)
    player.arrive(last)
    player.step()
    player.scheduler.leave(last)
    player.until_idle()
    assert player.heard()[-2:] == ["D 5", "C"]


def test_speculation_reserves_and_yields_more_tokens_at_once() -> None:
    """4 + 6 tokens with two speculated reserve eleven slots, and come as one, three and two."""
    player = Player(replace(FLASH, chunking=False, speculate=2))
    request = ask(1, 4, 6)
    player.arrive(request)
    player.step()
    assert len(request.blocks) == 11
    player.until_idle()
    assert [(each.tokens, each.finished) for each in player.emissions] == [(1, None), (3, None), (2, "length")]


def test_a_failed_call_fails_all_its_requests_and_frees_their_blocks() -> None:
    """With chunking the running ones fail too, without it only the newcomers."""
    for settings, failing, left in ((FLASH, [1, 2], 0), (NO_CHUNKING, [2], 1)):
        player = Player(replace(settings, waiting_served_ratio=0.3, prefix_cache=False))
        player.arrive(ask(1, 10, 10))
        player.step()
        player.arrive(ask(2, 10, 10))
        call = player.scheduler.next_call(player.now)
        assert call is not None
        failed = player.scheduler.fail(call, player.now)
        assert [request.id for request in failed] == failing
        assert player.scheduler.running == left
        player.until_idle()
        assert player.scheduler.allocator is not None
        assert player.scheduler.allocator.free_blocks == 3999


def test_an_answer_may_end_before_its_length() -> None:
    """What `ended` says is the reason; the last allowed token is `length` whatever it says."""
    player = Player(FLASH)
    request = ask(1, 10, 3)
    player.arrive(request)
    reasons = []
    while (call := player.scheduler.next_call(player.now)) is not None:
        for emission in player.scheduler.complete(call, 0.0, lambda each: "eos_token" if each.generated > 2 else None):
            reasons.append(emission.finished)
    assert reasons == [None, None, "length"]
    player.arrive(short := ask(2, 10, 30))
    while (call := player.scheduler.next_call(player.now)) is not None:
        player.scheduler.complete(call, 0.0, lambda each: "eos_token" if each.generated > 2 else None)
    assert short.generated == 3
