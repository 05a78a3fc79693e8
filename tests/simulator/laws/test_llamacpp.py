"""llama.cpp's pool: how -c, -np and --kv-unified cut it, what --fit takes, and what does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.catalog.gpus import find_gpu
from harness.catalog.shapes import shapes
from harness.errors import UsageError
from harness.simulator.laws import DoesNotStart, LlamaPlan, Machine, Pool, llama_pool
from harness.simulator.laws.llamacpp import compute_bytes, gpu_weight_bytes, slots_of
from harness.units import GIB, MIB


def machine(model: str, gpu: str = "L4", context: int | None = None) -> Machine:
    shape = shapes()[model]
    return Machine(shape if context is None else replace(shape, context=context), find_gpu(gpu))


def started(plan: LlamaPlan) -> Pool:
    pool = llama_pool(plan)
    assert isinstance(pool, Pool), pool
    return pool


# Seen on build 11549 with a model trained for 8192: arguments; n_ctx, cells and streams of the cache, n_ctx of a slot.
SEEN = [
    ({}, 8192, 8192, 1, 8192),
    ({"ctx_size": 8192}, 8192, 8192, 1, 8192),
    ({"ctx_size": 32768}, 32768, 32768, 1, 8192),
    ({"ctx_size": 0}, 8192, 8192, 1, 8192),
    ({"parallel": 4}, 32768, 8192, 4, 8192),
    ({"ctx_size": 0, "parallel": 2}, 16384, 8192, 2, 8192),
    ({"parallel": 4, "unified": True}, 8192, 8192, 1, 8192),
    ({"ctx_size": 4096, "parallel": 3}, 4608, 1536, 3, 1536),
    ({"ctx_size": 1000, "parallel": 3}, 1536, 512, 3, 512),
    ({"ctx_size": 32768, "parallel": 2}, 32768, 16384, 2, 8192),
    ({"ctx_size": 4096, "parallel": 2}, 4096, 2048, 2, 2048),
    ({"per_slot": 1024, "parallel": 3}, 3072, 1024, 3, 1024),
]


@pytest.mark.parametrize(("arguments", "pool", "cells", "streams", "slot"), SEEN)
def test_slots_are_cut_as_seen(arguments: dict[str, int], pool: int, cells: int, streams: int, slot: int) -> None:
    """-np cuts the pool in equal shares, rounded up to 256; a slot never has more than the model was trained for."""
    plan = LlamaPlan(machine("Qwen2.5-0.5B", context=8192), **arguments)  # type: ignore[arg-type]
    slots = slots_of(plan, plan.ctx_size)
    assert (slots.pool, slots.cells, slots.streams, slots.context) == (pool, cells, streams, slot)
    told = started(plan)
    assert (told.tokens, told.context, told.max_prompt, told.split) == (pool, slot, slot - 1, streams > 1)


def test_buffers_have_the_sizes_that_were_logged() -> None:
    """Llama 3.1 8B Q4_K_M: 4403 MiB on the GPU; Qwen2.5 7B: a compute buffer of 304 MiB, 112 MiB of cache for 2048."""
    assert gpu_weight_bytes(LlamaPlan(machine("Llama-3.1-8B"), "Q4_K_M")) / MIB == pytest.approx(4403, rel=0.02)
    qwen = LlamaPlan(machine("Qwen2.5-7B"), ctx_size=2048)
    assert compute_bytes(qwen, 2048) / MIB == pytest.approx(304, abs=1)
    assert started(qwen).part("KV cache") == 112 * MIB


def test_an_unset_context_shrinks_until_it_fits() -> None:
    """In steps of 256 per slot, and 1 GiB of the GPU stays free."""
    plan = LlamaPlan(machine("Llama-3.1-8B"))
    pool = started(plan)
    assert 4096 < pool.tokens < 131072
    assert pool.tokens % 256 == 0
    left = plan.machine.free_at_start - sum(part.bytes for part in pool.parts)
    assert GIB <= left < GIB + 256 * pool.bytes_per_token
    shares = started(replace(plan, parallel=4))
    assert (shares.rows, shares.tokens % 1024) == (4, 0)


def test_a_set_context_moves_layers_to_the_host() -> None:
    """--fit leaves -c alone and starts all the same; with --fit off the allocation fails."""
    plan = LlamaPlan(machine("Llama-3.1-8B"), ctx_size=131072)
    pool = started(plan)
    assert (pool.tokens, pool.context) == (131072, 131072)
    assert 0 < pool.on_host < 1
    refused = llama_pool(replace(plan, fit=False))
    assert isinstance(refused, DoesNotStart)
    assert (refused.stage, "cudaMalloc failed: out of memory" in refused.text) == ("warmup", True)
    heavy = llama_pool(LlamaPlan(machine("Qwen2.5-14B"), ctx_size=512, fit=False))
    assert isinstance(heavy, DoesNotStart)
    assert heavy.stage == "load"


def test_a_smaller_cache_type_holds_more() -> None:
    """q8_0 takes 34 bytes for 32 values."""
    plan = LlamaPlan(machine("Llama-3.1-8B"), ctx_size=8192)
    smaller = replace(plan, cache_type_k="q8_0", cache_type_v="q8_0")
    assert started(smaller).part("KV cache") == started(plan).part("KV cache") * 34 // 64


def test_unknown_types_are_refused_by_name() -> None:
    """With the ones that are known."""
    with pytest.raises(UsageError, match="unknown GGUF type 'Q9_X'"):
        llama_pool(LlamaPlan(machine("Llama-3.1-8B"), "Q9_X"))
    with pytest.raises(UsageError, match="unknown cache type 'q3_0'"):
        llama_pool(LlamaPlan(machine("Llama-3.1-8B"), cache_type_v="q3_0"))
