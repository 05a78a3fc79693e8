"""Types that the memory laws share: the machine that a model is loaded on, and the outcome of a start."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from harness.catalog.gpus import Gpu
from harness.catalog.shapes import ModelShape, dtype_bytes, kv_cache_element_bytes, weight_bytes
from harness.errors import UsageError
from harness.simulator.memory import Part, coefficients
from harness.simulator.world import World
from harness.units import GIB, MIB

_NVLINK = 100e9
"""Links of at least this many bytes/s are not PCIe."""


@dataclass(frozen=True)
class Pool:
    """The KV cache of a start that comes up. Counts are tokens unless they say otherwise.

    tokens: its size as the engine's own log tells it. usable_tokens: what requests can get at once. blocks: of
    block_size tokens, those included that no request gets. context: longest request, prompt and answer; max_prompt:
    longest prompt. rows: requests that run at once; split: each has a share of its own. step_tokens: of one forward.
    parts: sum up to what the engine may take of one GPU, or to what it takes where it has no such share.
    available_bytes: for the KV cache. on_host: share of the layers that the GPU has no room for.
    """

    tokens: int
    usable_tokens: int
    blocks: int
    block_size: int
    context: int
    max_prompt: int
    rows: int
    step_tokens: int
    bytes_per_token: int
    parts: tuple[Part, ...]
    available_bytes: int
    total_bytes: int
    split: bool = False
    on_host: float = 0.0

    def part(self, name: str) -> int:
        """Bytes of the part of this name, 0 without one."""
        return sum(part.bytes for part in self.parts if part.name == name)


@dataclass(frozen=True)
class DoesNotStart:
    """Why it does not start. text: of the engine's own exception. stage: where it is then.

    longest: the longest request that would fit, where the engine names it. parts: what would have to fit.
    """

    stage: Literal["busy", "load", "warmup"]
    text: str
    parts: tuple[Part, ...]
    missing_bytes: int
    total_bytes: int
    longest: int | None = None


@dataclass(frozen=True)
class Machine:
    """A model on GPUs of one kind, in bytes per GPU. quantize: None for 16 bits; words are the catalogue's.

    weight_bytes: of all weights as they are loaded, where that is known better than from the shape.
    """

    shape: ModelShape
    gpu: Gpu
    shards: int = 1
    dtype: str | None = None
    quantize: str | None = None
    kv_cache_dtype: str | None = None
    world: World = field(default_factory=World)
    weight_bytes: int | None = None

    @property
    def total(self) -> int:
        """What CUDA reports as the GPU's memory."""
        return self.gpu.visible_bytes if self.world.visible_bytes is None else self.world.visible_bytes

    @property
    def context(self) -> int:
        """CUDA context and libraries of the process."""
        if self.world.context_bytes is not None:
            return self.world.context_bytes
        return round(laws()["context_gib"] * GIB)

    @property
    def free_at_start(self) -> int:
        """What is free when the process has its CUDA context."""
        return self.total - self.world.used_by_others - self.context

    @cached_property
    def weights(self) -> int:
        """Bytes of the weights as they are loaded. A tied head is not a tensor of its own."""
        if self.weight_bytes is not None:
            return self.weight_bytes // self.shards
        return weight_bytes(self.shape, self.quantize, self.dtype, self.shards)

    @property
    def width(self) -> int:
        """Bytes of one activation."""
        return dtype_bytes(self.dtype)

    @property
    def kv_bytes(self) -> int:
        """KV cache of one token, all layers at full length; of latent attention the compressed form is kept."""
        return self._kv_bytes_of(windowed=True) + self._kv_bytes_of(windowed=False)

    def kv_bytes_of_request(self, tokens: int, in_flight: int, block: int) -> int:
        """KV cache of one request of this many tokens where layers with a window free what they no longer look at.

        in_flight: tokens of steps that are not settled yet, whose blocks are held too; block: tokens of one block. What
        a chat keeps in layers without attention counts at 16 bits (v1/kv_cache_interface.py of vLLM 0.32,
        SlidingWindowSpec.max_admission_blocks_per_request, MambaSpec).
        """
        shape = self.shape
        whole = -(-tokens // block) * block * self._kv_bytes_of(windowed=False)
        held = tokens if not shape.window else min(tokens, shape.window - 1 + in_flight)
        held = -(-held // block) * block + (block if shape.window else 0)
        return whole + held * self._kv_bytes_of(windowed=True) + 2 * shape.state_values // self.shards

    def _kv_bytes_of(self, *, windowed: bool) -> int:
        """Of one token, in the layers that have a window or in the others."""
        shape, width = self.shape, kv_cache_element_bytes(self.kv_cache_dtype, self.dtype)
        if shape.kv_lora:  # the index's keys are kept at 8 bits with a scale for each 128 (DeepSeek V3.2)
            index = shape.index_head_dim + shape.index_head_dim // 128 * 4
            return 0 if windowed else shape.with_kv * ((shape.kv_lora + shape.rope_dim) * width + index)
        layers, heads, values = shape.caches[0 if windowed else 1]
        return layers * max(1, heads // self.shards) * values * width

    @property
    def nvlink(self) -> bool:
        return self.gpu.link_bandwidth >= _NVLINK

    def check_shards(self) -> None:
        """Raises UsageError for shards that do not divide the heads."""
        if self.shape.heads % self.shards:
            raise UsageError(
                f"{self.shape.heads} attention heads do not divide by {self.shards} GPUs",
                where=self.shape.name,
                advice="Take a number of GPUs that divides them.",
            )


def laws() -> dict[str, Any]:
    """The constants of these laws."""
    table: dict[str, Any] = coefficients()["laws"]
    return table


def out_of_memory(total: int, missing: int) -> str:
    """PyTorch's text."""
    return (
        f"CUDA out of memory. Tried to allocate {max(2.0, missing / MIB):.2f} MiB. GPU 0 has a total capacity of "
        f"{total / GIB:.2f} GiB of which 0 bytes is free. If reserved but unallocated memory is large try setting "
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory "
        "Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
    )


def gib(size: float) -> str:
    """As vLLM prints sizes: 45.67, 12.3, 6.0."""
    return str(round(size / GIB, 2))
