"""GPU memory of a TGI start: weights, KV cache, prefill peak -> the token budget and limits, or why it does not fit.

Follows the order of the server's warm-up (text_generation_server/models/flash_causal_lm.py:1507-1684 of TGI 3.3.7 and
the same function at the older tags): load the weights, allocate KV for a warm-up batch, run one prefill of it, and
offer to the KV cache what the driver then reports free, less a reserve. Memory that PyTorch cached during that prefill
counts as used, so a larger prefill budget leaves fewer KV tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from harness.catalog.config_json import config_from_shape
from harness.catalog.gpus import Gpu
from harness.catalog.shapes import (
    ModelShape,
    dtype_bytes,
    kv_bytes_per_token,
    layer_bytes,
    parameter_counts,
)
from harness.errors import UsageError
from harness.simulator import launcher
from harness.simulator.rust import wrapping_sub
from harness.simulator.version import (
    LATEST,
    MAIN_2023_07_19,
    Release,
    chunks_by_default,
    default_limits,
    logits_of_whole_prompt,
    parse_release,
    wiggle_room,
)
from harness.simulator.world import World
from harness.units import GIB, MIB, format_bytes


@dataclass(frozen=True)
class ServingPlan:
    """What is started: a model on a kind of GPU, and TGI's options where they are set. Names and units are TGI's.

    config: the model's config.json where it is at hand; without it the launcher's view follows from the shape.
    attention, prefix_caching, prefill_chunking, wiggle_room: the environment variables; None when unset.
    cuda_graphs: batch sizes; None for the default. weight_bytes: of the weights as they are loaded, a tied head once,
    where that is known better than from the shape. devices: what the environment names, for shards that are not given.
    """

    shape: ModelShape
    gpu: Gpu
    shards: int = 1
    version: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    kv_cache_dtype: str | None = None
    cuda_memory_fraction: float = 1.0
    wiggle_room: float | None = None
    attention: str | None = None
    prefix_caching: bool | None = None
    prefill_chunking: bool | None = None
    max_input_tokens: int | None = None
    max_total_tokens: int | None = None
    max_batch_prefill_tokens: int | None = None
    max_batch_total_tokens: int | None = None
    max_batch_size: int | None = None
    max_concurrent_requests: int | None = None
    speculate: int = 0
    cuda_graphs: tuple[int, ...] | None = None
    prefill_logprobs: bool = False
    lora_adapters: bool = False
    config: Mapping[str, Any] | None = None
    weight_bytes: int | None = None

    @property
    def release(self) -> Release:
        return parse_release(self.version)


@dataclass(frozen=True)
class ResolvedPlan:
    """A plan with everything decided that is decided before the weights are loaded."""

    plan: ServingPlan
    attention: str
    block_size: int
    prefix_cache: bool
    chunking: bool
    padded: bool
    quantize: str | None
    max_batch_prefill_tokens: int
    max_input_tokens: int | None
    max_total_tokens: int | None
    cuda_graphs: tuple[int, ...]
    wiggle_room: float


@dataclass(frozen=True)
class Part:
    """One addend of the sum that makes up a GPU's memory."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Budget:
    """The engine starts. tokens: its max batch total tokens, of which one block is never handed out.

    blocks: of block_size tokens. max_input_tokens, max_total_tokens: as set, or as the engine decides. parts: sum up to
    the GPU's memory as CUDA reports it, per GPU. used_bytes: what stays taken after the start. graphs_captured: False
    when CUDA graphs did not fit, which is only logged. measured: False for padded models, whose budget is not measured.
    """

    tokens: int
    blocks: int
    block_size: int
    max_input_tokens: int
    max_total_tokens: int
    max_batch_prefill_tokens: int
    kv_bytes_per_token: int
    warmup_tokens: int
    parts: tuple[Part, ...]
    used_bytes: int
    total_bytes: int
    graphs_captured: bool = True
    measured: bool = True

    @property
    def headroom_bytes(self) -> int:
        """Left for a forward's activations when all KV cache is allocated."""
        return self.total_bytes - self.used_bytes

    @property
    def usable_tokens(self) -> int:
        """What requests can hold together: block 0 is reserved."""
        return (self.blocks - 1) * self.block_size if self.measured else self.tokens


