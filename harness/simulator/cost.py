"""How long one forward takes, from the GPU's data sheet and the model's shape.

A roofline per forward: arithmetic over the GPU's sustained throughput, bytes over its sustained bandwidth, and their
sum in a norm, because a kernel hides only part of one behind the other. Beside it: all-reduces between shards, the
time to launch kernels where no CUDA graph replays them, and what the server's own code costs per step.

    linear layers     2 FLOP per weight and token (the output head only for rows that need a next token)
    attention         4 L a d q (p + q/2) for q new tokens after p cached ones; keys and values are read once per row
    weights           read once per forward; of experts those that the tokens hit: E (1 - (1 - k/E)^T), uniform routing
    all-reduce        two per layer of T h values in a ring: 2 (n - 1)/n of the bytes over the link, 2 (n - 1) hops
    (Kaplan et al. 2020, section 2.1; Pope et al. 2022, "Efficiently scaling transformer inference"; NCCL's ring)

The constants are in coefficients.yaml.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from harness.catalog.gpus import Gpu
from harness.catalog.shapes import (
    ModelShape,
    bytes_per_weight,
    dtype_bytes,
    expert_parameters,
    kv_bytes_per_token,
    parameter_counts,
)
from harness.simulator.memory import ResolvedPlan, coefficients
from harness.simulator.scheduler import StepShape
from harness.simulator.version import Release
from harness.simulator.world import World


@dataclass(frozen=True)
class Host:
    """What the serving software adds to a forward, in seconds.

    step, row: per forward and per row of it, outside the GPU: bookkeeping, sampling, detokenising. graph_layer:
    gaps between the kernels of a layer on the GPU, which a CUDA graph leaves too. eager_layer: what the CPU needs to
    launch a layer's kernels without one. request, request_per_1000: router and tokenizer before a request can be
    queued, and that per 1000 prompt tokens. graphs: batch sizes that have a CUDA graph.
    """

    step: float
    row: float
    graph_layer: float
    eager_layer: float
    request: float
    request_per_1000: float
    graphs: tuple[int, ...]


@dataclass(frozen=True)
class Split:
    """One forward's time by cause, in seconds. total is less than the sum where one hides behind another."""

    compute: float
    memory: float
    communication: float
    launch: float
    step: float
    total: float


class CostModel:
    """Seconds per forward of one model on one kind of GPU.

    sizes: bytes of weights are those of `quantize` and `dtype`, unless `weight_width` says how many one takes; the KV
    cache has `kv_cache_dtype`.
    """

    def __init__(
        self,
        shape: ModelShape,
        gpu: Gpu,
        host: Host,
        *,
        shards: int = 1,
        quantize: str | None = None,
        dtype: str | None = None,
        kv_cache_dtype: str | None = None,
        weight_width: float | None = None,
        world: World | None = None,
    ) -> None:
        world = world or World()
        constants = coefficients()["cost"]
        self.host, self.shards, self._shape, self._world = host, shards, shape, world
        kernel = _kernel(constants, quantize)
        self._flops = _sustained_flops(constants, gpu, quantize) * kernel["compute"] * world.compute_factor
        self._attention_flops = gpu.fp16_flops * _of_card(constants["attention_efficiency"], gpu) * world.compute_factor
        bandwidth = gpu.bandwidth * _of_card(constants["bandwidth_efficiency"], gpu) * world.bandwidth_factor
        self._weight_bandwidth, self._kv_bandwidth = bandwidth * kernel["bandwidth"], bandwidth
        self._norm = constants["overlap_norm"]
        self._link = gpu.link_bandwidth * _of_link(constants["link_efficiency"], gpu) * world.link_factor
        self._link_latency = 2 * (shards - 1) * _of_link(constants["link_hop_us"], gpu) * 1e-6
        self._random = random.Random(world.seed)
        width = weight_width
        if width is None:
            width = bytes_per_weight("gptq" if quantize == "gptq-triton" else quantize, dtype)
        self._set_sizes(shape, width, dtype, kv_cache_dtype)

    def _set_sizes(self, shape: ModelShape, width: float, dtype: str | None, kv_cache_dtype: str | None) -> None:
        counts = parameter_counts(shape)
        head = shape.vocab * shape.hidden
        expert_layers = shape.with_feed_forward - shape.layers_dense if shape.experts else 0
        active = counts.linear + expert_layers * shape.experts_per_token * expert_parameters(shape)
        self._token_flops = 2.0 * active / self.shards
        self._row_flops = 2.0 * head / self.shards
        self._dense_bytes = (counts.linear * width + head * dtype_bytes(dtype)) / self.shards
        self._expert_bytes = counts.experts * width / self.shards
        self._expert_miss = 1 - shape.experts_per_token / shape.experts if shape.experts else 1.0
        self._kv_bytes = float(kv_bytes_per_token(shape, kv_cache_dtype, self.shards, dtype))
        width_of_heads = shape.heads * (shape.head_dim + (shape.v_head_dim or shape.head_dim)) / 2
        self._pair_flops = 4.0 * shape.with_attention * width_of_heads / self.shards
        self._hidden_bytes = shape.hidden * dtype_bytes(dtype)
        self._windowed = shape.windowed_layers / shape.with_kv if shape.window else 0.0

    def seconds(self, step: StepShape) -> float:
        """Time of one forward, with the server's own share and the world's jitter."""
        total = self.split(step).total
        if self._world.jitter:
            total *= max(0.1, self._random.gauss(1.0, self._world.jitter))
        return total

    def request_seconds(self, input_tokens: int) -> float:
        """Router and tokenizer, before a request can be queued."""
        host = self.host
        return (host.request + host.request_per_1000 * input_tokens / 1000) * self._world.router_factor

    def split(self, step: StepShape) -> Split:
        """Time of one forward by cause, without jitter."""
        prompts, rows = step.prompts, step.rows
        graph = self._graph_for(rows) if not prompts else None
        tokens = step.tokens if graph is None else graph
        compute = tokens * self._token_flops + ((graph or rows) + len(prompts)) * self._row_flops
        compute /= self._flops
        memory = self._weights(tokens) / self._weight_bandwidth
        attended = self._attended(rows, step.context)
        pairs = float(attended)
        for new, cached in prompts:
            pairs += self._pairs(new, cached)
            attended += cached + new
        compute += pairs * self._pair_flops / self._attention_flops
        memory += attended * self._kv_bytes / self._kv_bandwidth
        norm = self._norm
        busy = (compute**norm + memory**norm) ** (1 / norm)
        communication = self._communication(tokens)
        layers, factor = self._shape.layers, self._world.launch_factor
        launch = layers * self.host.graph_layer * factor
        host = (self.host.step + self.host.row * (rows + len(prompts))) * factor
        total = busy + communication + launch
        if graph is None:
            # The CPU launches ahead while the GPU works: the slower of the two counts.
            launch = layers * self.host.eager_layer * factor
            total = max(total, launch)
        total += host
        return Split(compute, memory, communication, launch, host, total)

    def _graph_for(self, rows: int) -> int | None:
        """Rows of the smallest captured graph that holds these (flash_causal_lm.py:1792-1800)."""
        return min((size for size in self.host.graphs if size >= rows), default=None)

    def _weights(self, tokens: int) -> float:
        if not self._expert_bytes:
            return self._dense_bytes
        return self._dense_bytes + self._expert_bytes * (1 - self._expert_miss**tokens)

    def _attended(self, rows: int, context: int) -> float:
        """Tokens that rows attend to, layers with a window counted as what they see. By the mean row."""
        if not self._windowed or not rows:
            return context
        mean = context / rows
        return rows * (mean * (1 - self._windowed) + min(mean, self._shape.window) * self._windowed)

    def _pairs(self, new: int, cached: int) -> float:
        pairs = new * (cached + new / 2)
        if not self._windowed:
            return pairs
        return pairs * (1 - self._windowed) + min(pairs, new * self._shape.window) * self._windowed

    def _communication(self, tokens: int) -> float:
        if self.shards == 1:
            return 0.0
        size = 2 * (self.shards - 1) / self.shards * tokens * self._hidden_bytes
        return 2 * self._shape.layers * (size / self._link + self._link_latency)


