"""What a start of vLLM shows: the limits in force, facts for a prober, and what a failure means.

The KV cache is a pool of blocks, the first of which is the null block that no request gets (v1/core/block_pool.py).
What is printed as its size is what requests of max_model_len would fill, that block counted in: with n blocks of size s
and requests of L tokens it is n / ceil(L / s) x L (`get_max_concurrency`, v1/core/kv_cache_utils.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.catalog.version import Version
from harness.engines.base import EngineFacts, EngineInfo, FailedStart, FailureCause, Invocation, Stage
from harness.engines.failure import Failure
from harness.engines.vllm.info import cache_config
from harness.engines.vllm.log import VllmLog
from harness.engines.vllm.options import FLAGS, LIMIT_NAMES

BLOCK_SIZE = 16  # where neither the entry nor the engine names another (config/cache.py)

# Requests that generate at once, by the step's token budget, where neither was given (`get_batch_defaults` of
# engine/arg_utils.py, 0.10 to 0.32): small cards, large ones, the largest ones.
_ROWS_BY_STEP = {2048: 256, 8192: 1024, 16384: 1024}

_CAUSES: Mapping[str, FailureCause] = {
    "memory": "memory",
    "entry": "argument",
    "limits": "argument",
    "machine": "missing",
    "download": "other",
    "crash": "other",
    "unknown": "other",
}


def limits_in_force(info: EngineInfo, log: VllmLog, started_with: Invocation) -> Limits:
    """Its own pages first, then its log, then what it was told, then its defaults where they are certain."""

    def told(name: str) -> int | None:
        value = FLAGS.value(started_with.args, LIMIT_NAMES[name])
        return int(value) if value is not None and re.fullmatch(r"\d{1,18}", value) else None

    fraction = info.limits.cuda_memory_fraction
    step = log.max_num_batched_tokens or told("max_batch_prefill_tokens")
    return Limits(
        max_total_tokens=info.limits.max_total_tokens or log.max_model_len or told("max_total_tokens"),
        max_batch_prefill_tokens=step,
        max_batch_total_tokens=info.limits.max_batch_total_tokens or log.kv_tokens,
        max_batch_size=told("max_batch_size") or _logged(log, "max_num_seqs") or _default_rows(log, started_with),
        max_concurrent_requests=told("max_concurrent_requests") or _logged(log, "max_num_queued_reqs"),
        cuda_memory_fraction=fraction,
    )


def _logged(log: VllmLog, name: str) -> int | None:
    """An argument that the log says was given."""
    value = log.given.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _default_rows(log: VllmLog, started_with: Invocation) -> int | None:
    """Only where the step's budget is vLLM's own choice too, on a GPU, without a mode that doubles both."""
    given = {flag for flag, _ in FLAGS.given(started_with.args)}
    own = {"--max-num-batched-tokens", "--performance-mode", "--config"} & given
    named = {"max_num_batched_tokens", "performance_mode", "config"} & set(log.given)
    if own or named or log.device not in (None, "GPU"):
        return None
    return _ROWS_BY_STEP.get(log.max_num_batched_tokens or 0)


def rows_by_default(step: int | None) -> int:
    """Requests that generate at once at most, where nobody says: by the step's budget, else the small cards' number."""
    return _ROWS_BY_STEP.get(step or 0, 256)


def facts_of(info: EngineInfo, log: VllmLog, limits: Limits, model: Model) -> EngineFacts:
    """What a start that came up shows of the engine. Prompts are read in pieces unless that was switched off; a prompt
    needs room for one token of an answer.
    """
    cache = cache_config(info)
    size = cache.block_size or _block_size(model)
    args = model.engine.args
    total = limits.max_total_tokens
    return EngineFacts(
        kind="pool",
        chunking=not any(word.startswith("--no-enable-chunked-prefill") for word in args),
        budget=usable_tokens(cache.blocks, size, limits.max_batch_total_tokens, total),
        block_size=size,
        blocks=cache.blocks,
        prefill_tokens=limits.max_batch_prefill_tokens,
        max_input_tokens=None if total is None else total - 1,
        max_total_tokens=total,
        max_concurrent_requests=limits.max_concurrent_requests,
        rows=limits.max_batch_size,
        prefix_caching=_prefix_caching(cache.prefix_caching, args),
        speculate=_speculated(model),
        version=info.version or log.version,
        emulated=info.emulated,
    )


def usable_tokens(blocks: int | None, size: int, printed: int | None, longest: int | None) -> int | None:
    """Tokens that requests can really get at once. blocks: the null block counted in. printed: the size that the log or
    the metrics tell. longest: max_model_len.

    Models whose layers keep different lengths tell a size that is not blocks x block size: of it the null block's share
    is taken off.
    """
    if printed is None:
        return None if blocks is None else (blocks - 1) * size
    if blocks is None:
        blocks = _blocks(printed, size, longest)
    plain = abs(blocks * size - printed) <= max(size, printed // 100)
    return (blocks - 1) * size if plain else printed * (blocks - 1) // blocks


def _blocks(printed: int, size: int, longest: int | None) -> int:
    """Older releases print blocks x block size, newer ones what requests of the longest length fill: less where that
    is not whole blocks.
    """
    if printed % size == 0 or longest is None or printed < longest:
        return printed // size
    return round(printed * -(-longest // size) / longest)


def _block_size(model: Model) -> int:
    told = FLAGS.value(model.engine.args, "--block-size")
    return int(told) if told is not None and told.isdigit() and int(told) else BLOCK_SIZE


def _prefix_caching(told: bool | None, args: tuple[str, ...]) -> bool:
    """On by default for models that generate."""
    return told if told is not None else not any(word.startswith("--no-enable-prefix-caching") for word in args)


def _speculated(model: Model) -> int:
    """Draft tokens per step, as far as the entry's own arguments say."""
    number = FLAGS.value(model.engine.args, "--spec-tokens")
    if number is not None and number.isdigit():
        return int(number)
    try:
        document = json.loads(FLAGS.value(model.engine.args, "--speculative-config") or "{}")
        return int(document.get("num_speculative_tokens", 0))
    except (ValueError, TypeError, AttributeError):
        return 0