@dataclass(frozen=True)
class NotEnoughMemory:
    """The engine does not start. stage: `load` (weights) or `warmup`. text: the exception's text, as TGI's log has it.

    parts: what would have to fit at that moment, per GPU. missing_bytes: how much more memory it would have taken.
    """

    stage: Literal["load", "warmup"]
    text: str
    parts: tuple[Part, ...]
    missing_bytes: int
    total_bytes: int


@cache
def coefficients() -> dict[str, Any]:
    """The model's constants, from coefficients.yaml."""
    document: dict[str, Any] = yaml.safe_load(
        files("harness.simulator").joinpath("coefficients.yaml").read_text(encoding="utf-8")
    )
    return document


def resolve(plan: ServingPlan) -> ResolvedPlan:
    """What launcher and shard decide from the options, the model's configuration and the card's name."""
    config = _launcher_config(plan)
    attention, prefix_cache = _attention(plan, config)
    chunking = _chunking(plan, attention)
    max_input, max_total, prefill = _limits(plan, config)
    quantize = plan.quantize or (config.quantize if config is not None else None)
    given = None if plan.cuda_graphs is None else list(plan.cuda_graphs)
    graphs = launcher.resolve_cuda_graphs(given, quantize)[0] if plan.release >= (2, 0) else []
    return ResolvedPlan(
        plan=plan,
        attention=attention,
        block_size=launcher.BLOCK_SIZES[attention],
        prefix_cache=prefix_cache,
        chunking=chunking,
        padded=plan.shape.model_type in launcher.PADDED_MODELS,
        quantize=quantize,
        max_batch_prefill_tokens=prefill,
        max_input_tokens=max_input,
        max_total_tokens=max_total,
        cuda_graphs=tuple(graphs),
        wiggle_room=plan.wiggle_room if plan.wiggle_room is not None else wiggle_room(plan.release),
    )


def _launcher_config(plan: ServingPlan) -> launcher.LauncherConfig | None:
    if plan.config is None:
        config = config_from_shape(plan.shape)
        if plan.quantize in ("awq", "gptq", "exl2", "compressed-tensors"):
            # Such weights come with a config.json that says so.
            config["quantization_config"] = {"quant_method": plan.quantize}
        return launcher.read_config(config)
    try:
        return launcher.read_config(plan.config)
    except launcher.Unreadable:
        return None


def _attention(plan: ServingPlan, config: launcher.LauncherConfig | None) -> tuple[str, bool]:
    rocm = plan.gpu.compute_capability == (0, 0) and plan.attention is None
    if plan.release < (2, 3) or rocm:
        # The ROCm image sets ATTENTION=paged PREFIX_CACHING=0 PREFILL_CHUNKING=0 (Dockerfile_amd).
        return "paged", False
    caching = None if plan.prefix_caching is None else "1" if plan.prefix_caching else "0"
    choice = launcher.resolve_attention(
        config,
        None if plan.gpu.compute_capability == (0, 0) else plan.gpu.compute_capability,
        attention=plan.attention,
        prefix_caching=caching,
        lora_adapters=plan.lora_adapters,
    )
    attention = choice.attention
    if attention not in launcher.BLOCK_SIZES:
        raise UsageError(f"unknown attention {attention!r}", advice=f"Known: {', '.join(launcher.BLOCK_SIZES)}.")
    return attention, choice.prefix_caching.lower() in ("1", "true") and attention != "paged"


def _chunking(plan: ServingPlan, attention: str) -> bool:
    switched_on = chunks_by_default(plan.release) if plan.prefill_chunking is None else plan.prefill_chunking
    if plan.shape.model_type in launcher.PADDED_MODELS:
        return False
    return launcher.supports_chunking(
        plan.shape.model_type, attention, speculate=plan.speculate, switched_on=switched_on
    )


