"""llama.cpp's memory: weights by file type, one pool for all slots by -c and -np, compute buffers; else it is fitted.

src/llama-context.cpp, tools/server/server-context.cpp and common/fit.cpp of build 11549, seen running on a CPU: how -c,
-np and --kv-unified set the sizes. Sizes of file types: tools/quantize/README.md. A compute buffer holds the logits of
one micro-batch: 304 MiB for a vocabulary of 152064 (llama-cpp-python issue 1945).
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.catalog.shapes import parameter_counts
from harness.errors import UsageError
from harness.simulator.laws.pool import DoesNotStart, Machine, Pool, laws
from harness.simulator.memory import Part
from harness.units import MIB

AUTO_SLOTS = 4
PADDING = 256
"""A slot's context is rounded up to a multiple of this."""

# Bits per weight of a whole file, embeddings included, as the project's own table of an 8B model has them.
FILE_TYPES = {
    "F32": 32.0,
    "F16": 16.0,
    "BF16": 16.0,
    "Q8_0": 8.50,
    "Q6_K": 6.56,
    "Q5_K_M": 5.70,
    "Q5_K_S": 5.57,
    "Q5_1": 6.00,
    "Q5_0": 5.54,
    "Q4_K_M": 4.89,
    "Q4_K_S": 4.67,
    "Q4_1": 5.15,
    "Q4_0": 4.66,
    "IQ4_NL": 4.68,
    "IQ4_XS": 4.46,
    "Q3_K_L": 4.30,
    "Q3_K_M": 4.00,
    "Q3_K_S": 3.64,
    "IQ3_M": 3.76,
    "IQ3_XS": 3.50,
    "Q2_K": 3.16,
    "IQ2_M": 2.93,
    "MXFP4": 4.25,
}

# Bytes per value: blocks of 32 with their scales (ggml/src/ggml-common.h).
CACHE_TYPES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}


@dataclass(frozen=True)
class LlamaPlan:
    """What `llama-server` is told; None is left to it.

    machine: its quantize does not count. file_type: of FILE_TYPES; weight_bytes: of the file itself where it is at
    hand. ctx_size: -c, 0 for the model's own; parallel: -np; unified: --kv-unified; per_slot: --kv-unified-per-slot.
    fit_target: bytes of the GPU that --fit leaves free; fit_ctx: the context that it does not go below.
    """

    machine: Machine
    file_type: str = "F16"
    weight_bytes: int | None = None
    ctx_size: int | None = None
    parallel: int | None = None
    unified: bool | None = None
    per_slot: int | None = None
    batch: int = 2048
    ubatch: int = 512
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    fit: bool = True
    fit_target: int = 1024 * MIB
    fit_ctx: int = 4096


@dataclass(frozen=True)
class Slots:
    """The pool as it is cut: `streams` shares of `cells` tokens, and what one slot may use."""

    count: int
    context: int
    cells: int
    streams: int

    @property
    def pool(self) -> int:
        return self.cells * self.streams


