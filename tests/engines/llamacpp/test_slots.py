"""Limits become slots and shares of the cache, by llama.cpp's own rounding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.catalog.limits import Limits
from harness.engines.llamacpp.slots import GRANULE, CacheSizes, Slots, in_force, padded, sizes_for
from harness.errors import UsageError


def limits(one: int | None = None, count: int | None = None, pool: int | None = None) -> Limits:
    return Limits(max_total_tokens=one, max_batch_size=count, max_batch_total_tokens=pool)


@pytest.mark.parametrize(
    ("asked", "sizes"),
    [
        (limits(), CacheSizes()),
        (limits(count=8), CacheSizes(None, 8)),
        (limits(2048), CacheSizes(4 * 2048, 4)),  # llama.cpp's own number of slots, each with its share
        (limits(2000, 3), CacheSizes(3 * 2048, 3)),
        (limits(2048, 3, 10_000), CacheSizes(3 * 2048, 3)),
        (limits(2000, pool=10_000), CacheSizes(4 * 2048, 4)),
        (limits(count=3, pool=4096), CacheSizes(3 * 1280, 3)),  # 4096 would be made 3 * 1536
        (limits(pool=8192), CacheSizes(8192, 4)),
    ],
)
def test_shares_of_their_own(asked: Limits, sizes: CacheSizes) -> None:
    """What is not set follows from what is; nothing set leaves all to llama.cpp."""
    assert sizes_for(asked) == sizes


@pytest.mark.parametrize(
    ("asked", "parallel", "sizes"),
    [
        (limits(1000, 3), None, CacheSizes(3 * 1024, 3, 1000)),
        (limits(1000), None, CacheSizes(4 * 1024, None, 1000)),
        (limits(1000), 8, CacheSizes(8 * 1024, None, 1000)),
        (limits(1000, 8, 4096), None, CacheSizes(4096, 8, 1000)),  # more than fit at once, as a shared cache is meant
        (limits(pool=5000), None, CacheSizes(5000)),
    ],
)
def test_one_cache_for_all(asked: Limits, parallel: int | None, sizes: CacheSizes) -> None:
    """Each slot is held to max_total_tokens by an option of its own, and the cache to what all may have together."""
    assert sizes_for(asked, parallel=parallel, unified=True) == sizes


def test_slots_of_the_entrys_own_arguments_count() -> None:
    """The cache is made for as many as `--parallel` says."""
    assert sizes_for(limits(2048), parallel=6) == CacheSizes(6 * 2048, 6)


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        (limits(2048, 5, 10_000), "max_batch_size"),
        (limits(20_000, pool=10_000), "max_total_tokens"),
        (limits(count=64, pool=10_000), "at most 39"),
    ],
)
def test_limits_that_cannot_hold_together(asked: Limits, advice: str) -> None:
    """The message says which to change."""
    with pytest.raises(UsageError) as refused:
        sizes_for(asked, where="chat")
    assert advice in str(refused.value)
    assert refused.value.where == "chat"


@given(st.integers(1, 200_000), st.integers(1, 256), st.none() | st.integers(1, 10**7))
def test_each_slot_gets_what_was_asked_and_all_no_more_than_allowed(one: int, count: int, pool: int | None) -> None:
    """Whatever is asked for: refused, or so many slots of at least so many tokens, within the pool, in whole shares."""
    try:
        sizes = sizes_for(limits(one, count, pool))
    except UsageError:
        assert pool is not None
        assert count * padded(one) > pool
        return
    assert sizes.parallel == count
    assert sizes.context is not None
    assert sizes.context % (count * GRANULE) == 0
    assert one <= sizes.context // count < one + GRANULE
    assert pool is None or sizes.context <= pool


# Seen of b11549 with a model that was trained for 8,192 tokens: -c, -np, --kv-unified -> what /props and the log told.
@pytest.mark.parametrize(
    ("slots", "context", "pool"),
    [
        ((4, 8192, True), None, 8192),
        ((4, 8192, True), 0, 8192),
        ((4, 8192, True), 32768, 32768),
        ((4, 1024, True), 1000, 1024),
        ((3, 1536, False), 4096, 4608),
        ((2, 8192, False), 32768, 16384),  # half of the cache is beyond what the model was trained for
        ((4, 6912, False), None, 27648),
    ],
)
def test_pool_is_what_requests_can_get_at_once(slots: tuple[int, int, bool], context: int | None, pool: int) -> None:
    """Of split slots their shares; of one cache what was asked for, rounded as llama.cpp does."""
    count, each, unified = slots
    assert in_force(count, each, unified=unified, asked_context=context) == Slots(count, each, unified, pool)


def test_pool_of_one_cache_by_its_log() -> None:
    """Where nothing was asked for, the log knows better than the share of one slot."""
    assert in_force(4, 8192, unified=True, logged_cache=32768).pool == 32768