def _limits(plan: ServingPlan, config: launcher.LauncherConfig | None) -> tuple[int | None, int | None, int]:
    max_input, max_total, prefill = default_limits(plan.release, plan.shape.context, plan.max_input_tokens)
    if prefill is None:
        memory_mib = plan.gpu.memory_bytes // MIB
        card = plan.gpu.smi_name if plan.gpu.compute_capability != (0, 0) else None
        prefill = launcher.default_prefill(
            config,
            card,
            memory_mib if card is not None else None,
            plan.shards,
            memory_fraction=plan.cuda_memory_fraction,
            wiggle_room=plan.wiggle_room,
        ).tokens
    return (
        max_input if plan.max_input_tokens is None else plan.max_input_tokens,
        max_total if plan.max_total_tokens is None else plan.max_total_tokens,
        prefill if plan.max_batch_prefill_tokens is None else plan.max_batch_prefill_tokens,
    )


def warmup_requests(
    prefill: int,
    max_input: int | None,
    max_total: int | None,
    max_batch_size: int | None = None,
    release: Release = LATEST,
) -> list[tuple[int, int]]:
    """The warm-up batch: (prompt tokens, new tokens) of each request (client/grpc_client.rs:109-215).

    The difference of two u32 wraps: with max_total below the prompt the shard is asked for some 4 billion new tokens.
    """
    requests: list[tuple[int, int]] = []
    filled = 0
    while filled < prefill:
        prompt = prefill - filled if max_input is None else min(max_input, prefill - filled)
        new = 1 if max_total is None else wrapping_sub(max_total, prompt)
        if release < (1, 3):
            new = 2
        requests.append((prompt, new))
        filled += max(1, prompt)
        if len(requests) == max_batch_size:
            break
    return requests


@dataclass(frozen=True)
class WeightBytes:
    """What one shard loads (layers/tensor_parallel.py): the head is a tensor of its own even when it is tied."""

    layers: int
    embedding: int
    head: int

    @property
    def total(self) -> int:
        return self.layers + self.embedding + self.head