def slots_of(plan: LlamaPlan, ctx_size: int | None) -> Slots:
    """How these settings cut the pool. ctx_size: instead of the plan's own, after fitting."""
    count = plan.parallel or AUTO_SLOTS
    split = plan.parallel is not None and not plan.unified
    trained = plan.machine.shape.context
    size = ctx_size or (trained * count if split else trained)
    if plan.per_slot is not None:
        size = count * plan.per_slot
    cells = _padded(-(-size // count)) if split else _padded(size)
    most = cells if plan.per_slot is None else min(cells, plan.per_slot)
    return Slots(count, min(most, trained), cells, count if split else 1)


def _padded(size: int) -> int:
    return -(-size // PADDING) * PADDING


def kv_bytes_per_token(plan: LlamaPlan) -> float:
    """Keys and values of one token, in the layers that keep all of them."""
    shape = plan.machine.shape
    key, value = CACHE_TYPES[plan.cache_type_k], CACHE_TYPES[plan.cache_type_v]
    if shape.kv_lora:
        return shape.with_kv * (shape.kv_lora + shape.rope_dim) * key
    if shape.windowed_layers == shape.with_kv:
        return sum(layers * heads * values for layers, heads, values in shape.caches) * (key + value) / 2
    layers, heads, values = shape.caches[1]
    return layers * heads * values * (key + value) / 2


def window_bytes(plan: LlamaPlan, slots: Slots) -> float:
    """Of the layers with a window, kept for each slot and one micro-batch more (src/llama-kv-cache-iswa.cpp)."""
    shape = plan.machine.shape
    if shape.kv_lora or shape.windowed_layers == shape.with_kv:
        return 0.0
    per_stream = slots.count if slots.streams == 1 else 1
    cells = min(slots.cells, _padded(shape.window * per_stream + min(plan.ubatch, plan.batch)))
    layers, heads, values = shape.caches[0]
    both = CACHE_TYPES[plan.cache_type_k] + CACHE_TYPES[plan.cache_type_v]
    return layers * heads * values * both / 2 * cells * slots.streams


def gpu_weight_bytes(plan: LlamaPlan) -> int:
    """Weights on the GPU: the input embedding stays with the host; a tied one is there twice."""
    counts = parameter_counts(plan.machine.shape)
    total = counts.embedding + counts.head + counts.linear + counts.experts + counts.small
    size = plan.weight_bytes
    if size is None:
        size = round(total * FILE_TYPES[plan.file_type] / 8)
    return round(size * (1 - (0 if counts.head == 0 else counts.embedding / total)))


def compute_bytes(plan: LlamaPlan, cells: int) -> int:
    """The largest tensors of one micro-batch: its logits, or the attention mask beside a feed-forward."""
    shape, rows = plan.machine.shape, min(plan.ubatch, plan.batch)
    logits = rows * shape.vocab * 4
    wide = max(shape.intermediate_dense, shape.intermediate * max(1, shape.experts_per_token))
    forward = rows * (cells * 2 + (2 * wide + 2 * shape.hidden) * 4)
    return max(logits, forward) + laws()["llamacpp"]["compute_mib"] * MIB


def llama_pool(plan: LlamaPlan) -> Pool | DoesNotStart:
    """The pool of all slots, or why there is none. Raises UsageError for an unknown type."""
    _check_types(plan)
    free = plan.machine.free_at_start
    slots = slots_of(plan, plan.ctx_size)
    if plan.fit and not plan.ctx_size and plan.per_slot is None:
        slots = _fitted(plan, slots, free - plan.fit_target)
    parts = _parts(plan, slots)
    missing = sum(part.bytes for part in parts) - free
    on_host = 0.0
    if plan.fit and missing + plan.fit_target > 0:
        # What --fit cannot take from the context it takes from the layers: with their weights and their cache.
        movable = sum(part.bytes for part in parts if part.name in ("weights", "KV cache"))
        on_host = min(1.0, (missing + plan.fit_target) / movable)
    elif missing > 0:
        return _too_large(plan, parts, missing)
    kv = kv_bytes_per_token(plan)
    return Pool(
        tokens=slots.pool,
        usable_tokens=slots.pool if slots.streams == 1 else slots.context * slots.streams,
        blocks=slots.streams,
        block_size=slots.cells,
        context=slots.context,
        max_prompt=slots.context - 1,
        rows=slots.count,
        step_tokens=plan.batch,
        bytes_per_token=round(kv),
        parts=parts,
        available_bytes=round(kv * slots.pool),
        total_bytes=plan.machine.total,
        split=slots.streams > 1,
        on_host=on_host,
    )


def _check_types(plan: LlamaPlan) -> None:
    if plan.weight_bytes is None and plan.file_type not in FILE_TYPES:
        raise UsageError(f"unknown GGUF type {plan.file_type!r}", advice=f"Known: {', '.join(FILE_TYPES)}.")
    for name in (plan.cache_type_k, plan.cache_type_v):
        if name not in CACHE_TYPES:
            raise UsageError(f"unknown cache type {name!r}", advice=f"Known: {', '.join(CACHE_TYPES)}.")


def _parts(plan: LlamaPlan, slots: Slots) -> tuple[Part, ...]:
    return (
        Part("weights", gpu_weight_bytes(plan) + plan.machine.world.extra_at_load_bytes),
        Part("KV cache", round(kv_bytes_per_token(plan) * slots.pool + window_bytes(plan, slots))),
        Part("compute buffer", compute_bytes(plan, slots.cells)),
    )


def _fitted(plan: LlamaPlan, slots: Slots, room: int) -> Slots:
    """With -c unset the context shrinks until all fits, but not below fit_ctx for all slots together."""
    taken = sum(part.bytes for part in _parts(plan, slots))
    if taken <= room:
        return slots
    surplus = -(-(taken - room) // max(1.0, kv_bytes_per_token(plan)))
    step = PADDING * slots.streams
    smaller = max(plan.fit_ctx, int((slots.pool - surplus) // step * step))
    return slots_of(plan, min(smaller, slots.pool))


def _too_large(plan: LlamaPlan, parts: tuple[Part, ...], missing: int) -> DoesNotStart:
    """The first buffer that finds no room, in the order in which they are allocated."""
    total, taken = plan.machine.total, 0
    for part in parts:
        taken += part.bytes
        if taken > plan.machine.free_at_start:
            text = (
                f"ggml_backend_cuda_buffer_type_alloc_buffer: allocating {part.bytes / MIB:.2f} MiB on device 0:"
                " cudaMalloc failed: out of memory"
            )
            return DoesNotStart("load" if part.name == "weights" else "warmup", text, parts, missing, total)
    raise AssertionError("nothing is missing")
