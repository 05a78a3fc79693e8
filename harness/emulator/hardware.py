"""The emulated machine: from the options to the simulator's memory and cost models, and its true limits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.catalog.gpus import Gpu
from harness.catalog.shapes import ModelShape
from harness.emulator.options import Options
from harness.simulator.cost import cost_of
from harness.simulator.launcher import BLOCK_SIZES
from harness.simulator.memory import (
    Budget,
    NotEnoughMemory,
    ResolvedPlan,
    ServingPlan,
    padded_batch_fits,
    prefill_peak,
    resolve,
)
from harness.simulator.scheduler import EngineCall
from harness.simulator.world import World


def serving_plan(
    options: Options,
    environment: Mapping[str, str],
    shape: ModelShape,
    config: Mapping[str, Any] | None,
    gpu: Gpu,
    shards: int,
    prefill: int,
) -> ServingPlan:
    """What the shards are started with."""
    caching = environment.get("PREFIX_CACHING")
    chunking = environment.get("PREFILL_CHUNKING")
    longest = options.max_input_tokens if options.max_input_tokens is not None else options.max_input_length
    return ServingPlan(
        shape=shape,
        gpu=gpu,
        shards=shards,
        dtype=options.dtype,
        quantize=options.quantize,
        kv_cache_dtype=options.kv_cache_dtype,
        cuda_memory_fraction=options.cuda_memory_fraction,
        wiggle_room=number(environment.get("TGI_WIGGLE_ROOM")),
        attention=environment.get("ATTENTION"),
        prefix_caching=None if caching is None else _true(caching),
        prefill_chunking=None if chunking is None else _true(chunking),
        max_input_tokens=longest,
        max_total_tokens=options.max_total_tokens,
        max_batch_prefill_tokens=prefill,
        max_batch_total_tokens=options.max_batch_total_tokens,
        max_batch_size=options.max_batch_size,
        speculate=options.speculate or 0,
        cuda_graphs=None if options.cuda_graphs is None else tuple(options.cuda_graphs),
        prefill_logprobs=options.enable_prefill_logprobs,
        lora_adapters=options.lora_adapters is not None,
        config=config,
    )


_OWN_ADMISSION = 3e-4  # seconds from a request's last byte to its place in the queue, measured


def _true(text: str) -> bool:
    return text.lower() in ("1", "true")


def number(text: str | None) -> float | None:
    """A number from the environment; None where there is none or it is no number."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def load_problem(plan: ServingPlan, options: Options, gpus: int | None) -> str | None:
    """What the shard would die of while loading, apart from memory: the last line of its traceback."""
    if options.dtype and options.quantize and not options.quantize.startswith("bitsandbytes"):
        return (
            "RuntimeError: Only 1 can be set between `dtype` and `quantize`, as they both decide how goes the final"
            " model."
        )
    if gpus is not None and plan.shards > gpus:
        return "RuntimeError: CUDA error: invalid device ordinal"
    if plan.attention is not None and plan.attention not in BLOCK_SIZES:
        return "AssertionError"
    if plan.shape.heads % plan.shards:
        return (
            "ValueError: `num_heads` must be divisible by `num_shards` (got `num_heads`:"
            f" {plan.shape.heads} and `num_shards`: {plan.shards}"
        )
    if plan.shape.kv_heads % plan.shards and plan.shape.kv_heads != 1:
        return f"AssertionError: [{plan.shape.kv_heads}, {plan.shards}]"
    if plan.kv_cache_dtype is not None and resolve(plan).attention not in ("flashinfer", "paged"):
        return (
            "ValueError: FP8 KV cache is currently only supported for flashinfer on CUDA and paged attention on CUDA,"
            " ROCm and INTEL IPEX and flashdecoding in Intel IPEX "
        )
    return None


Timings = tuple[Callable[[EngineCall], float], Callable[[int], float]]


def timings(resolved: ResolvedPlan, world: World, started: Budget, speed: float) -> Timings:
    """Seconds of a shard's call, and of a prompt's way into the queue. speed: by which everything runs faster.

    The latter is less what this process needs itself for a prompt.
    """
    model = cost_of(resolved, world, graphs_captured=started.graphs_captured)

    def admission(tokens: int) -> float:
        return max(0.0, model.request_seconds(tokens) / speed - _OWN_ADMISSION)

    return lambda call: model.seconds(call.step) / speed, admission


def memory_watch(plan: ServingPlan, world: World, started: Budget) -> Callable[[EngineCall], bool]:
    """Whether the memory of a call suffices: beside the KV cache there is only the reserve."""
    resolved = resolve(plan)

    def padded(call: EngineCall) -> bool:
        rows = len(call.members)
        length = max(each.input_length for each in call.members)
        new = max(each.max_new_tokens for each in call.members)
        return not call.picked or padded_batch_fits(plan, world, rows, length, new)

    def flash(call: EngineCall) -> bool:
        if not call.prompts:
            return True
        return prefill_peak(resolved, world, call.step.tokens, len(call.members)).held <= started.headroom_bytes

    return padded if resolved.padded else flash


def write_truth(path: str, plan: ServingPlan, world: World, outcome: Budget | NotEnoughMemory) -> None:
    """The hidden truth as JSON: what a prober is graded by, and never reads."""
    document = {
        "model": plan.shape.name,
        "gpu": plan.gpu.name,
        "shards": plan.shards,
        "world": asdict(world),
        "starts": isinstance(outcome, Budget),
        "outcome": asdict(outcome),
    }
    if isinstance(outcome, Budget):
        document["max_batch_total_tokens"] = outcome.tokens
        document["usable_tokens"] = outcome.usable_tokens
    Path(path).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
