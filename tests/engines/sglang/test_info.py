"""What SGLang's pages say: who is served, the KV cache, what it does now."""

from __future__ import annotations

from typing import Any

import pytest

from harness.engines import engine_named
from tests.engines.pages import serving

SGLANG = engine_named("sglang")
ENTRY = {"id": "own", "object": "model", "owned_by": "sglang", "root": "own", "max_model_len": 8192}
PAGE: dict[str, Any] = {
    "model_path": "acme/own-model",
    "context_length": None,
    "chunked_prefill_size": 4096,
    "max_running_requests": 5000,
    "page_size": 1,
    "mem_fraction_static": 0.874,
    "api_key": "sk-very-secret",
    "admin_api_key": "sk-more-secret",
    "disable_radix_cache": False,
    "max_total_num_tokens": 92345,
    "max_req_input_len": 8186,
    "internal_states": [{"effective_max_running_requests_per_dp": 2048}],
    "version": "0.5.23",
}
METRICS = """\
sglang:num_running_reqs{engine_type="unified",model_name="own",tp_rank="0"} 3.0
sglang:num_queue_reqs{engine_type="unified",model_name="own",tp_rank="0"} 5.0
sglang:token_usage{engine_type="unified",model_name="own",tp_rank="0"} 0.25
sglang:num_used_tokens{engine_type="unified",model_name="own",tp_rank="0"} 23086.0
sglang:num_retracted_reqs{engine_type="unified",model_name="own",tp_rank="0"} 9.0
sglang:num_retracted_requests_total{engine_type="unified",model_name="own",tp_rank="0"} 2.0
sglang:prompt_tokens_total{engine_type="unified",model_name="own"} 4000.0
sglang:cached_tokens_total{cache_source="device",engine_type="unified",model_name="own"} 1400.0
sglang:cached_tokens_total{cache_source="host",engine_type="unified",model_name="own"} 100.0
"""


@pytest.mark.parametrize("path", ["/server_info", "/get_server_info"])
def test_service_is_known_by_its_pages(path: str) -> None:
    """Version, model, names and limits; older releases have the page under another name."""
    with serving({"GET /v1/models": {"data": [ENTRY]}, f"GET {path}": PAGE}) as served:
        found = SGLANG.recognise(served.client())
    assert found is not None
    assert (found.engine, found.version, found.model_id, found.emulated) == (
        *("sglang", "0.5.23", "acme/own-model", False),
    )
    assert found.model_names == ("own",)
    limits = found.limits
    assert (limits.max_total_tokens, limits.max_input_tokens, limits.max_batch_total_tokens) == (8190, 8185, 92345)
    assert (limits.max_batch_prefill_tokens, limits.max_batch_size) == (4096, 2048)
    assert limits.cuda_memory_fraction == 0.874


def test_keys_of_the_page_are_not_kept() -> None:
    """The page shows the service's keys in clear; what is kept of it does not."""
    with serving({"GET /v1/models": {"data": [ENTRY]}, "GET /server_info": PAGE}) as served:
        found = SGLANG.recognise(served.client())
    assert "secret" not in repr(found)


def test_pool_that_is_smaller_than_the_context_bounds_a_request() -> None:
    """The longest request is what the cache holds, but for two tokens."""
    page = {**PAGE, "max_total_num_tokens": 5000, "max_req_input_len": 4994}
    with serving({"GET /v1/models": {"data": [ENTRY]}, "GET /server_info": page}) as served:
        found = SGLANG.recognise(served.client())
    assert found is not None
    assert (found.limits.max_total_tokens, found.limits.max_input_tokens) == (4998, 4993)


def test_service_without_its_page_is_sglang_all_the_same() -> None:
    """Who stands in front may hide the page."""
    with serving({"GET /v1/models": {"data": [ENTRY]}}, {"X-Harness-Emulator": "1"}) as served:
        found = SGLANG.recognise(served.client())
    assert found is not None
    assert (found.version, found.emulated, found.limits.max_total_tokens) == (None, True, 8190)


def test_another_server_is_none_of_its() -> None:
    """Only who lists its models as SGLang's own is SGLang; no further page is asked of another."""
    with serving({"GET /v1/models": {"data": [{**ENTRY, "owned_by": "vllm"}]}, "GET /server_info": PAGE}) as served:
        assert SGLANG.recognise(served.client()) is None
        assert served.asked == ["GET /v1/models"]


def test_gauges_have_the_common_names() -> None:
    """Retractions since the start, not those of the last time; cached tokens of all sources."""
    gauges = SGLANG.read_gauges(METRICS)
    assert (gauges.running, gauges.waiting, gauges.kv_used, gauges.kv_tokens) == (3, 5, 0.25, 23086)
    assert (gauges.preempted, gauges.cache_queries, gauges.cache_hits) == (2, 4000, 1500)


def test_older_releases_count_no_retractions() -> None:
    """A gauge of the last time is not a counter: nothing is told."""
    assert SGLANG.read_gauges("sglang:num_retracted_reqs 3.0\n").preempted is None
