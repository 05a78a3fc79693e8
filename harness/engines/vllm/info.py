"""Reads vLLM's pages: /v1/models, /version and /metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.catalog.limits import Limits
from harness.engines.base import EngineInfo
from harness.engines.client import Client
from harness.engines.gauges import Gauges
from harness.engines.metrics_text import mean, samples, total
from harness.engines.openai_engine import ServedModel, is_emulated, served_models
from harness.engines.payload import as_mapping, as_text


@dataclass(frozen=True)
class CacheConfig:
    """What `vllm:cache_config_info` tells of the KV cache. blocks: the reserved one counted in. tokens: as in the log;
    older releases do not tell them here.
    """

    blocks: int | None = None
    block_size: int | None = None
    tokens: int | None = None
    memory_fraction: float | None = None
    prefix_caching: bool | None = None


def recognise(client: Client) -> EngineInfo | None:
    """vLLM lists its models as owned by `vllm`, in every release; None for whoever does not."""
    models = [each for each in served_models(client) if each.owner == "vllm"]
    if not models:
        return None
    first = models[0]
    cache = read_cache_config(client.page("/metrics").text)
    version = as_text(as_mapping(client.page("/version").document).get("version"))
    raw: dict[str, object] = {"version": version, "models": [each.raw for each in models], "cache": vars(cache)}
    return EngineInfo(
        engine="vllm",
        version=version,
        model_id=first.root or first.name,
        emulated=is_emulated(client),
        limits=Limits(
            max_total_tokens=first.longest,
            max_batch_total_tokens=cache.tokens,
            cuda_memory_fraction=cache.memory_fraction,
        ),
        raw=raw,
        model_names=_distinct_names(models),
    )


def _distinct_names(models: list[ServedModel]) -> tuple[str, ...]:
    """One name for each model: the same one may be served under several; an adapter names its base as `parent`."""
    first: dict[tuple[Any, ...], str] = {}
    for each in models:
        first.setdefault((each.root or each.name, each.raw.get("parent")), each.name)
    return tuple(first.values())


def cache_config(info: EngineInfo) -> CacheConfig:
    """What `recognise` read of the KV cache."""
    told = info.raw.get("cache")
    return CacheConfig(**told) if isinstance(told, dict) else CacheConfig()


def read_cache_config(page: str) -> CacheConfig:
    """From a page of /metrics: labels are Python's reprs of the values. Of several engines the first."""
    labels: Mapping[str, str] = next((each.labels for each in samples(page, "vllm:cache_config_info")), {})

    def number(name: str) -> int | None:
        value = labels.get(name, "")
        return int(value) if value.isdigit() else None

    prefix = labels.get("enable_prefix_caching")
    return CacheConfig(
        blocks=number("num_gpu_blocks"),
        block_size=number("block_size"),
        tokens=number("kv_cache_size_tokens"),
        memory_fraction=_share(labels.get("gpu_memory_utilization", "")),
        prefix_caching=None if prefix not in ("True", "False") else prefix == "True",
    )


def _share(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def read_gauges(page: str) -> Gauges:
    """From a page of /metrics, of any release; the names of the KV cache's figures changed with 0.10."""
    used = mean(page, "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
    cache = read_cache_config(page)
    tokens = (cache.blocks - 1) * cache.block_size if cache.blocks and cache.block_size else None
    return Gauges(
        running=total(page, "vllm:num_requests_running"),
        waiting=total(page, "vllm:num_requests_waiting"),
        kv_used=used,
        kv_tokens=None if used is None or tokens is None else used * tokens,
        preempted=total(page, "vllm:num_preemptions_total"),
        cache_queries=total(page, "vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
        cache_hits=total(page, "vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
        steps=total(page, "vllm:iteration_tokens_total_count"),
        queue_seconds=total(page, "vllm:request_queue_time_seconds_sum"),
        queue_count=total(page, "vllm:request_queue_time_seconds_count"),
        prefill_seconds=total(page, "vllm:request_prefill_time_seconds_sum"),
        prefill_count=total(page, "vllm:request_prefill_time_seconds_count"),
        inference_seconds=total(page, "vllm:request_inference_time_seconds_sum"),
        inference_count=total(page, "vllm:request_inference_time_seconds_count"),
    )
