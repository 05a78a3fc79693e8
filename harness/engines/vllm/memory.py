"""What vLLM's memory law needs of an entry: its limits, and its own arguments that move memory."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.catalog.models import Model
from harness.catalog.version import Version
from harness.engines.base import MemoryLaw
from harness.engines.vllm.facts import default_fraction
from harness.engines.vllm.options import FLAGS, LIMIT_NAMES, limits_as_flags


def law_of(model: Model, version: Version) -> MemoryLaw | None:
    """For simulator/laws.VllmPlan, whose names are vLLM's own. None for an image that serves without a GPU.

    Raises UsageError for a limit that this release does not have.
    """
    limits_as_flags(model.limits, version, model.name)
    if model.engine.variant == "cpu":
        return None
    args, limits = model.engine.args, model.limits
    written = {name: _number(args, flag) for name, flag in LIMIT_NAMES.items()}
    fraction = limits.cuda_memory_fraction or _share(args) or default_fraction(version)
    return MemoryLaw(
        "vllm",
        {
            "max_model_len": limits.max_total_tokens or _length(args),
            "gpu_memory_utilization": fraction,
            "kv_cache_memory_bytes": _number(args, "--kv-cache-memory-bytes"),
            "num_gpu_blocks_override": _number(args, "--num-gpu-blocks-override"),
            "max_num_batched_tokens": limits.max_batch_prefill_tokens or written["max_batch_prefill_tokens"],
            "max_num_seqs": limits.max_batch_size or written["max_batch_size"],
            "block_size": _number(args, "--block-size") or 16,
            "enforce_eager": any(flag == "--enforce-eager" for flag, _ in FLAGS.given(args)),
        },
        needs=tuple(_needs(model, version)),
        lighter=("fp8", "bitsandbytes") if version < (0, 28, 0) else ("fp8",),
    )


_UNITS = {"": 1, "k": 1000, "m": 10**6, "g": 10**9, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _number(args: Sequence[str], flag: str) -> int | None:
    """`8192`, `1k` for 1,000 or `1K` for 1,024 (engine/arg_utils.py, human_readable_int)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgKMG]?)", FLAGS.value(args, flag) or "")
    return int(float(match[1]) * _UNITS[match[2]]) if match else None


def _length(args: Sequence[str]) -> int | None:
    """-1 for the longest that fits."""
    fitted = FLAGS.value(args, "--max-model-len") in ("auto", "-1")
    return -1 if fitted else _number(args, "--max-model-len")


def _share(args: Sequence[str]) -> float | None:
    try:
        return float(FLAGS.value(args, "--gpu-memory-utilization") or "")
    except ValueError:
        return None


def _needs(model: Model, version: Version) -> list[tuple[tuple[int, int], str]]:
    """Compute capabilities by dtype and method (`get_min_capability` of layers/quantization, 0.10 to 0.32)."""
    needs = []
    if model.dtype == "bfloat16":
        needs.append(((8, 0), "has no bfloat16, which came with compute capability 8.0; set dtype: float16"))
    word = model.quantize or ""
    if word.startswith("fp8"):
        least = (7, 5) if version >= (0, 14, 0) else (8, 0)
        needs.append((least, f"is too old for quantize: {word}, which needs compute capability {least[0]}.{least[1]}"))
    if word.startswith("awq"):
        needs.append(((7, 5), f"is too old for quantize: {word}, which needs compute capability 7.5"))
    return needs
