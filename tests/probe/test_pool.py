"""The search for engines with a pool of KV blocks: asked and told in values, against pools whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines.base import EngineFacts
from harness.probe.card import Card, blocks_of
from harness.probe.pool import PoolSearch
from harness.probe.setting import Failure, LoadResult, Outcome, Prior, ProbeGoal, Setting

NAMES = frozenset({"max_total_tokens", "max_batch_prefill_tokens", "max_batch_size", "cuda_memory_fraction"})


@dataclass(frozen=True)
class Pool:
    """An engine in values. tokens: of its pool at the first start; each start has `shrink` less. context: the model's.

    preempts_beyond: blocks from which on a load makes it put chats back; None for what the pool holds.
    """

    tokens: int
    block: int = 16
    context: int = 8192
    rows: int = 256
    shrink: int = 0
    preempts_beyond: int | None = None
    free: float = 1.0

    def start(self, setting: Setting, number: int) -> EngineFacts | Failure:
        if (setting.cuda_memory_fraction or 0.92) > self.free:
            return Failure("limits", "memory", "Free memory is less than desired", fraction=self.free)
        tokens = self.tokens - self.shrink * (number - 1)
        longest = setting.max_total_tokens or self.context
        if longest > tokens:
            return Failure("limits", "budget", "the estimated maximum model length is ...", limit=tokens)
        return EngineFacts(
            "pool",
            chunking=True,
            budget=tokens // self.block * self.block,
            block_size=self.block,
            prefill_tokens=setting.max_batch_prefill_tokens or 2048,
            max_total_tokens=longest,
            rows=setting.max_batch_size or self.rows,
        )

    def load(self, load: object, facts: EngineFacts) -> str:
        blocks = sum(blocks_of(shape.total, self.block) for shape in load.shapes)  # type: ignore[attr-defined]
        rows = facts.rows or 1
        at_once = max(blocks_of(shape.total, self.block) for shape in load.shapes) * min(rows, len(load.shapes))  # type: ignore[attr-defined]
        most = self.preempts_beyond or (facts.budget or 0) // self.block
        return "preempted" if min(blocks, at_once) > most else "held"


def run(engine: Pool, goal: str = "balanced", names: frozenset[str] = NAMES, **more: object) -> PoolSearch:
    """The whole search."""
    asked = ProbeGoal(goal=goal, answer_tokens=128, **more)  # type: ignore[arg-type]
    search = PoolSearch(asked, Prior(context=engine.context), names, "preempts")
    number = 0
    while (setting := search.ask()) is not None:
        number += 1
        assert number <= 8
        facts = engine.start(setting, number)
        if isinstance(facts, Failure):
            search.tell(Outcome(setting, failure=facts))
            continue
        results: list[LoadResult] = []
        while (load := search.next_load(setting, facts, results)) is not None:
            results.append(LoadResult(load, engine.load(load, facts), itl_p95=0.001, seconds=0.1))  # type: ignore[arg-type]
        search.tell(Outcome(setting, facts, True, None, tuple(results)))
    return search


def test_a_pool_that_holds_the_context_takes_two_starts() -> None:
    """One to learn it, one to prove that as many chats of full length as it holds are never put back."""
    search = run(Pool(tokens=100_000))
    assert search.evidence.starts == 2
    assert search.proved is not None
    found = search.found
    assert found is not None
    assert (found.setting.max_total_tokens, found.bound_by) == (8192, "the model's context")
    assert found.setting.max_batch_size == int(100_000 * 0.995) // 16 // (8191 // 16 + 1)


def test_a_pool_that_is_smaller_than_the_context_bounds_the_history() -> None:
    """The engine names the longest that fits, which the next start asks for; half a percent is left free."""
    search = run(Pool(tokens=5_000, context=32_768))
    found = search.found
    assert found is not None
    assert search.evidence.starts == 3
    assert 5_000 * 0.985 <= (found.setting.max_total_tokens or 0) <= 5_000
    assert found.setting.max_batch_size == 1


def test_more_chats_at_once_for_the_goal_chats() -> None:
    """Shorter ones, then: the number of chats is what the pool holds at the length that is recommended."""
    most = run(Pool(tokens=100_000), "chats").found
    longest = run(Pool(tokens=100_000), "history").found
    assert most is not None
    assert longest is not None
    assert (most.setting.max_batch_size or 0) > 3 * (longest.setting.max_batch_size or 0)
    assert (most.setting.max_total_tokens or 0) < (longest.setting.max_total_tokens or 0)


def test_a_chat_that_was_put_back_is_no_proof() -> None:
    """The engine's own counter speaks against a setting, although every answer came; fewer chats are tried then."""
    search = run(Pool(tokens=100_000, preempts_beyond=5_500))
    found = search.found
    assert search.proved is not None
    assert found is not None
    assert (found.setting.max_batch_size or 0) * 512 <= 5_500


