"""What SGLang's memory law needs of an entry: its limits, and its own arguments that move memory."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.catalog.models import Model
from harness.catalog.version import Version
from harness.engines.base import MemoryLaw
from harness.engines.sglang.options import FLAGS, LIMIT_NAMES, flags_of_limits


def law_of(model: Model, version: Version) -> MemoryLaw:
    """For simulator/laws.SglangPlan, whose names are SGLang's own. Raises UsageError for a limit that this release does
    not have.
    """
    args = model.engine.args
    ours = flags_of_limits(model, version)

    def number(name: str) -> int | None:
        flag = LIMIT_NAMES[name]
        return _number(ours.get(flag) or FLAGS.value(args, flag))

    given = dict(FLAGS.given(args))
    graphs_off = "--disable-cuda-graph" in given or given.get("--cuda-graph-backend-decode") == "disabled"
    return MemoryLaw(
        "sglang",
        {
            "context_length": number("max_total_tokens"),
            "mem_fraction_static": model.limits.cuda_memory_fraction or _share(args),
            "max_total_tokens": number("max_batch_total_tokens"),
            "max_running_requests": number("max_batch_size"),
            "chunked_prefill_size": number("max_batch_prefill_tokens"),
            "max_prefill_tokens": _number(FLAGS.value(args, "--max-prefill-tokens")) or 16384,
            "page_size": _number(FLAGS.value(args, "--page-size")) or 1,
            "disable_cuda_graph": graphs_off,
        },
        needs=tuple(_needs(model)),
        lighter=("fp8",),
    )


_UNITS = {"": 1, "k": 1000, "m": 10**6, "K": 1 << 10, "M": 1 << 20}


def _number(text: str | None) -> int | None:
    """`8192`, and since 0.5.23 `8k` for 8,000; -1 for prompts that are not cut."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)([kmKM]?)", text or "")
    return int(float(match[1]) * _UNITS[match[2]]) if match else None


def _share(args: Sequence[str]) -> float | None:
    try:
        return float(FLAGS.value(args, "--mem-fraction-static") or "")
    except ValueError:
        return None


def _needs(model: Model) -> list[tuple[tuple[int, int], str]]:
    """It refuses cards below 7.5 (model_executor/model_runner.py) and takes float16 where one has no bfloat16."""
    needs = [((7, 5), "is too old for SGLang, which needs compute capability 7.5")]
    if model.quantize in ("fp8", "w8a8_fp8"):
        needs.append(((8, 0), f"is too old for quantize: {model.quantize}, which needs compute capability 8.0"))
    return needs
