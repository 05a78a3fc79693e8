"""What vLLM's pages say: who is served, the KV cache, what it does now."""

from __future__ import annotations

from typing import Any

import pytest

from harness.engines import engine_named
from harness.engines.vllm.info import read_cache_config
from tests.engines.pages import serving

VLLM = engine_named("vllm")
METRICS = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 5.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:num_preemptions_total{engine="0",model_name="tiny"} 2.0
vllm:num_preemptions_created{engine="0",model_name="tiny"} 1.7e+09
vllm:prefix_cache_queries_total{engine="0",model_name="tiny"} 4000.0
vllm:prefix_cache_hits_total{engine="0",model_name="tiny"} 1500.0
vllm:iteration_tokens_total_count{engine="0",model_name="tiny"} 812.0
vllm:iteration_tokens_total_sum{engine="0",model_name="tiny"} 90000.0
vllm:cache_config_info{block_size="16",enable_prefix_caching="True",engine="0",gpu_memory_utilization="0.92",\
kv_cache_size_tokens="98288",num_gpu_blocks="6143"} 1.0
"""
OLD_METRICS = """\
vllm:num_requests_running{engine="0",model_name="tiny"} 1.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 0.0
vllm:gpu_cache_usage_perc{engine="0",model_name="tiny"} 0.5
vllm:gpu_prefix_cache_queries_total{engine="0",model_name="tiny"} 10.0
vllm:gpu_prefix_cache_hits_total{engine="0",model_name="tiny"} 4.0
vllm:cache_config_info{block_size="32",num_gpu_blocks="None"} 1.0
"""


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "owned_by": "vllm",
        "root": "acme/tiny-chat",
        "parent": None,
        "max_model_len": 6000,
    } | more


def test_service_is_known_by_its_pages() -> None:
    """Version, model, names and limits, from four pages; a model of two names is one model."""
    pages = {
        "GET /v1/models": {"object": "list", "data": [entry("tiny"), entry("acme/tiny-chat")]},
        "GET /version": {"version": "0.32.0"},
        "GET /metrics": METRICS,
    }
    with serving(pages) as served:
        found = VLLM.recognise(served.client())
    assert found is not None
    assert (found.engine, found.version, found.model_id, found.emulated) == ("vllm", "0.32.0", "acme/tiny-chat", False)
    assert found.model_names == ("tiny",)
    assert (found.limits.max_total_tokens, found.limits.max_batch_total_tokens) == (6000, 98288)
    assert found.limits.cuda_memory_fraction == 0.92


def test_adapters_are_models_of_their_own() -> None:
    """A LoRA adapter names its base as parent, and is asked for by its own name."""
    adapter = entry("tiny-sql", root="acme/sql", parent="tiny", max_model_len=None)
    with serving({"GET /v1/models": {"data": [entry("tiny"), adapter]}}) as served:
        found = VLLM.recognise(served.client())
    assert found is not None
    assert found.model_names == ("tiny", "tiny-sql")
    assert found.version is None


def test_emulator_is_known_by_its_header() -> None:
    """What plays vLLM says so, and nothing it tells is a GPU's."""
    with serving({"GET /v1/models": {"data": [entry("tiny")]}}, {"x-harness-emulator": "1"}) as served:
        found = VLLM.recognise(served.client())
    assert found is not None
    assert found.emulated


def test_gauges_have_the_common_names() -> None:
    """Preemptions and prefix hits are counters since the start; tokens follow from blocks that requests can get."""
    gauges = VLLM.read_gauges(METRICS)
    assert (gauges.running, gauges.waiting, gauges.kv_used, gauges.preempted) == (3, 5, 0.25, 2)
    assert (gauges.cache_queries, gauges.cache_hits, gauges.steps) == (4000, 1500, 812)
    assert gauges.kv_tokens == 0.25 * 6142 * 16


def test_gauges_of_older_releases() -> None:
    """Names that have changed are read under either."""
    gauges = VLLM.read_gauges(OLD_METRICS)
    assert (gauges.running, gauges.kv_used, gauges.cache_queries, gauges.cache_hits) == (1, 0.5, 10, 4)
    assert (gauges.kv_tokens, gauges.steps, gauges.preempted) == (None, None, None)


@pytest.mark.parametrize("page", ["", "tgi_queue_size 0", 'vllm:cache_config_info{block_size="None"} 1.0'])
def test_page_that_tells_nothing_of_the_cache(page: str) -> None:
    """Nothing told stays nothing, and is not zero."""
    config = read_cache_config(page)
    assert (config.blocks, config.block_size, config.tokens, config.memory_fraction) == (None, None, None, None)
