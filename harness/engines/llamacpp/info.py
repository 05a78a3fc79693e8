"""Reads llama-server's pages: /props, /v1/models, /metrics and /slots."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.catalog.limits import Limits
from harness.engines.base import EngineInfo
from harness.engines.client import Client
from harness.engines.gauges import Gauges
from harness.engines.metrics_text import total
from harness.engines.openai_engine import EMULATOR_HEADER, served_models
from harness.engines.payload import as_count, as_mapping, as_text

GAUGE_PAGES: tuple[str, ...] = ("/slots",)
_TEST_BUILD = re.compile(r"b0-")  # of a build outside llama.cpp's own repository


def recognise(client: Client) -> EngineInfo | None:
    """By /props, which no other server has in this form. Raises NoAnswer.

    A router (llama-server without a model) is one too: it tells no limits before a model is named.
    """
    reply = client.page("/props")
    page = as_mapping(reply.document)
    if as_text(page.get("build_info")) is None or not ("total_slots" in page or page.get("role") == "router"):
        return None
    served = served_models(client)
    names = tuple(each.name for each in served)
    alias = as_text(page.get("model_alias"))
    return EngineInfo(
        engine="llamacpp",
        version=version_in(str(page["build_info"])),
        model_id=alias if "total_slots" in page else None,
        emulated=EMULATOR_HEADER in reply.headers,
        limits=_limits(page),
        raw={**page, "meta": served[0].raw.get("meta") if served else None},
        model_names=names or ((alias,) if alias and "total_slots" in page else ()),
    )


def context_of(info: EngineInfo) -> int | None:
    """Tokens that the model was trained for; None where it does not tell."""
    return as_count(as_mapping(info.raw.get("meta")).get("n_ctx_train"))


def version_in(build_info: str) -> str | None:
    """`b11347-0123abc` -> `b11347`; None for a build that knows its number not."""
    return None if _TEST_BUILD.match(build_info) else build_info.partition("-")[0]


def told_version(output: str) -> str | None:
    """The build in what `llama-server --version` prints: `version: 8672 (0123abc)`, or since 0.1 `version: 0.5.0
    (build 11146, commit 0123abc)`. None for a build that knows its number not.
    """
    match = re.search(r"version: \S+ \(build (\d+)|version: (\d+) \(", output)
    number = int(match[1] or match[2]) if match else 0
    return f"b{number}" if number else None


def _limits(page: Mapping[str, Any]) -> Limits:
    """n_ctx is one slot's share; a prompt may take all of it but one token (server-context.cpp)."""
    each = as_count(as_mapping(page.get("default_generation_settings")).get("n_ctx"))
    return Limits(
        max_input_tokens=each - 1 if each else None,
        max_total_tokens=each or None,
        max_batch_size=as_count(page.get("total_slots")),
    )


def read_gauges(page: str, others: Sequence[str]) -> Gauges:
    """From /metrics and /slots.

    The cache's use is told by the slots alone. llamacpp:prompt_tokens_seconds and predicted_tokens_seconds are averages
    since the page was last read, by whomever: they are left alone.
    """
    computed, cached = total(page, "llamacpp:prompt_tokens_total"), total(page, "llamacpp:prompt_tokens_cached_total")
    return Gauges(
        running=total(page, "llamacpp:requests_processing"),
        waiting=total(page, "llamacpp:requests_deferred"),
        kv_tokens=_tokens_in_slots(others[0]) if others else None,
        cache_queries=None if computed is None or cached is None else computed + cached,
        cache_hits=cached,
        steps=total(page, "llamacpp:n_decode_total"),
        prefill_seconds=total(page, "llamacpp:prompt_seconds_total"),  # it tells no number of requests
    )


def _tokens_in_slots(page: str) -> float | None:
    """Tokens of the requests that run. What idle slots keep of earlier ones gives way to them."""
    try:
        slots = json.loads(page)
    except (ValueError, RecursionError):
        return None
    if not isinstance(slots, list) or not all(isinstance(each, dict) for each in slots):
        return None
    busy = [each for each in slots if each.get("is_processing")]
    counts = [as_count(each.get("n_prompt_tokens")) for each in busy]
    return None if None in counts else float(sum(count or 0 for count in counts))
