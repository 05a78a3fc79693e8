"""vLLM's memory: a share of the GPU, less weights, the peak of a profiled step and CUDA graphs, becomes blocks.

vllm/v1/worker/gpu_worker.py (determine_available_memory) and vllm/v1/core/kv_cache_planning.py of 0.32. The terms were
fitted to the 55 starts that llm-d-planner logged on H100 (accuracy/results/v0.19.0, 2026-04): the KV cache of dense
models comes out within 1 %, of mixtures of experts within 3 %. Since 0.21 the estimate of the graphs is taken off too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from harness.simulator.laws.pool import DoesNotStart, Machine, Pool, gib, laws, out_of_memory
from harness.simulator.memory import Part
from harness.units import GIB, MIB

BLOCK_SIZE = 16
AUTO = -1
"""`--max-model-len auto`: the longest that fits."""


@dataclass(frozen=True)
class VllmPlan:
    """What `vllm serve` is told; None is left to it. Names are those of its flags, with underscores.

    max_model_len: AUTO takes the longest that fits, None the model's own context.
    """

    machine: Machine
    max_model_len: int | None = None
    gpu_memory_utilization: float = 0.92
    kv_cache_memory_bytes: int | None = None
    num_gpu_blocks_override: int | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    block_size: int = BLOCK_SIZE
    enforce_eager: bool = False

    @property
    def context(self) -> int:
        """The longest request that is asked for."""
        own = self.machine.shape.context
        return own if self.max_model_len in (None, AUTO) else int(self.max_model_len or own)

    @property
    def step(self) -> tuple[int, int]:
        """Tokens of one step, and requests that run at once (engine/arg_utils.py, by the GPU)."""
        tokens, rows = self.max_num_batched_tokens, self.max_num_seqs
        by_default = default_step(self.machine)
        if tokens is None:
            tokens = by_default[0]
            tokens = min(tokens, (rows or by_default[1]) * self.context)
        if rows is None:
            rows = min(by_default[1], tokens)
        return tokens, rows


def default_step(machine: Machine) -> tuple[int, int]:
    """Defaults of max_num_batched_tokens and max_num_seqs."""
    gpu = machine.gpu
    if machine.total >= 160 * GIB:
        return 16384, 1024
    if machine.total >= 70 * GIB and "a100" not in gpu.smi_name.lower() and gpu.compute_capability != (12, 1):
        return 8192, 1024
    return 2048, 256


def graph_sizes(rows: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Batch sizes with a CUDA graph: for mixed steps and for decode alone (config/vllm.py)."""
    largest = min(2 * rows, 512)
    sizes = (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))
    mixed = tuple(size for size in sizes if size <= largest)
    return mixed, tuple(size for size in mixed if size <= rows)


def activation_bytes(machine: Machine, tokens: int, rows: int) -> int:
    """Peak of one profiled step: `tokens` tokens of `rows` requests whose next token is sampled.

    Logits are kept at 16 bits and in three copies at 32 bits, whole on every GPU. A dense feed-forward that takes more
    than they do is the peak instead; buffers of experts come on top.
    """
    shape, width = machine.shape, machine.width
    rows = min(rows, tokens)
    logits = rows * shape.vocab * (width + 12) + 2 * tokens * shape.hidden * width
    dense = max(shape.intermediate_dense, 0 if shape.experts else shape.intermediate)
    forward = tokens * (3 * dense / machine.shards + 3 * shape.hidden) * width
    if machine.world.activation_bytes_per_token is not None:
        forward = tokens * machine.world.activation_bytes_per_token
    chosen = shape.experts_per_token
    experts = tokens * chosen * (3 * shape.intermediate / machine.shards + shape.hidden) * width if chosen else 0
    return round(max(logits, forward) + experts + laws()["vllm"]["activation_mib"] * MIB)


def vllm_pool(plan: VllmPlan) -> Pool | DoesNotStart:
    """The KV cache, or why there is none. Raises UsageError for shards that do not divide the heads."""
    machine = plan.machine
    machine.check_shards()
    total, fraction = machine.total, plan.gpu_memory_utilization
    requested = math.ceil(total * fraction)
    if plan.kv_cache_memory_bytes is None and machine.free_at_start < requested:
        text = (
            f"Free memory on device cuda:0 ({gib(machine.free_at_start)}/{gib(total)} GiB) on startup is less than"
            f" desired GPU memory utilization ({fraction}, {gib(requested)} GiB). Decrease GPU memory utilization or"
            " reduce GPU memory used by other processes."
        )
        return DoesNotStart("busy", text, (), requested - machine.free_at_start, total)
    tokens, rows = plan.step
    loaded = _loaded(machine)
    missing = sum(part.bytes for part in loaded) - machine.free_at_start
    if missing > 0:
        return DoesNotStart("load", out_of_memory(total, missing), loaded, missing, total)
    graphs = 0 if plan.enforce_eager else _graph_bytes(machine, rows)
    parts = (
        *loaded,
        Part("activations of one step", activation_bytes(machine, tokens, rows)),
        Part("CUDA graphs", graphs),
    )
    taken = sum(part.bytes for part in parts)
    if taken - graphs > machine.free_at_start:
        missing = taken - graphs - machine.free_at_start
        return DoesNotStart("warmup", out_of_memory(total, missing), parts, missing, total)
    available = requested - taken if plan.kv_cache_memory_bytes is None else plan.kv_cache_memory_bytes
    return _blocks(plan, parts, available, requested)


