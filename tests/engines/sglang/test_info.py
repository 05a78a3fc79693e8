"""What SGLang's pages say: who is served, its limits, what it does now."""

from __future__ import annotations

from typing import Any

import pytest

from harness.catalog.limits import Limits
from harness.catalog.models import EngineChoice, Model
from harness.engines import engine_named
from harness.engines.base import EngineInfo, Invocation
from tests.engines.pages import serving
from tests.engines.sglang.test_log import read

SGLANG = engine_named("sglang")
MODELS = {"data": [{"id": "tiny", "object": "model", "owned_by": "sglang", "root": "tiny", "max_model_len": 32768}]}
PAGE: dict[str, Any] = {
    "model_path": "acme/tiny-chat",
    "version": "0.5.23",
    "chunked_prefill_size": 2048,
    "max_running_requests": None,
    "context_length": None,
    "page_size": 1,
    "max_total_num_tokens": 60007,
    "max_req_input_len": 32762,
    "internal_states": [{"max_running_requests": 2048}],
}
METRICS = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="tiny",tp_rank="0"} 3.0
sglang:num_queue_reqs{engine_type="unified",model_name="tiny",tp_rank="0"} 5.0
sglang:token_usage{engine_type="unified",model_name="tiny",tp_rank="0"} 0.25
sglang:num_used_tokens{engine_type="unified",model_name="tiny",tp_rank="0"} 15000.0
sglang:num_retracted_requests_total{engine_type="unified",model_name="tiny"} 2.0
sglang:prompt_tokens_total{engine_type="unified",model_name="tiny"} 4000.0
sglang:cached_tokens_total{cache_source="device",engine_type="unified",model_name="tiny"} 1000.0
sglang:cached_tokens_total{cache_source="host",engine_type="unified",model_name="tiny"} 500.0
"""


@pytest.mark.parametrize("path", ["/server_info", "/get_server_info"])
def test_service_is_known_by_its_pages(path: str) -> None:
    """Version, model and limits, under the page's old name too; a figure may stand in its inner state alone."""
    with serving({"GET /v1/models": MODELS, f"GET {path}": PAGE}) as served:
        found = SGLANG.recognise(served.client())
    assert found is not None
    assert (found.engine, found.version, found.model_id, found.emulated) == (
        "sglang",
        "0.5.23",
        "acme/tiny-chat",
        False,
    )
    assert found.model_names == ("tiny",)
    assert (found.limits.max_total_tokens, found.limits.max_batch_total_tokens) == (32767, 60007)
    assert (found.limits.max_batch_prefill_tokens, found.limits.max_batch_size) == (2048, 2048)


def test_pool_bounds_what_the_context_does_not() -> None:
    """The longest request fits in both, one token less."""
    with serving({"GET /v1/models": MODELS, "GET /server_info": PAGE | {"max_total_num_tokens": 9001}}) as served:
        found = SGLANG.recognise(served.client())
    assert found is not None
    assert found.limits.max_total_tokens == 9000


def test_another_server_is_none_of_its() -> None:
    """Only who lists its models as SGLang's own is SGLang; no further page is asked of another."""
    other = {"data": [{"id": "tiny", "owned_by": "vllm"}]}
    with serving({"GET /v1/models": other, "GET /server_info": PAGE}) as served:
        assert SGLANG.recognise(served.client()) is None
        assert served.asked == ["GET /v1/models"]


def test_gauges() -> None:
    """Requests, KV cache, retractions and what the cache answered, whichever of its tiers did."""
    gauges = SGLANG.read_gauges(METRICS)
    assert (gauges.running, gauges.waiting, gauges.kv_used, gauges.kv_tokens) == (3, 5, 0.25, 15000)
    assert (gauges.preempted, gauges.cache_queries, gauges.cache_hits) == (2, 4000, 1500)


def test_release_without_a_counter_says_nothing() -> None:
    """0.4.6 counts no retractions: unknown, not none."""
    assert SGLANG.read_gauges("sglang:num_running_reqs 1.0\n").preempted is None


def info(limits: Limits) -> EngineInfo:
    return EngineInfo("sglang", "0.5.23", "acme/tiny-chat", False, limits, PAGE)


def test_limits_in_force_from_pages_log_and_arguments() -> None:
    """The queue counts those that wait alone, our limit those that run too; a prompt is six tokens shorter."""
    started = Invocation(("--model-path", "acme/tiny-chat", "--max-queued-requests", "40"))
    limits = SGLANG.limits_in_force(info(Limits()), read("0.5.23"), started)
    assert limits == Limits(
        max_total_tokens=32767,
        max_input_tokens=32761,
        max_batch_prefill_tokens=2048,
        max_batch_total_tokens=60007,
        max_batch_size=2048,
        max_concurrent_requests=2088,
    )


@pytest.mark.parametrize(("size", "budget"), [(1, 60007), (64, 59968)])
def test_facts_of_a_pool(size: int, budget: int) -> None:
    """Whole pages alone hold requests."""
    model = Model("tiny", "acme/tiny-chat", engine=EngineChoice("sglang", "0.5.23", args=("--disable-radix-cache",)))
    seen = EngineInfo("sglang", "0.5.23", "acme/tiny-chat", False, Limits(), PAGE | {"page_size": size})
    log = read("0.5.23")
    facts = SGLANG.facts(seen, log, SGLANG.limits_in_force(seen, log, Invocation(())), Limits(), model)
    assert (facts.kind, facts.budget, facts.block_size, facts.chunking) == ("pool", budget, size, True)
    assert not facts.prefix_caching


@pytest.mark.parametrize(
    ("lines", "stage", "cause"),
    [
        (["[t] Load weight begin.", "torch.OutOfMemoryError: CUDA out of memory."], "load", "memory"),
        (
            [
                "[t] Load weight begin.",
                "[t] Load weight end.",
                "Not enough memory. Please try to increase --mem-fraction-static.",
            ],
            "warm-up",
            "memory",
        ),
        (["sglang serve: error: unrecognized arguments: --foo"], "launch", "argument"),
        (
            ["ValueError: User-specified context_length (65537) is greater than the derived context_length (32768)."],
            "limits",
            "argument",
        ),
    ],
)
def test_failed_start(lines: list[str], stage: str, cause: str) -> None:
    """How far it came and whether other limits can help."""
    log = SGLANG.new_log()
    log.feed_all(lines)
    failed = SGLANG.failed_start(SGLANG.explain(lines, 1), log)
    assert (failed.stage, failed.cause) == (stage, cause)
