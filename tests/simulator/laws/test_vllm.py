"""vLLM's KV cache: starts that were logged, blocks, the null block, defaults, and what does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.catalog.gpus import find_gpu
from harness.catalog.shapes import shapes
from harness.errors import UsageError
from harness.simulator.laws import DoesNotStart, Machine, Pool, VllmPlan, vllm_pool
from harness.simulator.laws.vllm import AUTO, graph_sizes
from harness.simulator.world import World
from harness.units import GIB

H100 = World(visible_bytes=round(79.19 * GIB))


def machine(model: str, gpu: str = "H100", **more: object) -> Machine:
    return Machine(shapes()[model], find_gpu(gpu), **more)  # type: ignore[arg-type]


def started(plan: VllmPlan) -> Pool:
    pool = vllm_pool(plan)
    assert isinstance(pool, Pool), pool
    return pool


def failed(plan: VllmPlan) -> DoesNotStart:
    outcome = vllm_pool(plan)
    assert isinstance(outcome, DoesNotStart), outcome
    return outcome


# llm-d-incubation/llm-d-planner at d3121e0, accuracy/results/v0.19.0/logs: vLLM 0.19.0 on H100 80GB, fraction 0.95,
# 8192 tokens and 1024 requests a step. GiB of KV cache and tokens that fit into it. 0.19 did not take the CUDA graphs
# off, 0.21 does. GiB of weights, as "Model loading took" says.
LOGGED = [
    ("Llama-3.1-8B", {}, 58.11, 476_016, 14.99),
    ("Llama-3.1-8B", {"shards": 2}, 63.76, 1_044_688, 7.51),
    ("Llama-3.1-8B", {"shards": 4}, 67.44, 2_209_792, 3.77),
    ("Llama-3.1-8B", {"quantize": "fp8"}, 64.61, 529_248, 8.49),
    ("Llama-3.1-8B", {"kv_cache_dtype": "fp8"}, 58.11, 952_032, 14.99),
    ("Llama-3.1-70B", {"shards": 2, "quantize": "fp8"}, 37.28, 244_304, 33.88),
    ("CodeLlama-7B", {}, 61.66, 126_256, 12.56),
    ("Qwen2.5-7B", {}, 58.53, 1_096_000, 14.25),
    ("Qwen2.5-7B", {"shards": 4}, 67.34, 5_043_280, 3.55),
    ("Qwen3-8B", {}, 57.50, 418_688, 15.27),
    ("Qwen3-30B-A3B", {}, 15.41, 168_288, 56.88),
    ("Phi-4", {}, 46.08, 241_568, 27.39),
    ("Gemma-2-2B", {}, 66.47, 670_160, 4.90),
    ("Gemma-2-27B", {}, 20.59, 58_672, 50.72),
    ("Mixtral-8x7B", {"shards": 2}, 28.44, 465_936, 43.51),
    ("DeepSeek-V2-Lite", {}, 43.61, 1_505_552, 29.43),
]


@pytest.mark.parametrize(("model", "settings_", "kv_gib", "tokens", "weights"), LOGGED, ids=lambda value: str(value))
def test_the_kv_cache_of_logged_starts_comes_out(
    model: str, settings_: dict[str, object], kv_gib: float, tokens: int, weights: float
) -> None:
    """Within 1 % of what vLLM itself measured, weights too."""
    served = machine(model, world=H100, **settings_)
    pool = started(VllmPlan(served, max_model_len=8192, gpu_memory_utilization=0.95))
    offered = pool.available_bytes + pool.part("CUDA graphs")
    assert offered / GIB == pytest.approx(kv_gib, rel=0.01)
    assert offered // served.kv_bytes == pytest.approx(tokens, rel=0.01)
    assert served.weights / GIB == pytest.approx(weights, rel=0.01)


def test_a_start_since_0_21_comes_out_with_its_graphs() -> None:
    """Qwen3-8B on 24 GB: 6.37 GiB and 46,368 tokens of KV cache (LMCache issue 3430)."""
    pool = started(VllmPlan(machine("Qwen3-8B", "RTX4090"), max_model_len=16384, gpu_memory_utilization=0.9764))
    assert pool.available_bytes / GIB == pytest.approx(6.37, rel=0.02)
    assert pool.tokens == pytest.approx(46_368, rel=0.02)


def test_graphs_are_captured_for_the_sizes_that_vllm_names() -> None:
    """51 of both kinds with 1024 requests, 51 and 35 with 256, as its log says."""
    assert [len(sizes) for sizes in graph_sizes(1024)] == [51, 51]
    assert [len(sizes) for sizes in graph_sizes(256)] == [51, 35]
    assert graph_sizes(4) == ((1, 2, 4, 8), (1, 2, 4))


def test_one_block_is_told_and_never_given() -> None:
    """The log counts the null block; requests get one block less."""
    pool = started(VllmPlan(machine("Qwen2.5-0.5B", "L4"), num_gpu_blocks_override=513, max_model_len=4096))
    assert (pool.tokens, pool.blocks, pool.usable_tokens) == (513 * 16, 513, 512 * 16)


def test_defaults_of_a_step_follow_the_gpu() -> None:
    """8192 and 1024 from 70 GiB on, but not on an A100; 16384 from 160 GiB on; else 2048 and 256."""
    steps = {gpu: VllmPlan(machine("Llama-3.1-8B", gpu)).step for gpu in ("L4", "A100", "H100", "B200")}
    assert steps == {"L4": (2048, 256), "A100": (2048, 256), "H100": (8192, 1024), "B200": (16384, 1024)}
    assert VllmPlan(machine("Llama-3.1-8B", "L4"), max_num_batched_tokens=128).step == (128, 128)
    assert VllmPlan(machine("Llama-3.1-8B", "L4"), max_num_seqs=2, max_model_len=512).step == (1024, 2)


def test_a_request_that_does_not_fit_names_the_longest_that_does() -> None:
    """The estimate starts, one block more does not."""
    served = VllmPlan(machine("Llama-3.1-8B", "L4"))
    refused = failed(served)
    assert refused.stage == "warmup"
    assert f"the estimated maximum model length is {refused.longest}. " in refused.text
    assert refused.longest is not None
    fits = started(replace(served, max_model_len=refused.longest))
    assert fits.usable_tokens == refused.longest
    failed(replace(served, max_model_len=refused.longest + 1))


def test_auto_takes_the_longest_that_fits() -> None:
    """The same length as the refusal names; the model's own where that fits."""
    served = VllmPlan(machine("Llama-3.1-8B", "L4"))
    assert started(replace(served, max_model_len=AUTO)).context == failed(served).longest
    assert started(VllmPlan(machine("Qwen2.5-0.5B", "L4"), max_model_len=AUTO)).context == 32768


