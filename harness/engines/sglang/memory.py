"""What SGLang's memory law reads of an entry: its limits, and arguments of its own that move memory."""

from __future__ import annotations

from harness.catalog.models import Model
from harness.catalog.version import Version
from harness.engines.base import MemoryLaw
from harness.engines.sglang.options import FLAGS, LIMIT_NAMES, limits_as_flags


def law_of(model: Model, version: Version) -> MemoryLaw:
    """For simulator/laws.SglangPlan, whose names are SGLang's own.

    Raises UsageError for a limit that this release does not have.
    """
    args, limits = model.engine.args, model.limits
    ours = limits_as_flags(limits, version, model.name)

    def number(flag: str) -> int | None:
        text = ours.get(flag) or FLAGS.value(args, flag) or ""
        return int(text) if text.removeprefix("-").isdigit() else None

    given = {flag for flag, _ in FLAGS.given(args)}
    fraction = ours.get(LIMIT_NAMES["cuda_memory_fraction"]) or FLAGS.value(args, "--mem-fraction-static")
    no_graphs = FLAGS.value(args, "--cuda-graph-backend-decode") == "disabled" or "--disable-cuda-graph" in given
    return MemoryLaw(
        "sglang",
        {
            "context_length": number("--context-length"),
            "mem_fraction_static": _share(fraction),
            "max_total_tokens": number("--max-total-tokens"),
            "max_running_requests": number("--max-running-requests"),
            "chunked_prefill_size": number("--chunked-prefill-size"),
            "max_prefill_tokens": number("--max-prefill-tokens") or 16384,
            "page_size": number("--page-size") or 1,
            "disable_cuda_graph": no_graphs,
        },
        needs=(((7, 5), "is too old for SGLang, which needs compute capability 7.5"),),
        lighter=("fp8",),
    )


def _share(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
