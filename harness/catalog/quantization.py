"""How a checkpoint is quantised, by its own files: config.json, or the hf_quant_config.json beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from harness.catalog.config_fields import Config, text_config

SIDE_FILE = "hf_quant_config.json"
"""Where NVIDIA's tool writes what config.json of some of its checkpoints does not repeat; engines read both."""


def with_side_file(config: Config, side: Config | None) -> dict[str, Any]:
    """config.json with the section that the side file has for it, where it says nothing itself."""
    section = None if side is None else side.get("quantization")
    if not isinstance(section, Mapping) or quantization_from_config(config) is not None:
        return dict(config)
    return {**config, "quantization_config": {"quant_method": "modelopt", **section}}


def quantization_from_config(config: Config) -> str | None:
    """The checkpoint's own method, None for unquantised weights.

    `quant_method` of config.json; for NVIDIA's files, which all say modelopt, the format that most layers have.
    """
    section = config.get("quantization_config")
    if not isinstance(section, Mapping):
        section = text_config(config).get("quantization_config")
    if not isinstance(section, Mapping) or not section.get("quant_method"):
        return None
    method = str(section["quant_method"])
    if method.startswith("modelopt"):
        return _of_modelopt(method, section)
    return _packed_format(section) if method == "compressed-tensors" else method


def _of_modelopt(method: str, section: Config) -> str:
    algorithm = str(section.get("quant_algo") or "")
    layers = section.get("quantized_layers")
    if algorithm.upper() == "MIXED_PRECISION" and isinstance(layers, Mapping):
        counts = Counter(str(each.get("quant_algo")) for each in layers.values() if isinstance(each, Mapping))
        # Of equally many the narrower: the layers that are packed most are the widest ones.
        algorithm = max(counts, key=lambda name: (counts[name], "4" in name), default="")
    return "nvfp4" if "fp4" in f"{method}{algorithm}".lower() else "fp8"


def _packed_format(section: Config) -> str:
    """compressed-tensors says by its groups how wide a weight is; 4 bits, and 16 values to a scale, make NVFP4."""
    groups = section.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping) and weights.get("num_bits") == 4:
            return "nvfp4" if weights.get("type") == "float" else "w4a16"
    return "compressed-tensors"