def test_a_neighbour_on_the_card_lowers_the_fraction() -> None:
    """The engine says which share is free, and the recommendation keeps the share that started."""
    found = run(Pool(tokens=50_000, free=0.7)).found
    assert found is not None
    assert found.setting.cuda_memory_fraction == 0.68


def test_memory_that_goes_between_starts_is_taken_into_account() -> None:
    """The smallest pool that was seen bounds what is recommended."""
    search = run(Pool(tokens=20_000, context=32_768, shrink=300))
    found = search.found
    assert found is not None
    assert search.evidence.last is not None
    started = search.evidence.last.started
    assert started is not None
    assert (found.setting.max_total_tokens or 0) <= (started.budget or 0)


@pytest.mark.parametrize("cause", ["argument", "missing"])
def test_what_no_limit_can_help_ends_the_search(cause: str) -> None:
    """A wrong option or a missing driver is not tried again."""
    search = PoolSearch(ProbeGoal(), Prior(), NAMES, "preempts")
    assert search.ask() is not None
    failure = Failure("launch", cause, "no")  # type: ignore[arg-type]
    search.tell(Outcome(Setting(), failure=failure))
    assert search.ask() is None
    assert search.fatal == failure


def test_a_start_that_hangs_is_tried_once_more() -> None:
    """The second time it is the answer."""
    search = PoolSearch(ProbeGoal(), Prior(), NAMES, "preempts")
    for _ in range(2):
        setting = search.ask()
        assert setting is not None
        search.tell(Outcome(setting, failure=Failure("load", "hang", "too slow")))
    assert search.ask() is None
    assert search.fatal is not None


def test_limits_that_the_engine_lacks_are_not_recommended() -> None:
    """Only what it has an option for can be set."""
    found = run(Pool(tokens=100_000), names=frozenset({"max_batch_size"})).found
    assert found is not None
    assert set(found.setting.known()) == {"max_batch_size"}
    assert {flag.name for flag in found.flags} == {"max_batch_size"}


@settings(max_examples=80, deadline=None)
@given(
    tokens=st.integers(600, 2_000_000),
    block=st.sampled_from([1, 16, 32, 256]),
    context=st.sampled_from([512, 4096, 32_768, 131_072]),
    goal=st.sampled_from(["balanced", "history", "chats"]),
)
def test_whatever_is_recommended_fits_the_pool(tokens: int, block: int, context: int, goal: str) -> None:
    """So many chats of the recommended length never need more blocks than there are, and one more would, or the margin
    is what keeps it out.
    """
    if tokens < 3 * block:
        return
    search = run(Pool(tokens, block, context), goal)
    found = search.found
    assert found is not None
    assert search.proved is not None
    blocks = tokens // block
    each = blocks_of(found.setting.max_total_tokens or 1, block)
    chats = found.setting.max_batch_size or 1
    assert chats * each <= blocks
    assert chats == 1 or (chats + 1) * each > blocks * 0.98


def test_the_card_counts_whole_blocks() -> None:
    """The newest token of a chat is not in the cache: 129 tokens are eight blocks of 16, 130 are nine."""
    facts = EngineFacts("pool", budget=1600, block_size=16, max_total_tokens=1000, rows=64)
    card = Card(facts, Setting(), 29)
    assert (card.chats_fit(100), card.chats_fit(101)) == (12, 11)
    assert card.longest_history() == 971
    assert card.chats_fit(972) == 0


def test_a_split_pool_has_no_more_chats_than_shares() -> None:
    """However short they are."""
    facts = EngineFacts("pool", budget=4096, max_total_tokens=1024, rows=4, split=True)
    card = Card(facts, Setting(), 24)
    assert (card.chats_fit(100), card.chats_fit(1000)) == (4, 4)
    assert Card(replace(facts, split=False), Setting(), 24).chats_fit(100) == 33
