"""Why an engine that starts may still run out of memory under load: what nothing measured before the first request.

One function per law of fit.LAWS, each with the sources of what it says; sentences for people.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.catalog.config_fields import config_classes
from harness.catalog.shapes import ModelShape
from harness.simulator import memory
from harness.simulator.laws import Pool, SglangPlan, VllmPlan
from harness.simulator.laws.sglang import default_fraction
from harness.simulator.memory import Budget, ServingPlan
from harness.simulator.world import World
from harness.units import format_bytes, format_count

_CONCURRENT = 128
"""Requests that TGI lets in where nothing is said (max_concurrent_requests, launcher/src/main.rs)."""

_LEAST_SPARE = 0.02
"""Share of a card outside vLLM's own below which there is no room for what neither its profile nor its graphs hold: the
default leaves 8 to 10 %."""


def of_tgi(plan: ServingPlan, world: World, started: Budget) -> tuple[str, ...]:
    """A warm-up runs one prefill; reports of engines that died later: TGI's issues 1374, 1993, 2083, 2744, 2897."""
    resolved = memory.resolve(plan)
    rows = min(each or _CONCURRENT for each in (plan.max_batch_size, plan.max_concurrent_requests))
    said = []
    if not started.measured:
        said.append(_padded(plan, world, started, rows))
    else:
        step = started.max_batch_prefill_tokens
        if not memory.forward_fits(plan, world, started, step, min(rows, step)):
            left = format_bytes(max(0, started.headroom_bytes))
            said.append(
                f"a step of {format_count(step)} prompt tokens beside a full KV cache takes more than the {left} that"
                " are left: set max_batch_prefill_tokens or cuda_memory_fraction lower"
            )
    if not started.graphs_captured:
        said.append(
            "its CUDA graphs do not fit behind the KV cache: it starts without them (only the log says so), is slower,"
            " and has nothing to spare"
        )
    if has_towers(plan.shape) and not resolved.padded:
        # backends/v3/src/backend.rs and flash_causal_lm.py, warmup: the first request carries one tiny image.
        said.append("its warm-up reads one tiny image: what large or many images take is in no sum")
    return tuple(said)


def _padded(plan: ServingPlan, world: World, started: Budget, rows: int) -> str:
    """Of a model without flash attention (models/model.py:132-142: no memory is measured)."""
    nobody = "without flash attention no memory is measured, and only its limits bound a batch"
    new = max(1, started.max_total_tokens - started.max_input_tokens)
    for count, length in _batches(started, rows, new):
        if not memory.padded_batch_fits(plan, world, count, length, new):
            return (
                f"{nobody}: {format_count(count)} prompts of {format_count(length)} tokens, which they let in, do not"
                " fit; `harness probe` finds the limits that hold"
            )
    return f"{nobody}; the largest that its limits let in fits by this sum, `harness probe` tries it"


def _batches(started: Budget, rows: int, new: int) -> Iterator[tuple[int, int]]:
    """Batches within the limits, from one prompt of the longest kind to as many as are let in."""
    count = 1
    while count <= rows:
        length = min(started.max_input_tokens, started.tokens // count - new)
        if length >= 1:
            yield count, length
        count *= 2


def of_vllm(plan: VllmPlan, pool: Pool) -> tuple[str, ...]:
    """Steps and towers are profiled at start with the largest input (gpu_worker.py, determine_available_memory)."""
    total = plan.machine.total
    if plan.kv_cache_memory_bytes is None:
        spare = round(total * (1 - plan.gpu_memory_utilization))
    else:
        spare = total - sum(part.bytes for part in pool.parts)
    if spare >= _LEAST_SPARE * total:
        return ()
    return (
        f"{format_bytes(max(0, spare))} of the card are outside its share (gpu_memory_utilization): workspaces of"
        " kernels and fragmentation come from there",
    )


def of_sglang(plan: SglangPlan) -> tuple[str, ...]:
    """Nothing is profiled: a reserve by rule is kept for prefill and graphs (arg_groups/memory_hook.py)."""
    said = []
    usual = default_fraction(plan)
    if plan.mem_fraction_static is not None and plan.mem_fraction_static > usual:
        said.append(
            f"mem_fraction_static {plan.mem_fraction_static:g} leaves less than SGLang's own rule ({usual:g}) for a"
            " prefill and the graphs, which no start measures"
        )
    if has_towers(plan.machine.shape):
        said.append("no start measures what large or many images take; that comes out of the same reserve")
    return tuple(said)


def has_towers(shape: ModelShape) -> bool:
    """It reads images or sound too: by its weights, its class, or its configuration."""
    known = config_classes().get(shape.model_type, {})
    return bool(shape.vision_parameters or "text" in known or "ForConditionalGeneration" in shape.architecture)