def _loaded(machine: Machine) -> tuple[Part, ...]:
    """What is taken between the first look at the memory and the end of loading."""
    table, world = laws()["vllm"], machine.world
    share = 0.0 if world.fragmentation is None else world.fragmentation
    outside = round(table["outside_torch_gib"] * GIB)
    if machine.shards > 1:
        outside = round(table["collective_gib"]["nvlink" if machine.nvlink else "pcie"] * GIB)
        outside = outside if world.collective_bytes is None else world.collective_bytes
    return tuple(
        part
        for part in (
            Part("weights", machine.weights),
            Part("fragmentation", round(machine.weights * share)),
            Part("outside PyTorch", outside),
            Part("extra at load", world.extra_at_load_bytes),
        )
        if part.bytes
    )


def _graph_bytes(machine: Machine, rows: int) -> int:
    mixed, decode = graph_sizes(rows)
    each = laws()["vllm"]["graph_kib_per_layer"] * 1024
    return round((len(mixed) + len(decode)) * machine.shape.layers * each)


def _block_bytes(plan: VllmPlan) -> int:
    """Bytes for each block of a request of the full context; with windows or states that is less than for a short one.

    The KV cache that vLLM tells is what such requests get (kv_cache_utils.py, get_max_concurrency_for_kv_cache_config).
    """
    machine, size = plan.machine, plan.block_size
    shape = machine.shape
    mixed = 0 < shape.windowed_layers < shape.with_kv and shape.window < plan.context
    if plan.context <= 0 or not (mixed or shape.state_values):
        return size * machine.kv_bytes
    request = machine.kv_bytes_of_request(plan.context, plan.step[0], size)
    return max(1, -(-request // -(-plan.context // size)))


def _longest(plan: VllmPlan, available: int) -> int:
    """The longest request that fits, in whole blocks. Searched for, since layers with a window keep as much of a short
    one (kv_cache_utils.py, estimate_max_model_len).
    """
    size, low, high = plan.block_size, 0, -(-plan.context // plan.block_size)
    while low < high:
        middle = (low + high + 1) // 2
        block = _block_bytes(replace(plan, max_model_len=middle * size))
        low, high = (middle, high) if middle * block <= available - block else (low, middle - 1)
    return low * size


def _blocks(plan: VllmPlan, parts: tuple[Part, ...], available: int, requested: int) -> Pool | DoesNotStart:
    """Blocks out of what is left, and whether one request fits: one block is the null block."""
    machine, size = plan.machine, plan.block_size
    block = _block_bytes(plan)
    if plan.num_gpu_blocks_override is not None:
        available = plan.num_gpu_blocks_override * block
    total = machine.total
    if available - block <= 0:
        text = (
            "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the"
            " engine (this flag also controls CPU memory reservation on the CPU backend, despite its name). See"
            " https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."
        )
        return DoesNotStart("warmup", text, parts, block - available, total)
    blocks, context = available // block, plan.context
    # The check is one of bytes, less one whole block.
    if plan.max_model_len == AUTO:
        context = min(context, _longest(plan, available))
    needed = -(-context // size) * block
    if context <= 0 or needed > available - block:
        longest = _longest(plan, available)
        text = (
            f"To serve at least one request with the model's max seq len ({context}), ({gib(needed)} GiB KV cache is"
            f" needed, which is larger than the available KV cache memory ({gib(available - block)} GiB). "
        )
        if longest > 0:
            text += f"Based on the available memory, the estimated maximum model length is {longest}. "
        text += (
            "Try increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU backend) or decreasing"
            " `max_model_len` when initializing the engine. See"
            " https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."
        )
        if plan.max_model_len == AUTO:
            text = (
                "Cannot auto-fit max_model_len: not enough GPU memory available to serve even a single token. Try"
                " increasing `gpu_memory_utilization`."
            )
        return DoesNotStart("warmup", text, parts, needed - (available - block), total, longest or None)
    tokens, rows = plan.step
    told = int(blocks / -(-context // size) * context)
    left = requested - sum(part.bytes for part in parts) - blocks * block
    return Pool(
        tokens=told,
        usable_tokens=(blocks - 1) * size,
        blocks=blocks,
        block_size=size,
        context=context,
        max_prompt=context,
        rows=rows,
        step_tokens=tokens,
        bytes_per_token=block // size,
        parts=(*parts, Part("KV cache", blocks * block), Part("left over", max(0, left))),
        available_bytes=available,
        total_bytes=total,
    )
