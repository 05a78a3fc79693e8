"""GPU data sheets; the figures and their sources are in gpus.yaml."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from harness.errors import UsageError


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU. Bytes, FLOP/s (dense) and bytes/s.

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


def _gpu(name: str, sheet: dict[str, object]) -> Gpu:
    fields = dict(sheet)
    fields["compute_capability"] = tuple(int(part) for part in str(fields["compute_capability"]).split("."))
    fields["aliases"] = tuple(fields.get("aliases") or ())  # type: ignore[arg-type]
    return Gpu(name=name, **fields)  # type: ignore[arg-type]


def find_gpu(name: str) -> Gpu:
    """The sheet of this name; case, spaces, dashes and what nvidia-smi prints (`NVIDIA L4`) are accepted.

    Raises UsageError that offers the nearest names.
    """
    wanted = _key(name)
    by_key = {_key(each): gpu for gpu in gpus().values() for each in (gpu.name, gpu.smi_name, *gpu.aliases)}
    if wanted in by_key:
        return by_key[wanted]
    near = difflib.get_close_matches(wanted, by_key, n=3, cutoff=0.5)
    offered = list(dict.fromkeys(by_key[key].name for key in near)) or list(gpus())
    raise UsageError(f"unknown GPU {name!r}", advice=f"Known: {', '.join(offered)}.")


def _key(name: str) -> str:
    return "".join(character for character in name.lower().removeprefix("nvidia") if character.isalnum())