def loaded_weights(
    shape: ModelShape, quantize: str | None, dtype: str | None, shards: int, weight_bytes: int | None = None
) -> WeightBytes:
    """Bytes of the weights on one GPU. weight_bytes: of all of them, where it is known.

    The embedding is split by rows and padded by one; a head whose rows do not divide stays whole on every shard; norms
    are replicated.
    """
    counts, width = parameter_counts(shape), dtype_bytes(dtype)
    layers = layer_bytes(counts, quantize, dtype) / shards
    rows = -(-shape.vocab // shards) + 1
    head_rows = shape.vocab // shards if shape.vocab % shards == 0 else shape.vocab
    replicated = (counts.small + counts.vision) * width
    if weight_bytes is not None:
        outside = (counts.embedding + counts.head) * width
        layers = max(0, weight_bytes - outside - replicated) / shards
    return WeightBytes(
        layers=round(layers) + replicated,
        embedding=rows * shape.hidden * width,
        head=head_rows * shape.hidden * width,
    )


def activation_bytes_per_token(shape: ModelShape, dtype: str | None = None, shards: int = 1) -> float:
    """Memory that PyTorch holds per token of a prefill, one layer's worth, since each layer reuses it.

    Feed-forward: gate and up together (2f), the activated gate (f) and their product (f), split over shards; attention:
    queries, keys, values; four buffers of the hidden size. Experts: the fused kernel's buffers for every chosen expert.
    """
    attention = (shape.heads + 2 * shape.kv_heads) * shape.head_dim / shards
    wide = (
        (4 if shape.gated else 2) * max(shape.intermediate_dense, 0 if shape.experts else shape.intermediate) / shards
    )
    chosen = shape.experts_per_token
    routed = chosen * 3 * shape.intermediate / shards + chosen * shape.hidden if shape.experts else 0
    return (attention + max(wide, routed) + 4 * shape.hidden) * dtype_bytes(dtype)


@dataclass(frozen=True)
class PrefillPeak:
    """Bytes that one prefill takes. held: at one moment. cached: what PyTorch keeps if it can, freed blocks too."""

    held: int
    cached: int


def prefill_peak(resolved: ResolvedPlan, world: World, tokens: int, rows: int) -> PrefillPeak:
    """Memory of a prefill of `tokens` tokens in `rows` requests, beyond weights and KV cache."""
    plan = resolved.plan
    shape, width = plan.shape, dtype_bytes(plan.dtype)
    per_token = world.activation_bytes_per_token
    if per_token is None:
        per_token = activation_bytes_per_token(shape, plan.dtype, plan.shards)
    activations = tokens * per_token
    buffers = logits_of_whole_prompt(plan.release, plan.prefill_logprobs)
    logits = tokens * shape.vocab * width * buffers
    # A shard's own columns, gathered into the logits and then freed.
    gathered = tokens * shape.vocab * width / plan.shards if buffers and plan.shards > 1 else 0
    sampling = rows * shape.vocab * coefficients()["memory"]["sampling_bytes"]
    hidden = tokens * shape.hidden * width
    # Before 1.4.1 TORCH_NCCL_AVOID_RECORD_STREAMS was not set: outputs of all-reduces pile up while the CPU runs ahead.
    piled = 2 * shape.layers * hidden if plan.shards > 1 and plan.release < (1, 4, 1) else 0
    return PrefillPeak(
        held=round(max(activations, logits + hidden) + sampling),
        cached=round(activations + logits + gathered + sampling + piled),
    )


def budget(plan: ServingPlan, world: World | None = None) -> Budget | NotEnoughMemory:
    """The token budget and limits of a start, or the failure with its text.

    The router then takes the smallest budget over shards; they are alike here. Raises UsageError for shards that do not
    divide the heads.
    """
    world = world or World()
    _check_shards(plan)
    resolved = resolve(plan)
    loaded = _loaded(resolved, world)
    total = _visible(plan, world)
    missing = _missing(loaded, total, plan.cuda_memory_fraction)
    if missing > 0:
        return NotEnoughMemory("load", _out_of_memory(total, missing), loaded, missing, total)
    if resolved.padded:
        return _padded_budget(resolved, loaded, total)
    return _warm_up(resolved, world, loaded, total)


def _check_shards(plan: ServingPlan) -> None:
    """The server refuses heads that do not divide; a single KV head is replicated (flash_causal_lm.py:1283-1295)."""
    for name, heads in (("attention heads", plan.shape.heads), ("KV heads", plan.shape.kv_heads)):
        if heads % plan.shards and not (name == "KV heads" and heads == 1):
            raise UsageError(
                f"{heads} {name} do not divide by {plan.shards} shards",
                where=plan.shape.name,
                advice="Take a number of GPUs that divides both heads and KV heads.",
            )


def _visible(plan: ServingPlan, world: World) -> int:
    return plan.gpu.visible_bytes if world.visible_bytes is None else world.visible_bytes


# Parts that PyTorch does not allocate, and which its per-process limit therefore does not count.
_OUTSIDE_TORCH = ("other processes", "CUDA context", "NCCL")

_NVLINK = 100e9
"""Links of at least this many bytes/s are not PCIe."""


def _loaded(resolved: ResolvedPlan, world: World) -> tuple[Part, ...]:
    """What is taken when the weights are loaded."""
    plan, constants = resolved.plan, coefficients()["memory"]
    weights = loaded_weights(plan.shape, resolved.quantize, plan.dtype, plan.shards, plan.weight_bytes)
    context = _context_gib(plan.release) * GIB
    collective = _collective_gib(plan) * GIB if plan.shards > 1 else 0
    share = constants["fragmentation"] if world.fragmentation is None else world.fragmentation
    workspace = constants["flashinfer_workspace_mib"] * MIB if resolved.attention == "flashinfer" else 0
    parts = (
        Part("other processes", world.used_by_others),
        Part("CUDA context", round(context if world.context_bytes is None else world.context_bytes)),
        Part(
            "NCCL", round(collective if world.collective_bytes is None or plan.shards == 1 else world.collective_bytes)
        ),
        Part("weights of the layers", weights.layers),
        Part("embedding", weights.embedding),
        Part("output head", weights.head),
        Part("fragmentation", round(weights.total * share)),
        Part("attention workspace", workspace),
        Part("extra at load", world.extra_at_load_bytes),
    )
    return tuple(part for part in parts if part.bytes)


def _context_gib(release: Release) -> float:
    eras = coefficients()["memory"]["context_gib"]
    era = "since_2_3" if release >= (2, 3) else "before_2_3" if release >= (2, 0) else "before_2_0"
    return float(eras[era])


def _collective_gib(plan: ServingPlan) -> float:
    era = "since_2_0" if plan.release >= (2, 0) else "before_2_0"
    link = "nvlink" if plan.gpu.link_bandwidth >= _NVLINK else "pcie"
    return float(coefficients()["memory"]["collective_gib"][era][link])


def _missing(parts: tuple[Part, ...], total: int, fraction: float) -> int:
    """Bytes by which these parts exceed the GPU, or PyTorch's share of it; not above 0 when they fit."""
    everything = sum(part.bytes for part in parts)
    torch = sum(part.bytes for part in parts if part.name not in _OUTSIDE_TORCH)
    return max(everything - total, torch - int(fraction * total))


def _warm_up(resolved: ResolvedPlan, world: World, loaded: tuple[Part, ...], total: int) -> Budget | NotEnoughMemory:
    plan = resolved.plan
    block_bytes = resolved.block_size * kv_bytes_per_token(plan.shape, plan.kv_cache_dtype, plan.shards, plan.dtype)
    requests = warmup_requests(
        resolved.max_batch_prefill_tokens,
        resolved.max_input_tokens,
        resolved.max_total_tokens,
        plan.max_batch_size,
        plan.release,
    )
    blocks = sum(-(-(prompt + new - 1 + plan.speculate) // resolved.block_size) for prompt, new in requests)
    tokens = sum(prompt for prompt, _ in requests)
    if plan.release < MAIN_2023_07_19:
        blocks = -(-(plan.max_batch_total_tokens or 16_000) // resolved.block_size) + 10
    cache = (*loaded, Part("KV cache of the warm-up", blocks * block_bytes))
    missing = _missing(cache, total, plan.cuda_memory_fraction)
    if missing > 0:
        return NotEnoughMemory("warmup", _kv_failure(resolved, tokens), cache, missing, total)
    peak = prefill_peak(resolved, world, tokens, len(requests))
    held = (*cache, Part("prefill of the warm-up", peak.held))
    missing = _missing(held, total, plan.cuda_memory_fraction)
    if missing > 0:
        return NotEnoughMemory("warmup", _prefill_failure(resolved, tokens), held, missing, total)
    room = -_missing(cache, total, plan.cuda_memory_fraction)
    cached = max(peak.held, min(peak.cached, room))
    offered = _offered(resolved, loaded, total, blocks * block_bytes, cached)
    if plan.release < MAIN_2023_07_19:
        blocks -= 10
    else:
        blocks += int(offered // block_bytes)
    return _finish(resolved, loaded, total, blocks, block_bytes, tokens, cached)


def _offered(resolved: ResolvedPlan, loaded: tuple[Part, ...], total: int, warmup: int, cached: int) -> float:
    """Bytes offered to the KV cache beyond the warm-up batch, by the formula of the release."""
    plan = resolved.plan
    free = total - sum(part.bytes for part in loaded) - warmup - cached
    fraction, wiggle = plan.cuda_memory_fraction, resolved.wiggle_room
    if plan.release == MAIN_2023_07_19:
        reserved = sum(part.bytes for part in loaded if part.name not in _OUTSIDE_TORCH) + warmup + cached
        return max(0.0, 0.98 * total - reserved)
    if plan.release >= (3, 0):
        return max(0.0, free - (1 - fraction * wiggle) * total)
    return max(0.0, free - (1 - fraction) * total) * wiggle


def _finish(
    resolved: ResolvedPlan,
    loaded: tuple[Part, ...],
    total: int,
    blocks: int,
    block_bytes: int,
    warmup_tokens: int,
    cached: int,
) -> Budget:
    plan, size = resolved.plan, resolved.block_size
    max_total = resolved.max_total_tokens
    if max_total is None:
        max_total = min(blocks * size, plan.shape.context) if resolved.chunking else warmup_tokens
    max_input = max_total - 1 if resolved.max_input_tokens is None else resolved.max_input_tokens
    used = sum(part.bytes for part in loaded) + blocks * block_bytes
    graphs = _graph_bytes(resolved, max_total)
    captured = used + graphs <= total
    used += graphs if captured else 0
    parts = (
        *loaded,
        Part("prefill peak", cached),
        Part("KV cache", blocks * block_bytes),
        Part("reserve", total - sum(part.bytes for part in loaded) - blocks * block_bytes - cached),
    )
    return Budget(
        tokens=blocks * size,
        blocks=blocks,
        block_size=size,
        max_input_tokens=max_input,
        max_total_tokens=max_total,
        max_batch_prefill_tokens=resolved.max_batch_prefill_tokens,
        kv_bytes_per_token=block_bytes // size,
        warmup_tokens=warmup_tokens,
        parts=parts,
        used_bytes=used,
        total_bytes=total,
        graphs_captured=captured,
    )


def _graph_bytes(resolved: ResolvedPlan, max_total: int) -> int:
    """Memory of the captured CUDA graphs: the largest one's buffers, which the others share, and each one's kernels."""
    if not resolved.cuda_graphs:
        return 0
    largest = max(resolved.cuda_graphs)
    tables = largest * -(-max_total // resolved.block_size) * 4
    logits = largest * resolved.plan.shape.vocab * 2
    return tables + logits + len(resolved.cuda_graphs) * coefficients()["memory"]["cuda_graph_mib"] * MIB


def _kv_failure(resolved: ResolvedPlan, tokens: int) -> str:
    """From 3.0 on the handler of this failure fails itself, on a variable that is not yet set."""
    if resolved.plan.release < (3, 0):
        return _prefill_failure(resolved, tokens)
    return "cannot access local variable 'num_tokens' where it is not associated with a value"


def _prefill_failure(resolved: ResolvedPlan, tokens: int) -> str:
    if resolved.plan.release < MAIN_2023_07_19:
        total = resolved.plan.max_batch_total_tokens or 16_000
        return (
            f"Not enough memory to handle {total} total tokens with {tokens} prefill tokens. "
            "You need to decrease `--max-batch-total-tokens` or `--max-batch-prefill-tokens`"
        )
    return f"Not enough memory to handle {tokens} prefill tokens. You need to decrease `--max-batch-prefill-tokens`"


def _out_of_memory(total: int, missing: int) -> str:
    """PyTorch's text (2.7)."""
    return (
        f"CUDA out of memory. Tried to allocate {missing / MIB:.2f} MiB. GPU 0 has a total capacity of "
        f"{total / GIB:.2f} GiB of which 0 bytes is free. If reserved but unallocated memory is large try setting "
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory "
        "Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
    )


def _padded_budget(resolved: ResolvedPlan, loaded: tuple[Part, ...], total: int) -> Budget | NotEnoughMemory:
    """Padded models: one warm-up batch runs, nothing is measured, the option counts (models/model.py:132-142)."""
    plan = resolved.plan
    requests = warmup_requests(
        resolved.max_batch_prefill_tokens,
        resolved.max_input_tokens,
        resolved.max_total_tokens,
        plan.max_batch_size,
        plan.release,
    )
    length = max(prompt for prompt, _ in requests)
    peak = padded_bytes(resolved, len(requests), length, 1)
    held = (*loaded, Part("prefill of the warm-up", peak))
    missing = _missing(held, total, plan.cuda_memory_fraction)
    tokens = len(requests) * length
    if missing > 0:
        return NotEnoughMemory("warmup", _out_of_memory(total, missing), held, missing, total)
    max_total = resolved.max_total_tokens if resolved.max_total_tokens is not None else tokens
    max_input = max_total - 1 if resolved.max_input_tokens is None else resolved.max_input_tokens
    fallback = max(16_000, max_total, resolved.max_batch_prefill_tokens)
    allowed = plan.max_batch_total_tokens if plan.max_batch_total_tokens is not None else fallback
    used = sum(part.bytes for part in loaded)
    return Budget(
        tokens=allowed,
        blocks=allowed // resolved.block_size,
        block_size=resolved.block_size,
        max_input_tokens=max_input,
        max_total_tokens=max_total,
        max_batch_prefill_tokens=resolved.max_batch_prefill_tokens,
        kv_bytes_per_token=kv_bytes_per_token(plan.shape, None, plan.shards, plan.dtype),
        warmup_tokens=tokens,
        parts=(*loaded, Part("left for batches", total - used)),
        used_bytes=used,
        total_bytes=total,
        measured=False,
    )


def padded_bytes(resolved: ResolvedPlan, rows: int, length: int, new: int) -> int:
    """Memory of a padded batch at its largest: `rows` prompts of `length` tokens that grow by `new` tokens.

    At prefill the logits of every position and the attention scores of one layer are held beside the activations; at
    the end keys and values have their full length, and one layer's are copied while they grow.
    """
    plan = resolved.plan
    shape, width = plan.shape, dtype_bytes(plan.dtype)
    token = kv_bytes_per_token(shape, None, plan.shards, plan.dtype)
    prompts = rows * length
    scores = 2 * rows * shape.heads / plan.shards * length**2 * width
    activations = prompts * activation_bytes_per_token(shape, plan.dtype, plan.shards)
    logits = prompts * shape.vocab * width
    prefill = prompts * token + max(activations + scores, logits + prompts * shape.hidden * width)
    decode = rows * (length + new) * token * (1 + 1 / shape.layers) + rows * shape.vocab * 4 * width
    return round(max(prefill, decode))


def padded_batch_fits(plan: ServingPlan, world: World, rows: int, length: int, new: int) -> bool:
    """Whether a padded model survives this batch: its budget is whatever was set, so nothing protects it."""
    resolved = resolve(plan)
    parts = (*_loaded(resolved, world), Part("batch", padded_bytes(resolved, rows, length, new)))
    return _missing(parts, _visible(plan, world), plan.cuda_memory_fraction) <= 0


def largest_set_budget(plan: ServingPlan, world: World | None = None) -> int:
    """Tokens of the largest max batch total tokens that starts where nobody infers it (up to 0.9.3); 0 if none does."""
    world = world or World()
    resolved = resolve(plan)
    prompts = [
        prompt
        for prompt, _ in warmup_requests(
            resolved.max_batch_prefill_tokens, resolved.max_input_tokens, resolved.max_total_tokens, None, plan.release
        )
    ]
    peak = prefill_peak(resolved, world, sum(prompts), len(prompts))
    held = (*_loaded(resolved, world), Part("prefill of the warm-up", peak.held))
    token = kv_bytes_per_token(plan.shape, plan.kv_cache_dtype, plan.shards, plan.dtype)
    return max(0, -_missing(held, _visible(plan, world), plan.cuda_memory_fraction) // token)


def forward_fits(plan: ServingPlan, world: World, started: Budget, tokens: int, rows: int) -> bool:
    """Whether a forward of `tokens` tokens in `rows` rows fits beside the whole KV cache; if not, serving ends."""
    return prefill_peak(resolve(plan), world, tokens, rows).held <= started.headroom_bytes


def describe(outcome: Budget | NotEnoughMemory) -> str:
    """The sum with its parts, one line each, for people."""
    lines = [f"{format_bytes(part.bytes):>10}  {part.name}" for part in outcome.parts]
    lines.append(f"{format_bytes(outcome.total_bytes):>10}  GPU memory")
    if isinstance(outcome, NotEnoughMemory):
        lines.append(f"{format_bytes(outcome.missing_bytes):>10}  missing: {outcome.text}")
    return "\n".join(lines)
