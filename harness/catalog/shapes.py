"""A model's shape, and what follows from it alone: parameters, weight bytes, KV-cache bytes per token."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelShape:
    """The fields of config.json that memory and speed depend on. Counts; context in tokens.

    experts, experts_per_token: 0 for a dense model; then `intermediate` is the dense feed-forward's width, otherwise one
    expert's. gated: three matrices per feed-forward instead of two. layers_dense: leading layers with a dense
    feed-forward of `intermediate_dense` in an expert model. window: sliding window in tokens of `windowed_layers`.
    """

    name: str
    model_type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    context: int
    gated: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False
    norms_per_layer: int = 2
    experts: int = 0
    experts_per_token: int = 0
    shared_intermediate: int = 0
    layers_dense: int = 0
    intermediate_dense: int = 0
    window: int = 0
    windowed_layers: int = 0
    kv_head_dim: int = 0  # head size of the KV cache where it differs (DeepSeek V2/V3 in TGI: 192)
    vision_parameters: int = 0
