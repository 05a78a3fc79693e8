"""GPU data sheets; the figures and their sources are in gpus.yaml."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from harness.catalog.prices import prices
from harness.errors import UsageError
from harness.units import GIB, MIB


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU. Bytes, FLOP/s (dense, fp32 accumulation) and bytes/s; price in USD (prices.yaml).

    memory_bytes: what nvidia-smi prints as memory.total. visible_bytes: what CUDA reports, which the formulas need.
    fp8_flops is None where the card has no fp8 units. compute_capability: (8, 9); (0, 0) for another maker's card.
    smi_name: the name that nvidia-smi prints.
    """

    name: str
    smi_name: str
    memory_bytes: int
    visible_bytes: int
    fp16_flops: float
    fp8_flops: float | None
    bandwidth: float
    link_bandwidth: float
    compute_capability: tuple[int, int]
    aliases: tuple[str, ...] = ()
    price_per_hour: float | None = None


@cache
def gpus() -> dict[str, Gpu]:
    """All sheets by name, in the file's order."""
    document = yaml.safe_load(files("harness.catalog").joinpath("gpus.yaml").read_text(encoding="utf-8"))
    return {name: _gpu(name, sheet) for name, sheet in document["gpus"].items()}


def _gpu(name: str, sheet: dict[str, Any]) -> Gpu:
    major, _, minor = str(sheet["compute_capability"]).partition(".")
    return Gpu(
        name=name,
        smi_name=sheet["smi_name"],
        memory_bytes=sheet["memory_mib"] * MIB,
        visible_bytes=round(sheet["visible_gib"] * GIB),
        fp16_flops=sheet["fp16_tflops"] * 1e12,
        fp8_flops=sheet["fp8_tflops"] * 1e12 if "fp8_tflops" in sheet else None,
        bandwidth=sheet["bandwidth_gbs"] * 1e9,
        link_bandwidth=sheet["link_gbs"] * 1e9,
        compute_capability=(int(major), int(minor)),
        aliases=tuple(sheet.get("aliases", ())),
        price_per_hour=price.usd_per_hour if (price := prices().get(name)) is not None else None,
    )


def find_gpu(name: str) -> Gpu:
    """The sheet of this name; case, spaces, dashes and what nvidia-smi prints (`NVIDIA L4`) are accepted.

    Raises UsageError that offers the nearest names.
    """
    wanted = _key(name)
    by_key = {_key(each): gpu for gpu in gpus().values() for each in (gpu.name, gpu.smi_name, *gpu.aliases)}
    if wanted in by_key:
        return by_key[wanted]
    near = dict.fromkeys(by_key[key].name for key in difflib.get_close_matches(wanted, by_key, n=3, cutoff=0.5))
    nearest = f"Did you mean {', '.join(near)}? " if near else ""
    raise UsageError(f"unknown GPU {name!r}", advice=f"{nearest}Known: {', '.join(gpus())}.")


def _key(name: str) -> str:
    return "".join(character for character in name.lower().removeprefix("nvidia") if character.isalnum())