def memory_flags(model: Model) -> dict[str, str]:
    """What of the entry beside its limits has to stay for limits that were found to hold."""
    kept = {
        "--dtype": model.dtype,
        "--kv-cache-dtype": model.kv_cache_dtype,
        "--gpu-memory-utilization": model.limits.cuda_memory_fraction,
    }
    own = {flag: value or "" for flag, value in FLAGS.given(model.engine.args) if flag in _MOVE_MEMORY}
    return {flag: f"{value:g}" if isinstance(value, float) else value for flag, value in kept.items() if value} | own


# Flags that move memory, or how prompts are read.
_MOVE_MEMORY = frozenset(
    {
        "--block-size",
        "--compilation-config",
        "--cpu-offload-gb",
        "--cudagraph-capture-sizes",
        "--enable-chunked-prefill",
        "--enable-lora",
        "--enable-prefix-caching",
        "--enforce-eager",
        "--gpu-memory-utilization",
        "--kv-cache-dtype",
        "--kv-cache-memory-bytes",
        "--long-prefill-token-threshold",
        "--max-cudagraph-capture-size",
        "--num-gpu-blocks-override",
        "--performance-mode",
        "--pipeline-parallel-size",
        "--quantization",
        "--spec-tokens",
        "--speculative-config",
        "--watermark",
    }
)


def failed_start(failure: Failure, log: VllmLog) -> FailedStart:
    """How far it came, and whether other limits can help."""
    stage: Stage = {"starting": "launch", "downloading": "load", "loading": "load"}.get(log.phase, "warm-up")  # type: ignore[assignment]
    cause = _CAUSES[failure.kind]
    limit = fraction = None
    free = re.search(r"Free memory on device \S+ \(([\d.]+)/([\d.]+) GiB\)", failure.line or "")
    if free is not None:  # somebody else has a part of the card
        cause, stage, fraction = "memory", "limits", float(free[1]) / float(free[2])
    elif failure.cause == "total-above-memory":
        cause, stage = "budget", "limits"
        named = re.search(r"estimated maximum model length is (\d+)", failure.line or "")
        limit = int(named[1]) if named else None
    elif failure.cause == "timeout":
        cause = "hang"
    elif failure.kind == "limits":
        stage = "limits"
    elif failure.worth_a_retry:
        cause = "other"
    facts = None
    if log.max_num_batched_tokens is not None:
        facts = EngineFacts("pool", True, prefill_tokens=log.max_num_batched_tokens, version=log.version)
    return FailedStart(stage, cause, limit, fraction, facts)


def default_fraction(version: Version) -> float:
    """Of gpu_memory_utilization (config/cache.py)."""
    return 0.92 if version >= (0, 20, 0) else 0.9