def test_what_does_not_start_says_where_it_stood() -> None:
    """Another process on the GPU, weights that are too large, nothing left for the cache."""
    busy = failed(VllmPlan(machine("Llama-3.1-8B", "L4", world=World(used_by_others=4 * GIB))))
    assert busy.stage == "busy"
    assert "is less than desired GPU memory utilization (0.92, 20.29 GiB)" in busy.text
    assert failed(VllmPlan(machine("Qwen2.5-14B", "L4"))).stage == "load"
    full = failed(VllmPlan(machine("Llama-3.1-8B", "L4"), gpu_memory_utilization=0.7))
    assert full.text.startswith("No available memory for the cache blocks.")
    with pytest.raises(UsageError, match="14 attention heads do not divide by 4"):
        vllm_pool(VllmPlan(machine("Qwen2.5-0.5B", "L4", shards=4)))


@given(
    model=st.sampled_from(["Qwen2.5-0.5B", "Llama-3.1-8B", "Gemma-2-9B"]),
    fraction=st.floats(0.2, 1.0),
    tokens=st.integers(256, 16384),
    length=st.integers(1, 40_000),
)
@settings(max_examples=150, deadline=None)
def test_a_pool_is_never_larger_than_its_share(model: str, fraction: float, tokens: int, length: int) -> None:
    """What starts fits into the fraction and holds one longest request; a larger step never gives a larger pool."""
    plan = VllmPlan(
        machine(model, "L40S"), length, fraction, max_num_batched_tokens=tokens, max_num_seqs=min(64, tokens)
    )
    pool = vllm_pool(plan)
    if isinstance(pool, DoesNotStart):
        assert pool.missing_bytes > 0
        return
    assert sum(part.bytes for part in pool.parts) <= fraction * pool.total_bytes + 1
    assert -(-pool.context // 16) <= pool.blocks - 1
    larger = vllm_pool(replace(plan, max_num_batched_tokens=2 * tokens))
    assert isinstance(larger, DoesNotStart) or larger.blocks <= pool.blocks
