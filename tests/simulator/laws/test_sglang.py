"""SGLang's pool of tokens: the default fraction, what is left after loading, limits of one request."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.catalog.gpus import find_gpu
from harness.catalog.shapes import shapes
from harness.simulator.laws import DoesNotStart, Machine, Pool, SglangPlan, sglang_pool
from harness.simulator.laws.sglang import decode_graph_sizes, default_fraction
from harness.simulator.world import World
from harness.units import GIB


def machine(model: str, gpu: str, **more: object) -> Machine:
    return Machine(shapes()[model], find_gpu(gpu), **more)  # type: ignore[arg-type]


def started(plan: SglangPlan) -> Pool:
    pool = sglang_pool(plan)
    assert isinstance(pool, Pool), pool
    return pool


def failed(plan: SglangPlan) -> DoesNotStart:
    outcome = sglang_pool(plan)
    assert isinstance(outcome, DoesNotStart), outcome
    return outcome


@pytest.mark.parametrize(
    ("gpu", "chunk", "graph", "fraction"),
    [("T4", 2048, 8, 0.735), ("L4", 4096, 48, 0.684), ("L40S", 4096, 32, 0.843), ("H100", 8192, 256, 0.83)],
)
def test_chunk_graphs_and_fraction_follow_the_gpu(gpu: str, chunk: int, graph: int, fraction: float) -> None:
    """The tiers of memory_hook.py; the fraction leaves 512 MiB, 1.5 MiB a token, and the graphs."""
    plan = SglangPlan(machine("Llama-3.1-8B", gpu))
    assert (plan.chunk, plan.largest_graph) == (chunk, graph)
    assert default_fraction(plan) == pytest.approx(fraction, abs=0.001)
    assert decode_graph_sizes(plan)[-1] == graph


def test_the_pool_is_what_loading_leaves_within_the_fraction() -> None:
    """Free before loading times the fraction, less the weights, in whole tokens."""
    served = machine("Llama-3.1-8B", "H100")
    pool = started(SglangPlan(served, mem_fraction_static=0.85))
    static = served.free_at_start * 0.85 - served.weights
    assert pool.tokens == pytest.approx(static / served.kv_bytes, abs=2)
    assert pool.tokens == pool.usable_tokens
    assert started(SglangPlan(served, mem_fraction_static=0.85, max_total_tokens=5000)).tokens == 5000
    assert started(SglangPlan(served, max_total_tokens=5000, page_size=64)).tokens == 4992


def test_a_request_is_shorter_than_context_and_pool() -> None:
    """One token less than the smaller of both, five more for a prompt."""
    served = machine("Qwen2.5-0.5B", "L4")
    by_context = started(SglangPlan(served, context_length=4096))
    assert (by_context.context, by_context.max_prompt) == (4095, 4090)
    by_pool = started(SglangPlan(served, max_total_tokens=1000))
    assert (by_pool.context, by_pool.max_prompt) == (999, 994)


def test_rows_are_bounded_by_pool_and_context() -> None:
    """Half of the pool's tokens at most, 2048 to 4096 by themselves."""
    served = machine("Qwen2.5-0.5B", "L4")
    assert started(SglangPlan(served, max_total_tokens=1000)).rows == 500
    assert started(SglangPlan(served)).rows == 4096
    assert started(SglangPlan(served, max_running_requests=7)).rows == 7


def test_a_larger_chunk_leaves_a_smaller_pool() -> None:
    """As long as the fraction is the default one."""
    served = machine("Qwen2.5-7B", "L40S")
    sizes = [started(SglangPlan(served, chunked_prefill_size=chunk)).tokens for chunk in (2048, 4096, 8192)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


def test_what_does_not_start_names_the_fraction() -> None:
    """Weights beyond the fraction name the least that would do, which then starts."""
    plan = SglangPlan(machine("Llama-3.1-8B", "L4"))
    refused = failed(plan)
    assert "Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static=0.684." in refused.text
    least = float(refused.text.split("above ")[1].split(" ")[0])
    assert started(replace(plan, mem_fraction_static=least + 0.001)).tokens > 0
    failed(replace(plan, mem_fraction_static=least - 0.001))
    assert failed(SglangPlan(machine("Qwen2.5-14B", "L4"))).stage == "load"
    assert failed(SglangPlan(machine("Llama-3.1-8B", "L4", world=World(used_by_others=12 * GIB)))).stage == "load"


@given(fraction=st.floats(0.1, 0.99), context=st.integers(16, 200_000), page=st.sampled_from([1, 16, 64]))
@settings(max_examples=150, deadline=None)
def test_parts_add_up_to_what_was_free(fraction: float, context: int, page: int) -> None:
    """Weights, pool and reserve are all that was free before loading, whatever is asked for."""
    plan = SglangPlan(machine("Qwen2.5-7B", "A10G"), context, fraction, page_size=page)
    pool = sglang_pool(plan)
    if isinstance(pool, DoesNotStart):
        assert pool.missing_bytes >= 0
        return
    assert sum(part.bytes for part in pool.parts) == plan.machine.free_at_start
    assert pool.tokens % page == 0
    assert pool.context < min(context, pool.tokens)
