"""llama.cpp's slots: how many requests run at once, how much of the KV cache each has, and the options that say so.

`--parallel N` cuts the cache of `--ctx-size` into N equal shares, each padded to 256 tokens (src/llama-context.cpp); a
request that outgrows its share ends by itself, and no other notices. With --kv-unified, and where nobody says
--parallel, all slots draw on one cache; when they fill it together, every running answer ends with an error.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.catalog.limits import Limits
from harness.errors import UsageError

DEFAULT_SLOTS = 4  # of `--parallel auto`, which are unified (tools/server/server.cpp)
GRANULE = 256  # tokens; a slot's share is a multiple of it
SMALLEST_BATCH = 2  # tokens; below it the warm-up run does not start (common/common.cpp, get_sub_batch)


@dataclass(frozen=True)
class Slots:
    """The slots of a running server. each: tokens of one request at most. unified: they draw on one cache.

    pool: tokens of the whole cache that requests can get at once.
    """

    count: int
    each: int
    unified: bool
    pool: int


@dataclass(frozen=True)
class CacheSizes:
    """Options that size the cache; None leaves one to the engine. context: --ctx-size, of all slots. parallel: their
    number. cap: --kv-unified-per-slot, of one request where slots draw on one cache.
    """

    context: int | None = None
    parallel: int | None = None
    cap: int | None = None


def padded(tokens: int) -> int:
    """The share that a slot really gets when it is to hold this many tokens."""
    return -(-tokens // GRANULE) * GRANULE


def sizes_for(
    limits: Limits, *, parallel: int | None = None, unified: bool = False, where: str | None = None
) -> CacheSizes:
    """The options that give each request `max_total_tokens`, `max_batch_size` of them at once, and all together no more
    than `max_batch_total_tokens`; what is not set follows from the others.

    parallel: slots that are asked for elsewhere. unified: the slots are to draw on one cache. Raises UsageError for
    limits that cannot hold together.
    """
    one, pool, count = limits.max_total_tokens, limits.max_batch_total_tokens, limits.max_batch_size or parallel
    if one is None and pool is None:
        return CacheSizes(parallel=limits.max_batch_size)
    if unified:
        context = pool if pool is not None else (count or DEFAULT_SLOTS) * padded(one or 0)
        return CacheSizes(context, limits.max_batch_size, one)
    if one is None:
        return _shared_out(pool or 0, count or DEFAULT_SLOTS, where)
    if count is None:
        count = DEFAULT_SLOTS if pool is None else pool // padded(one)
    if pool is not None and (count < 1 or count * padded(one) > pool):
        raise UsageError(
            f"{max(count, 1)} slots of {padded(one):,} tokens (max_total_tokens, in whole {GRANULE}s) are more than"
            f" max_batch_total_tokens {pool:,}",
            where=where,
            advice="Lower max_batch_size or max_total_tokens, or raise max_batch_total_tokens.",
        )
    return CacheSizes(count * padded(one), count)


def _shared_out(pool: int, count: int, where: str | None) -> CacheSizes:
    """A cache of that size in equal shares; rounded down, because llama.cpp rounds up."""
    share = pool // count // GRANULE * GRANULE
    if share == 0:
        raise UsageError(
            f"max_batch_total_tokens {pool:,} leaves less than {GRANULE} tokens to each of {count} slots",
            where=where,
            advice=f"Set max_batch_size to at most {max(1, pool // GRANULE)}, or raise max_batch_total_tokens.",
        )
    return CacheSizes(count * share, count)


def in_force(
    count: int, each: int, *, unified: bool, asked_context: int | None = None, logged_cache: int | None = None
) -> Slots:
    """The slots that run. count, each: as the server tells them, the latter already cut to what the model was trained
    for. asked_context: --ctx-size, 0 or None for the engine's own choice. logged_cache: the cache by its log.
    """
    if not unified:
        return Slots(count, each, unified, count * each)
    return Slots(count, each, unified, padded(asked_context) if asked_context else logged_cache or each)
