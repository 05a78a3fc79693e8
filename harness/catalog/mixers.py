"""Layers without attention (Mamba, linear attention, short convolutions): their weights, and the state of one chat.

Counted matrix by matrix from modeling_*.py of Transformers 5.24. A state has a fixed size, however long a chat grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.catalog.layers import Layers
from harness.errors import UsageError

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Mixer:
    """layers: that have one. parameters: weights of one. state_values: numbers that one chat keeps in all of them."""

    layers: int = 0
    parameters: int = 0
    state_values: int = 0


def mixer_of(text: Config, family: str, plan: Layers) -> Mixer:
    """The mixers of a model. Raises UsageError for one that is not known to harness."""
    layers = plan.count if family == "falcon_h1" else plan.mixers
    if not layers:
        return Mixer()
    hidden = _of(text, "hidden_size", "d_model")
    for compute in (_gated_delta, _kimi_delta, _short_convolution, _lightning, _mamba2, _mamba1):
        found = compute(text, family, hidden)
        if found is not None:
            parameters, state = found
            return Mixer(layers, parameters, layers * state)
    raise UsageError(
        f"{layers} layers of model type {family!r} have no attention, and what they have is not known to harness",
        where="config.json",
        advice="`harness probe` measures what the engine makes of them.",
    )


def _of(text: Config, *names: str) -> int:
    for name in names:
        if isinstance(value := text.get(name), int):
            return value
    raise UsageError(f"no {names[0]!r}", where="config.json", advice="Give the shape of this model by hand.")


def _gated_delta(text: Config, family: str, hidden: int) -> tuple[int, int] | None:
    """Qwen3-Next and later: a short convolution, then a gated delta rule."""
    if text.get("linear_num_value_heads") is None:
        return None
    heads, width = _of(text, "linear_num_value_heads"), _of(text, "linear_value_head_dim")
    key_heads, key_width = _of(text, "linear_num_key_heads"), _of(text, "linear_key_head_dim")
    key, value, kernel = key_heads * key_width, heads * width, _of(text, "linear_conv_kernel_dim")
    weights = hidden * (2 * key + 2 * value) + 2 * hidden * heads + (2 * key + value) * kernel
    weights += 2 * heads + width + value * hidden
    return weights, (2 * key + value) * (kernel - 1) + heads * key_width * width


def _kimi_delta(text: Config, family: str, hidden: int) -> tuple[int, int] | None:
    """Kimi Linear: three convolutions, a low-rank decay and gate, a delta rule."""
    own = text.get("linear_attn_config")
    own = own if isinstance(own, Mapping) else text
    heads = own.get("num_heads") if own is not text else text.get("linear_num_heads")
    if not isinstance(heads, int):
        return None
    width = _of(own, "head_dim") if own is not text else _of(text, "linear_head_dim")
    kernel = own.get("short_conv_kernel_size") or text.get("linear_conv_kernel_dim") or 4
    all_heads = heads * width
    weights = 4 * hidden * all_heads + 3 * all_heads * kernel + hidden * heads
    weights += 2 * (hidden * width + width * all_heads) + heads + all_heads + width
    return weights, 3 * all_heads * (kernel - 1) + heads * width * width


def _short_convolution(text: Config, family: str, hidden: int) -> tuple[int, int] | None:
    """LFM2: a gated convolution over a few tokens."""
    if text.get("conv_L_cache") is None:
        return None
    kernel = _of(text, "conv_L_cache")
    bias = 5 * hidden if text.get("conv_bias") else 0
    return 4 * hidden * hidden + hidden * kernel + bias, hidden * (kernel - 1)


def _lightning(text: Config, family: str, hidden: int) -> tuple[int, int] | None:
    """MiniMax-01 and M1: linear attention with one decay per head."""
    if not family.startswith("minimax"):
        return None
    heads = _of(text, "num_attention_heads")
    width = text.get("head_dim") or hidden // heads
    return 5 * hidden * heads * width + heads * width, heads * width * width


def _mamba2(text: Config, family: str, hidden: int) -> tuple[int, int] | None:
    heads = text.get("mamba_n_heads") or text.get("mamba_num_heads") or text.get("n_mamba_heads")
    if not isinstance(heads, int):
        return None
    state = _of(text, "mamba_d_state", "ssm_state_size", "state_size")
    width = text.get("mamba_d_head") or text.get("mamba_head_dim") or text.get("mamba_headdim")
    expand = text.get("mamba_expand") or text.get("expand") or 2
    inner = text.get("mamba_d_ssm") or (heads * width if isinstance(width, int) else int(expand * hidden))
    groups = next((n for k in ("mamba_n_groups", "n_groups", "mamba_ngroups") if isinstance(n := text.get(k), int)), 1)
    kernel = next((n for k in ("mamba_d_conv", "conv_kernel") if isinstance(n := text.get(k), int)), 4)
    channels = inner + 2 * groups * state
    bias = text.get("mamba_conv_bias", text.get("use_conv_bias", True))
    norm = inner if family != "falcon_h1" or text.get("mamba_rms_norm") else 0
    weights = hidden * (inner + channels + heads) + channels * (kernel + bool(bias)) + 3 * heads + norm + inner * hidden
    if text.get("mamba_proj_bias"):
        weights += inner + channels + heads + hidden
    return weights, channels * (kernel - 1) + inner * state


def _mamba1(text: Config, family: str, hidden: int) -> tuple[int, int] | None:
    if text.get("mamba_dt_rank") is None and text.get("time_step_rank") is None:
        return None
    inner = int((text.get("mamba_expand") or text.get("expand") or 2) * hidden)
    state, kernel = _of(text, "mamba_d_state", "state_size"), _of(text, "mamba_d_conv", "conv_kernel")
    rank = text.get("mamba_dt_rank", text.get("time_step_rank"))
    rank = rank if isinstance(rank, int) else -(-hidden // 16)
    weights = 2 * hidden * inner + inner * (kernel + 1) + inner * (rank + 2 * state) + rank * inner + inner
    weights += inner * state + inner + inner * hidden
    if family == "jamba":
        weights += rank + 2 * state
    return weights, inner * (kernel - 1) + inner * state
