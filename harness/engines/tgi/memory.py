"""What TGI's memory law needs of an entry: its limits, and the variables of `env` that move memory."""

from __future__ import annotations

import re

from harness.catalog.models import Model
from harness.engines.base import MemoryLaw

_AMPERE = (8, 0)


def law_of(model: Model) -> MemoryLaw:
    """For simulator/memory.ServingPlan, whose names these are."""
    limits, env = model.limits, model.env
    return MemoryLaw(
        "tgi",
        {
            "version": model.engine.version,
            "cuda_memory_fraction": limits.cuda_memory_fraction or _number(env.get("CUDA_MEMORY_FRACTION")) or 1.0,
            "wiggle_room": _number(env.get("TGI_WIGGLE_ROOM")),
            "attention": env.get("ATTENTION"),
            "prefix_caching": _switch(env.get("PREFIX_CACHING") or env.get("USE_PREFIX_CACHING")),
            "prefill_chunking": _switch(env.get("PREFILL_CHUNKING")),
            "max_input_tokens": limits.max_input_tokens,
            "max_total_tokens": limits.max_total_tokens,
            "max_batch_prefill_tokens": limits.max_batch_prefill_tokens,
            "max_batch_total_tokens": limits.max_batch_total_tokens,
            "max_batch_size": limits.max_batch_size,
            "max_concurrent_requests": limits.max_concurrent_requests,
            "cuda_graphs": _sizes(env.get("CUDA_GRAPHS")),
            "prefill_logprobs": (env.get("ENABLE_PREFILL_LOGPROBS") or "").lower() == "true",
        },
        needs=tuple(_needs(model)),
        lighter=("fp8", "bitsandbytes-nf4"),
    )


def _needs(model: Model) -> list[tuple[tuple[int, int], str]]:
    needs = []
    if model.dtype == "bfloat16":
        needs.append((_AMPERE, "has no bfloat16, which came with compute capability 8.0; set dtype: float16"))
    if model.quantize in ("fp8", "marlin", "exl2"):
        needs.append((_AMPERE, f"is too old for quantize: {model.quantize}, which needs compute capability 8.0"))
    return needs


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _switch(text: str | None) -> bool | None:
    return None if text is None else text.lower() in ("1", "true")


def _sizes(text: str | None) -> tuple[int, ...] | None:
    if text is None or not re.fullmatch(r"\d+(,\d+)*", text):
        return None
    return tuple(int(part) for part in text.split(",") if int(part))
