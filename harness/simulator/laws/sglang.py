"""SGLang's memory: what is free after loading, less a share for activations and graphs, becomes tokens.

srt/arg_groups/memory_hook.py (the default fraction), srt/mem_cache/kv_cache_configurator.py (_profile_available_bytes,
resolve_max_num_reqs) and srt/managers/tp_worker.py (get_worker_info) of 0.5.23.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.simulator.laws.pool import DoesNotStart, Machine, Pool, laws, out_of_memory
from harness.simulator.memory import Part
from harness.units import GIB, MIB

INPUT_MARGIN = 5
"""Tokens that a prompt must be shorter than the longest request (tp_worker.py)."""

# GPU memory in GiB below which a row holds: chunk, largest decode graph with few and with 4 or more GPUs.
_TIERS = ((20, 2048, 8, 8), (35, 4096, 48, 160), (60, 4096, 32, 160), (90, 8192, 256, 512), (160, 8192, 256, 512))
_LARGEST = (16384, 512, 512)


@dataclass(frozen=True)
class SglangPlan:
    """What the server is told; None is left to it. Names are those of its flags, with underscores.

    chunked_prefill_size: -1 for prompts in one piece.
    """

    machine: Machine
    context_length: int | None = None
    mem_fraction_static: float | None = None
    max_total_tokens: int | None = None
    max_running_requests: int | None = None
    chunked_prefill_size: int | None = None
    max_prefill_tokens: int = 16384
    page_size: int = 1
    disable_cuda_graph: bool = False

    @property
    def context(self) -> int:
        return self.machine.shape.context if self.context_length is None else self.context_length

    @property
    def chunk(self) -> int:
        """Tokens of one prefill; -1 where prompts are not cut."""
        return _tier(self.machine)[0] if self.chunked_prefill_size is None else self.chunked_prefill_size

    @property
    def largest_graph(self) -> int:
        """Requests of the largest decode batch with a CUDA graph."""
        largest = _tier(self.machine)[1]
        return largest if self.max_running_requests is None else min(largest, self.max_running_requests)

    @property
    def fraction(self) -> float:
        """mem_fraction_static, the default where none is given."""
        return default_fraction(self) if self.mem_fraction_static is None else self.mem_fraction_static


def _tier(machine: Machine) -> tuple[int, int]:
    memory = machine.gpu.memory_bytes / GIB
    for below, chunk, few, many in _TIERS:
        if memory < below:
            return chunk, few if machine.shards < 4 else many
    return _LARGEST[0], _LARGEST[1]


def default_fraction(plan: SglangPlan) -> float:
    """Share of the GPU for weights and KV cache: all but a reserve for one prefill, the graphs and the rest."""
    machine = plan.machine
    memory = machine.gpu.memory_bytes / MIB
    reserve = 512 + 1.5 * max(plan.chunk if plan.chunk > 0 else plan.max_prefill_tokens, 2048)
    reserve += machine.shards / 8 * 1024
    if not plan.disable_cuda_graph:
        reserve += 2 * plan.largest_graph
        reserve += 1.5 * 1024 if machine.shape.kv_lora else 8 * len(prefill_graph_sizes(plan))
    if memory > 60 * 1024:
        reserve = max(reserve, 10 * 1024)
    return round((memory - reserve) / memory, 3)


def decode_graph_sizes(plan: SglangPlan) -> tuple[int, ...]:
    """Batch sizes with a CUDA graph (srt/arg_groups/cuda_graph_hook.py)."""
    largest = plan.largest_graph
    sizes = [1, 2, 4, 8, 12, *range(16, 257, 8), *range(272, 512, 16), *range(512, largest + 1, 32)]
    kept = [size for size in sizes if size <= largest]
    return tuple(kept if largest in kept else [*kept, largest])


def prefill_graph_sizes(plan: SglangPlan) -> tuple[int, ...]:
    """Token counts of a prefill with a CUDA graph."""
    largest = plan.chunk
    if plan.max_total_tokens is not None:
        largest = min(largest, plan.max_total_tokens)
    sizes = (
        *range(4, 33, 4), *range(48, 257, 16), *range(288, 513, 32), *range(576, 1025, 64), *range(1280, 4097, 256),
        *range(4608, largest + 1, 512),
    )  # fmt: skip
    return tuple(size for size in sizes if size <= largest)


def sglang_pool(plan: SglangPlan) -> Pool | DoesNotStart:
    """The KV cache, or why there is none. Raises UsageError for shards that do not divide the heads."""
    machine, world = plan.machine, plan.machine.world
    machine.check_shards()
    before = machine.free_at_start
    share = 0.0 if world.fragmentation is None else world.fragmentation
    loaded = tuple(
        part
        for part in (
            Part("weights", machine.weights),
            Part("fragmentation", round(machine.weights * share)),
            Part("collectives", _collectives(machine)),
            Part("extra at load", world.extra_at_load_bytes),
        )
        if part.bytes
    )
    taken = sum(part.bytes for part in loaded)
    if taken > before:
        text = f"torch.OutOfMemoryError: {out_of_memory(machine.total, taken - before)}"
        return DoesNotStart("load", text, loaded, taken - before, machine.total)
    reserve = round(before * (1 - plan.fraction))
    available = before - taken - reserve
    if available <= 0:
        least = 1 - (before - taken) / before
        text = (
            "ValueError: Loaded weights leave no GPU memory for the KV cache under"
            f" --mem-fraction-static={plan.fraction}. Raise --mem-fraction-static above"
            f" {math.ceil(least * 1000) / 1000:.3f} (minimum viable = 1 - available/pre = {least:.4f}). If using"
            " speculative decoding, draft weights are now counted."
        )
        return DoesNotStart("warmup", text, (*loaded, Part("reserve", reserve)), -available, machine.total)
    return _tokens(plan, loaded, available, reserve)


def _collectives(machine: Machine) -> int:
    if machine.shards == 1:
        return 0
    if machine.world.collective_bytes is not None:
        return machine.world.collective_bytes
    return round(laws()["sglang"]["collective_gib"]["nvlink" if machine.nvlink else "pcie"] * GIB)


def _tokens(plan: SglangPlan, loaded: tuple[Part, ...], available: int, reserve: int) -> Pool | DoesNotStart:
    machine, page = plan.machine, plan.page_size
    tokens = available // max(1, machine.kv_bytes)  # a shape by hand may have no KV cache at all
    if plan.max_total_tokens is not None:
        tokens = min(tokens, plan.max_total_tokens)
    tokens = tokens // page * page
    if tokens <= 0:
        text = (
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current value:"
            f" mem_fraction_static={plan.fraction}"
        )
        return DoesNotStart("warmup", text, loaded, machine.kv_bytes * page - available, machine.total)
    longest = min(plan.context, tokens) - 1
    by_size = max(min(int(tokens / plan.context * 512), 4096), 2048)
    rows = min(by_size if plan.max_running_requests is None else plan.max_running_requests, tokens // 2)
    used = tokens * machine.kv_bytes
    return Pool(
        tokens=tokens,
        usable_tokens=tokens,
        blocks=tokens // page,
        block_size=page,
        context=longest,
        max_prompt=longest - INPUT_MARGIN,
        rows=rows,
        step_tokens=plan.chunk if plan.chunk > 0 else plan.max_prefill_tokens,
        bytes_per_token=machine.kv_bytes,
        parts=(
            *loaded,
            Part("KV cache", used),
            Part("activations and graphs", reserve),
            Part("left over", available - used),
        ),
        available_bytes=available,
        total_bytes=machine.total,
    )
