"""What a start of llama.cpp shows a prober: slots, the cache that they share or split, the size of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.engines.base import EngineFacts, EngineInfo, FailedStart, FailureCause, Invocation, Stage
from harness.engines.failure import Failure
from harness.engines.llamacpp.flags import FLAGS, VARIABLES, asks_for_one_cache, number
from harness.engines.llamacpp.info import context_of
from harness.engines.llamacpp.log import LlamaCppLog
from harness.engines.llamacpp.slots import DEFAULT_SLOTS, GRANULE, Slots, in_force

DEFAULT_BATCH = 2048  # --batch-size, common/common.h
_CAUSES: Mapping[str, FailureCause] = {
    "memory": "memory",
    "entry": "argument",
    "limits": "argument",
    "machine": "missing",
    "download": "other",
    "crash": "other",
    "unknown": "other",
}
# Options that move memory, or how prompts are read, and are not limits of ours.
_MOVE_MEMORY = (
    "--ubatch-size",
    "--kv-unified",
    "--cache-ram",
    "--swa-full",
    "--flash-attn",
    "--fit",
    "--fit-target",
    "--fit-ctx",
    "--n-gpu-layers",
    "--n-cpu-moe",
    "--cpu-moe",
    "--override-tensor",
    "--no-kv-offload",
    "--split-mode",
    "--tensor-split",
    "--main-gpu",
    "--device",
    "--mmproj",
    "--model-draft",
    "--lora",
)


def limits_in_force(info: EngineInfo, log: LlamaCppLog, started_with: Invocation) -> Limits:
    """What it allows now: by /props, its log and what it was started with."""
    slots = slots_of(info.limits, log, started_with)
    batch = log.batch or number(started_with, "--batch-size") or DEFAULT_BATCH
    return replace(
        info.limits,
        max_batch_prefill_tokens=batch,
        max_batch_total_tokens=slots.pool if slots is not None else None,
    )


def slots_of(told: Limits, log: LlamaCppLog, started_with: Invocation) -> Slots | None:
    """The slots that run. told: by /props. None where neither that nor the log tells them."""
    count, each = told.max_batch_size or log.slots, told.max_total_tokens or log.slot_tokens
    if count is None or each is None:
        return None
    unified = log.unified
    if unified is None:
        unified = number(started_with, "--parallel") is None or asks_for_one_cache(started_with)
    context = number(started_with, "--ctx-size")
    return in_force(count, each, unified=unified, asked_context=context, logged_cache=log.cache_tokens)


def cautions(limits: Limits, log: LlamaCppLog, started_with: Invocation) -> list[str]:
    """What is not as asked for, and what happens when the cache of all slots is full."""
    found = []
    slots = slots_of(limits, log, started_with)
    if log.no_gpu is not None:
        why = "this build has no support for a GPU" if log.no_gpu == "GPU" else log.no_gpu
        found.append(f"it serves on the CPU: {why}")
    elif log.layers is not None and log.layers_on_gpu is not None and log.layers_on_gpu < log.layers:
        found.append(f"{log.layers - log.layers_on_gpu} of {log.layers} layers run on the CPU")
    if slots is None:
        return found
    asked = number(started_with, "--ctx-size")
    if asked and not slots.unified and slots.each < asked // slots.count:
        found.append(
            f"slots of {asked // slots.count:,} tokens were asked for, and each has {slots.each:,}, the most that the"
            " model was trained for"
        )
    if slots.unified and slots.count > 1:
        found.append(
            f"its {slots.count} slots draw on one cache of {slots.pool:,} tokens: when they fill it together, every"
            " running answer ends with an error; limits/max_batch_size gives each slot a share of its own"
        )
    return found


def concurrent(started_with: Invocation) -> int:
    """Requests that run at once; any more wait."""
    return number(started_with, "--parallel") or DEFAULT_SLOTS


def facts_of(info: EngineInfo, log: LlamaCppLog, limits: Limits, given: Limits, model: Model) -> EngineFacts:
    """What a start that came up shows. given: the limits that it was started with, None of them by the entry's args."""
    rows, longest = limits.max_batch_size, limits.max_total_tokens
    budget = limits.max_batch_total_tokens
    split = log.unified is False if log.unified is not None else budget == (rows or 0) * (longest or 0)
    own = Invocation(model.engine.args, model.env)
    keeps_prompts = "--no-cache-prompt" not in dict(FLAGS.given(own.args))
    return EngineFacts(
        kind="pool",
        chunking=True,
        budget=budget,
        block_size=GRANULE if split else 1,  # a share is a multiple of it
        prefill_tokens=given.max_batch_prefill_tokens or limits.max_batch_prefill_tokens or DEFAULT_BATCH,
        max_input_tokens=limits.max_input_tokens,
        max_total_tokens=longest,
        context=context_of(info),
        rows=rows,
        split=split,
        prefix_caching=keeps_prompts,
        version=info.version,
        emulated=info.emulated,
    )


def memory_flags(model: Model) -> dict[str, str]:
    """What of the entry beside its limits has to stay for limits that were found to hold."""
    given = FLAGS.given(model.engine.args)
    kept = {flag: value if value is not None else "" for flag, value in given if flag in _MOVE_MEMORY}
    cache = {flag: model.kv_cache_dtype for flag in ("--cache-type-k", "--cache-type-v") if model.kv_cache_dtype}
    variables = {VARIABLES[flag] for flag in _MOVE_MEMORY if flag in VARIABLES}
    return {**cache, **kept, **{name: value for name, value in model.env.items() if name in variables}}


def failed_start(failure: Failure, log: LlamaCppLog) -> FailedStart:
    """How far it came, and whether other limits can help."""
    stage: Stage = "launch" if log.phase == "starting" else "warm-up" if log.slots is not None else "load"
    cause: FailureCause = "hang" if failure.cause == "timeout" else _CAUSES[failure.kind]
    if failure.cause == "weights-memory":
        cause = "other"  # no limit makes weights smaller
    elif failure.cause in ("cache-memory", "compute-memory"):
        stage = "warm-up"
    return FailedStart(stage, cause)
