"""What a start of TGI shows a prober: how the model keeps its cache and reads prompts, and what a failure means."""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.catalog.version import parse_version
from harness.engines.base import EngineFacts, EngineInfo, EngineKind, FailedStart, FailureCause, Stage
from harness.engines.failure import Failure
from harness.engines.tgi.log import TgiLog

# Sizes of the cache's blocks by the kind of attention (server/text_generation_server/models/globals.py:33-38).
_BLOCK_SIZES = {"flashinfer": 1, "flashdecoding": 256, "flashdecoding-ipex": 64, "paged": 16}
_ATTENTION_TOLD = (2, 3, 0)  # releases before it kept pages and said nothing of it
_CAUSES: Mapping[str, FailureCause] = {
    "memory": "memory",
    "entry": "argument",
    "limits": "argument",
    "machine": "missing",
    "download": "other",
    "crash": "other",
    "unknown": "other",
}
_BUDGET_CAUSES = ("total-above-memory", "prefill-above-budget", "total-above-budget")
# Variables that move memory, or how prompts are read.
_MOVE_MEMORY = (
    "ATTENTION",
    "CUDA_GRAPHS",
    "CUDA_MEMORY_FRACTION",
    "DTYPE",
    "ENABLE_PREFILL_LOGPROBS",
    "KV_CACHE_DTYPE",
    "LORA_ADAPTERS",
    "PREFILL_CHUNKING",
    "PREFIX_CACHING",
    "PYTORCH_CUDA_ALLOC_CONF",
    "SPECULATE",
    "TGI_WIGGLE_ROOM",
    "USE_FLASH_ATTENTION",
    "USE_PREFIX_CACHING",
)


def memory_flags(model: Model) -> dict[str, str]:
    """What of the entry beside its limits has to stay for limits that were found to hold."""
    own = {
        "DTYPE": model.dtype,
        "KV_CACHE_DTYPE": model.kv_cache_dtype,
        "CUDA_MEMORY_FRACTION": model.limits.cuda_memory_fraction,
    }
    kept = {name: value for name, value in model.env.items() if name in _MOVE_MEMORY}
    return {name: f"{value:g}" if isinstance(value, float) else value for name, value in own.items() if value} | kept


def failed_start(failure: Failure, log: TgiLog) -> FailedStart:
    """How far it came, and whether other limits can help."""
    warmed = log.phase in ("warming up", "connected")
    stage: Stage = "warm-up" if warmed else "launch" if log.phase == "starting" else "load"
    cause = _CAUSES[failure.kind]
    limit = None
    if failure.cause in _BUDGET_CAUSES:
        cause, stage = "budget", "limits"
        given = re.search(r"Given: \d+ and (\d+)", failure.line or "")
        limit = int(given[1]) if given else None
    elif failure.kind == "limits":
        stage = "limits"
    elif failure.cause == "timeout":
        cause = "hang"
    elif failure.cause == "warmup-memory":
        stage = "warm-up"
    elif failure.worth_a_retry and not (cause == "memory" and warmed):
        cause = "other"
    return FailedStart(stage, cause, limit, facts=_guess(failure, log))


def _guess(failure: Failure, log: TgiLog) -> EngineFacts | None:
    """What a failed start still told: the prefill budget it failed at, and how the model reads prompts."""
    match = re.search(r"handle (\d+) prefill tokens", failure.line or "")
    prefill = int(match[1]) if match else log.max_batch_prefill_tokens
    if prefill is None and log.chunking is None:
        return None
    block_size = _block_size(log, log.attention is None)
    budget = log.inferred_total_tokens or (log.kv_blocks * block_size if log.kv_blocks else None)
    kind: EngineKind = "padded" if log.padded else "flash"
    return EngineFacts(kind, bool(log.chunking), budget, block_size, log.kv_blocks, prefill)


def facts_of(info: EngineInfo, log: TgiLog, limits: Limits, given: Limits, model: Model) -> EngineFacts:
    """What a start that came up shows of the engine, from its log and /info."""
    budget = log.max_batch_total_tokens or info.limits.max_batch_total_tokens or log.inferred_total_tokens
    version = parse_version(info.version or "")
    block_size = _block_size(log, version is not None and version < _ATTENTION_TOLD)
    if log.kv_blocks and not budget:
        budget = log.kv_blocks * block_size
    flash = bool(log.kv_blocks or log.inferred_total_tokens)
    kind: EngineKind
    if log.padded:
        kind = "padded"
    elif flash or (budget is not None and budget != given.max_batch_total_tokens):
        kind = "flash"
    else:
        kind = "unchecked"
    prefill = given.max_batch_prefill_tokens or log.max_batch_prefill_tokens or limits.max_batch_prefill_tokens
    if kind == "unchecked" and budget is None and _chunks(log, limits.max_total_tokens, prefill, given):
        # It chose more in all than it reads at once, as only block-allocated engines do: what it chose is there.
        kind, budget = "flash", limits.max_total_tokens
    return EngineFacts(
        kind=kind,
        chunking=_chunks(log, limits.max_total_tokens, prefill, given) if kind == "flash" else False,
        budget=budget,
        block_size=block_size if kind == "flash" else 1,
        blocks=log.kv_blocks,
        prefill_tokens=prefill or _default_prefill(limits.max_total_tokens, kind),
        max_input_tokens=limits.max_input_tokens,
        max_total_tokens=limits.max_total_tokens,
        max_concurrent_requests=limits.max_concurrent_requests,
        prefix_caching=bool(log.prefix_caching),
        speculate=int(model.env.get("SPECULATE", "0") or 0),
        version=info.version,
        emulated=info.emulated,
    )


def _block_size(log: TgiLog, old: bool) -> int:
    """Tokens of a block. old: of a release that does not tell its attention."""
    return log.block_size or _BLOCK_SIZES.get(log.attention or ("paged" if old else ""), 1)


def _chunks(log: TgiLog, total: int | None, prefill: int | None, given: Limits) -> bool:
    """Whether prompts are read in pieces: by its own word, else by a total of its own choice that one piece cannot
    hold.
    """
    if log.chunking is not None:
        return log.chunking
    if any("supports prefill chunking" in line for line in log.lines):
        return True
    return given.max_total_tokens is None and total is not None and total > (prefill or 4096)


def _default_prefill(total: int | None, kind: EngineKind) -> int:
    """A padded model that chooses its own limits has as many tokens in all as in one prefill (models/model.py:132)."""
    return total if kind != "flash" and total else 4096
