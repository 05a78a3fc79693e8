"""Reads TGI's pages: /info and /metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.catalog.limits import Limits
from harness.engines.base import EngineInfo
from harness.engines.gauges import Gauges

EMULATOR_LABEL = "harness-emulator"  # `docker_label` in the emulator's /info


def read_info(document: Mapping[str, object]) -> EngineInfo:
    """What `/info` says, of any release: 2.2 and older also tell the token budget, and call the input limit by its
    older name.
    """

    def number(*names: str) -> int | None:
        for name in names:
            value = document.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        return None

    def text(name: str) -> str | None:
        value = document.get(name)
        return value if isinstance(value, str) else None

    return EngineInfo(
        engine="tgi",
        version=text("version"),
        model_id=text("model_id"),
        emulated=text("docker_label") == EMULATOR_LABEL,
        model_names=("tgi",),  # one TGI serves one model, under any name
        limits=Limits(
            max_input_tokens=number("max_input_tokens", "max_input_length"),
            max_total_tokens=number("max_total_tokens"),
            max_batch_total_tokens=number("max_batch_total_tokens"),
            max_concurrent_requests=number("max_concurrent_requests"),
            max_batch_size=number("max_batch_size"),
        ),
        raw=dict(document),
    )


def is_info(document: object) -> bool:
    """Whether this is TGI's own /info."""
    return isinstance(document, Mapping) and "model_id" in document and "max_total_tokens" in document


def read_gauges(page: str) -> Gauges:
    """From a page of /metrics; TGI writes a gauge only after its first change, so an idle new server says nothing."""

    def gauge(name: str) -> float | None:
        match = re.search(rf"^{name} ([0-9.eE+]+)$", page, re.MULTILINE)
        return None if match is None else float(match[1])

    return Gauges(
        running=gauge("tgi_batch_current_size"),
        waiting=gauge("tgi_queue_size"),
        kv_tokens=gauge("tgi_batch_current_max_tokens"),
        validation_seconds=gauge("tgi_request_validation_duration_sum"),
        validation_count=gauge("tgi_request_validation_duration_count"),
        queue_seconds=gauge("tgi_request_queue_duration_sum"),
        queue_count=gauge("tgi_request_queue_duration_count"),
        inference_seconds=gauge("tgi_request_inference_duration_sum"),
        inference_count=gauge("tgi_request_inference_duration_count"),
    )
