"""What a start of SGLang shows: the limits in force, facts for a prober, and what a failure means.

The KV cache is a pool of tokens in pages, usually of one. An answer is cut so that prompt and answer stay two tokens
below the smaller of context and pool (managers/tp_worker.py, max_req_len; managers/scheduler.py, `max_req_len - input -
1`); a prompt is refused from seven below it on (managers/utils.py, validate_input_length).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.engines.base import EngineFacts, EngineInfo, FailedStart, FailureCause, Invocation, Stage
from harness.engines.failure import Failure
from harness.engines.sglang.info import told
from harness.engines.sglang.log import SglangLog
from harness.engines.sglang.options import FLAGS, LIMIT_NAMES

OF_THE_PROMPT = 5  # tokens that a prompt may have fewer than a request
_CAUSES: Mapping[str, FailureCause] = {
    "memory": "memory",
    "entry": "argument",
    "limits": "argument",
    "machine": "missing",
    "download": "other",
    "crash": "other",
    "unknown": "other",
}
# Flags that move memory, or how prompts are read.
_MOVE_MEMORY = frozenset(
    {
        "--attention-backend",
        "--cpu-offload-gb",
        "--cuda-graph-backend-decode",
        "--cuda-graph-backend-prefill",
        "--cuda-graph-bs-decode",
        "--cuda-graph-max-bs-decode",
        "--disable-cuda-graph",
        "--disable-radix-cache",
        "--enable-lora",
        "--enable-mixed-chunk",
        "--lora-paths",
        "--max-prefill-tokens",
        "--page-size",
        "--quantization",
        "--schedule-conservativeness",
        "--speculative-algorithm",
        "--speculative-num-draft-tokens",
    }
)


def limits_in_force(info: EngineInfo, log: SglangLog, started_with: Invocation) -> Limits:
    """Its own page first, then its log, then what it was told."""
    logged, limits = log.limits, info.limits

    def asked(name: str) -> int | None:
        value = FLAGS.value(started_with.args, LIMIT_NAMES[name])
        return int(value) if value is not None and re.fullmatch(r"\d{1,18}", value) else None

    total = log.longest if log.context is not None else limits.max_total_tokens
    waiting, rows = asked("max_concurrent_requests"), logged.max_batch_size or limits.max_batch_size
    return replace(
        limits,
        max_total_tokens=total,
        max_input_tokens=limits.max_input_tokens or (None if total is None else max(1, total - OF_THE_PROMPT)),
        max_batch_prefill_tokens=limits.max_batch_prefill_tokens or logged.max_batch_prefill_tokens,
        max_batch_total_tokens=limits.max_batch_total_tokens or logged.max_batch_total_tokens,
        max_batch_size=rows,
        max_concurrent_requests=None if waiting is None else waiting + (rows or 0),
    )


def facts_of(info: EngineInfo, log: SglangLog, limits: Limits, model: Model) -> EngineFacts:
    """What a start that came up shows of the engine."""
    size = told(info.raw, "page_size") or 1
    pool = limits.max_batch_total_tokens
    return EngineFacts(
        kind="pool",
        chunking=limits.max_batch_prefill_tokens is not None,
        budget=None if pool is None else pool // size * size,
        block_size=size,
        prefill_tokens=limits.max_batch_prefill_tokens,
        max_input_tokens=limits.max_input_tokens,
        max_total_tokens=limits.max_total_tokens,
        max_concurrent_requests=limits.max_concurrent_requests,
        rows=limits.max_batch_size,
        prefix_caching="--disable-radix-cache" not in dict(FLAGS.given(model.engine.args)),
        version=info.version,
        emulated=info.emulated,
    )


def memory_flags(model: Model) -> dict[str, str]:
    """What of the entry beside its limits has to stay for limits that were found to hold."""
    kept = {
        "--dtype": model.dtype,
        "--kv-cache-dtype": model.kv_cache_dtype,
        "--mem-fraction-static": model.limits.cuda_memory_fraction,
    }
    own = {flag: value or "" for flag, value in FLAGS.given(model.engine.args) if flag in _MOVE_MEMORY}
    return {flag: f"{value:g}" if isinstance(value, float) else value for flag, value in kept.items() if value} | own


def failed_start(failure: Failure, log: SglangLog) -> FailedStart:
    """How far it came, and whether other limits can help."""
    stage: Stage = {"starting": "launch", "downloading": "load", "loading": "load"}.get(log.phase, "warm-up")  # type: ignore[assignment]
    cause: FailureCause = "hang" if failure.cause == "timeout" else _CAUSES[failure.kind]
    if failure.cause in ("no-cache-memory", "graphs-memory"):
        stage = "warm-up"
    elif failure.cause == "weights-memory":
        stage, cause = "load", "memory"
    elif failure.kind == "limits":
        stage = "limits"
    elif failure.worth_a_retry and cause != "hang":
        cause = "other"
    facts = None if log.step is None else EngineFacts("pool", True, prefill_tokens=log.step)
    return FailedStart(stage, cause, facts=facts)
