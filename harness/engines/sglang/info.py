"""Reads SGLang's pages: /v1/models, /server_info and /metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.catalog.limits import Limits
from harness.engines.base import EngineInfo
from harness.engines.client import Client
from harness.engines.gauges import Gauges
from harness.engines.metrics_text import mean, total
from harness.engines.openai_engine import is_emulated, served_models
from harness.engines.payload import as_count, as_mapping, as_text
from harness.engines.sglang.log import BELOW_CONTEXT

# Of the page, which also holds the service's key in clear.
_KEPT = ("context_length", "max_total_num_tokens", "max_req_input_len", "max_running_requests", "page_size", "tp_size")


def recognise(client: Client) -> EngineInfo | None:
    """SGLang lists its models as owned by `sglang`; None for whoever does not."""
    models = [each for each in served_models(client) if each.owner == "sglang"]
    if not models:
        return None
    page = _server_info(client)
    first = models[0]
    pool, context = told(page, "max_total_num_tokens"), told(page, "context_length") or first.longest
    known = [each for each in (pool, context) if each is not None]
    longest_input = told(page, "max_req_input_len")
    rows = told(page, "effective_max_running_requests_per_dp") or told(page, "max_running_requests")
    return EngineInfo(
        engine="sglang",
        version=as_text(page.get("version")),
        model_id=as_text(page.get("model_path")) or first.root or first.name,
        emulated=is_emulated(client),
        limits=Limits(
            max_input_tokens=None if longest_input is None else longest_input - 1,
            max_total_tokens=min(known) - BELOW_CONTEXT if known else None,
            max_batch_prefill_tokens=told(page, "chunked_prefill_size"),
            max_batch_total_tokens=pool,
            max_batch_size=rows,
            cuda_memory_fraction=_share(page.get("mem_fraction_static")),
        ),
        raw={name: told(page, name) for name in _KEPT} | {"disable_radix_cache": page.get("disable_radix_cache")},
        model_names=tuple(dict.fromkeys(each.name for each in models)),
    )


def _share(value: Any) -> float | None:
    return value if isinstance(value, float) else None


def _server_info(client: Client) -> Mapping[str, Any]:
    """All arguments as they were resolved, and what was measured; the older name logs a warning in newer releases."""
    for path in ("/server_info", "/get_server_info"):
        page = as_mapping(client.page(path).document)
        if page:
            return page
    return {}


def told(page: Mapping[str, Any], name: str) -> int | None:
    """A number of the page, or of its first `internal_states`."""
    states = page.get("internal_states")
    inner = as_mapping(states[0]) if isinstance(states, list) and states else {}
    value = as_count(page.get(name))
    return value if value is not None else as_count(inner.get(name))


def read_gauges(page: str) -> Gauges:
    """From a page of /metrics. Shares are refreshed at batches alone: an idle server keeps its last."""
    return Gauges(
        running=total(page, "sglang:num_running_reqs"),
        waiting=total(page, "sglang:num_queue_reqs"),
        kv_used=mean(page, "sglang:token_usage"),
        kv_tokens=total(page, "sglang:num_used_tokens"),
        preempted=total(page, "sglang:num_retracted_requests_total"),
        cache_queries=total(page, "sglang:prompt_tokens_total"),
        cache_hits=total(page, "sglang:cached_tokens_total"),
        queue_seconds=total(page, "sglang:queue_time_seconds_sum"),
        queue_count=total(page, "sglang:queue_time_seconds_count"),
        first_token_seconds=total(page, "sglang:time_to_first_token_seconds_sum"),
        first_token_count=total(page, "sglang:time_to_first_token_seconds_count"),
    )