def engine_host(
    engine: str, graphs: tuple[int, ...], release: Release | None = None, *, sampling: bool = False
) -> Host:
    """An engine's own share of a forward.

    graphs: captured batch sizes. release: of TGI, None for the latest. sampling: rows sample instead of taking the
    likeliest token.
    """
    hosts = coefficients()["cost"]["hosts"]
    if engine == "tgi" and release is not None and release < (2, 0):
        engine = "tgi-1"
    sheet = hosts.get(engine, hosts["tgi"])
    return Host(
        step=sheet["step_ms"] * 1e-3,
        row=(sheet["row_us"] + (sheet["sampled_row_us"] if sampling else 0)) * 1e-6,
        graph_layer=sheet["graph_layer_us"] * 1e-6,
        eager_layer=sheet["eager_layer_us"] * 1e-6,
        request=sheet["request_ms"] * 1e-3,
        request_per_1000=sheet["request_per_1000_ms"] * 1e-3,
        graphs=graphs,
    )


def kernel_of(release: Release, quantize: str | None, shards: int) -> str | None:
    """The kernel family that serves these weights, for the constants; `quantize` itself but for old sharded GPTQ."""
    return "gptq-triton" if quantize == "gptq" and shards > 1 and release < (2, 0) else quantize


def cost_of(resolved: ResolvedPlan, world: World | None = None, *, graphs_captured: bool = True) -> CostModel:
    """The cost model of a resolved plan of TGI."""
    plan = resolved.plan
    graphs = resolved.cuda_graphs if graphs_captured and not resolved.padded else ()
    return CostModel(
        plan.shape,
        plan.gpu,
        engine_host("tgi", graphs, plan.release),
        shards=plan.shards,
        quantize=kernel_of(plan.release, resolved.quantize, plan.shards),
        dtype=plan.dtype,
        kv_cache_dtype=plan.kv_cache_dtype,
        world=world,
    )


def _sustained_flops(constants: dict[str, Any], gpu: Gpu, quantize: str | None) -> float:
    """Arithmetic runs in fp8 where weights and card allow it, else at 16 bits after dequantisation."""
    fp8 = quantize == "fp8" and gpu.fp8_flops is not None
    peak = gpu.fp8_flops if fp8 and gpu.fp8_flops is not None else gpu.fp16_flops
    efficiency = _of_card(constants["compute_efficiency"], gpu)
    return peak * efficiency * (constants["fp8_compute"] if fp8 else 1.0)


def _kernel(constants: dict[str, Any], quantize: str | None) -> dict[str, float]:
    kernels: dict[str, dict[str, float]] = constants["kernels"]
    return kernels.get(quantize or "none", kernels["none"])


def _of_card(table: dict[str, float], gpu: Gpu) -> float:
    """By the card's name, else its architecture."""
    architecture = "{}.{}".format(*gpu.compute_capability)
    return table.get(gpu.name, table.get(architecture, table["default"]))


def _of_link(table: dict[str, float], gpu: Gpu) -> float:
    return table["nvlink" if gpu.link_bandwidth >= 100e9 else "pcie"]
