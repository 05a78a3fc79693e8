"""World: what is true of one machine beyond the data sheets; every physical quantity of the model can be set here.

The emulator takes a World that may differ from the model's own assumptions, so that a prober is not graded by the very
formulas it guesses with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from harness.errors import UsageError


@dataclass(frozen=True)
class World:
    """Overrides; None leaves a quantity to the model. Bytes, and factors that multiply.

    visible_bytes: what CUDA reports as the GPU's total. used_by_others: taken by other processes on each GPU.
    context_bytes: CUDA context, libraries and kernels, which PyTorch does not count. collective_bytes: NCCL, per GPU
    when sharded. fragmentation: share of the weights lost in the allocator. activation_bytes_per_token: of a prefill.
    extra_at_load_bytes: memory that nobody's model knows of. compute_factor, bandwidth_factor, link_factor: the
    hardware's speed over the data sheet's. launch_factor: time of launching kernels. router_factor: time of router and
    tokenizer. jitter: standard deviation of a step's time over its mean; seed: of that jitter.
    """

    visible_bytes: int | None = None
    used_by_others: int = 0
    context_bytes: int | None = None
    collective_bytes: int | None = None
    fragmentation: float | None = None
    activation_bytes_per_token: float | None = None
    extra_at_load_bytes: int = 0
    compute_factor: float = 1.0
    bandwidth_factor: float = 1.0
    link_factor: float = 1.0
    launch_factor: float = 1.0
    router_factor: float = 1.0
    jitter: float = 0.0
    seed: int = 0


def world_from_mapping(entries: Mapping[str, Any], where: str = "scenario") -> World:
    """A World from a scenario file's section. Raises UsageError for an unknown key or a value that is not a number."""
    known = {field.name for field in fields(World)}
    for key, value in entries.items():
        if key not in known:
            raise UsageError(f"unknown key {key!r}", where=where, advice=f"Known: {', '.join(sorted(known))}.")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise UsageError(f"expected a number of at least 0, found {value!r}", where=f"{where}/{key}")
    whole = {field.name for field in fields(World) if "int" in str(field.type)}
    numbers: dict[str, Any] = {key: int(value) if key in whole else float(value) for key, value in entries.items()}
    return World(**numbers)
