"""Weights that the shape's fields do not count: what single families have besides, or lack.

Counted matrix by matrix from modeling_*.py of Transformers 5.24.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.catalog.config_fields import Config, integer, width_of
from harness.catalog.layers import Layers

WIDE_QK_NORM = ("olmo2", "olmo3", "olmoe", "flex_olmo", "minimax_m2")


def other_parameters(text: Config, family: str, fields: Mapping[str, Any], plan: Layers) -> int:
    """How many they are; below zero where the fields count some that are not there."""
    hidden, heads, kv_heads = fields["hidden"], fields["heads"], fields["kv_heads"]
    head_dim, sparse = fields["head_dim"], plan.sparse
    total = -hidden * plan.kinds.count("none") if family == "nemotron-nas" else 0  # no norm before no attention
    if isinstance(widths := text.get("intermediate_size"), list):  # a shape has their mean
        total += (3 if fields["gated"] else 2) * hidden * (sum(widths) % len(widths))
    if family in WIDE_QK_NORM:
        total += plan.attention * (heads + kv_heads) * head_dim
    if family == "gpt_oss":
        total += plan.attention * heads + sparse * plan.experts  # attention sinks, the router's bias
    if family in ("qwen2_moe", "qwen3_next", "qwen3_5_moe_text"):
        total += sparse * hidden  # the shared expert's gate
    if family in ("laguna", "step3p5"):
        total += plan.attention * hidden * heads  # one gate per head
    if family == "hy_v4":
        total += plan.attention * hidden * heads * (integer(text, "v_head_dim") or 0)
    if family == "ernie4_5_moe":
        total += sparse * plan.experts  # the router's correction
    if family in ("apertus", "apertus1p5_text"):
        total += 2 * plan.count  # the activation's two
    if family == "phimoe":
        total += fields["vocab"] if text.get("lm_head_bias") else 0
    if text.get("attention_bias") and family in ("llama", "smollm3", "granite", "arcee", "ernie4_5", "phimoe"):
        total += plan.count * hidden
    if text.get("mlp_bias"):
        total += plan.count * (2 * fields["intermediate"] + hidden)
    if fields.get("index_head_dim"):
        total += _indexer(text, hidden, fields["index_head_dim"], plan)
    if family == "minimax_m3_vl_text":
        total += _sparse_index(text, hidden, plan)
    if fields.get("v_head_dim") and not fields.get("kv_lora"):  # values narrower than keys
        narrower = head_dim - fields["v_head_dim"]
        full = plan.attention - plan.windowed
        all_kv = plan.windowed * kv_heads + full * (fields.get("global_kv_heads") or kv_heads)
        total -= hidden * narrower * (plan.attention * heads + all_kv) - plan.windowed * heads
    if shared := plan.attention - (fields.get("kv_layers") or plan.attention):
        total -= _of_shared_caches(fields, plan, shared)
    if family == "gemma3n_text":
        total += _gemma3n(text, hidden, plan)
    if family.startswith("gemma4"):
        total += _gemma4(text, fields, plan)
    return total


def _of_shared_caches(fields: Mapping[str, Any], plan: Layers, shared: int) -> int:
    """What the last layers, which read an earlier layer's cache, do not have: keys, values, the keys' norm."""
    total = 0
    for kind in plan.kinds[plan.count - shared :]:
        heads, width = fields["kv_heads"], fields["head_dim"]
        if kind == "full":
            heads, width = fields.get("global_kv_heads") or heads, fields.get("global_head_dim") or width
        total += 2 * fields["hidden"] * heads * width + width
    if wide := fields.get("global_head_dim"):
        # A shape counts windows by their caches, and so takes these layers for ones with the wider heads.
        more = (2 * fields["heads"] + 2 * fields["kv_heads"]) * (wide - fields["head_dim"]) * fields["hidden"]
        total += (plan.windowed - fields["windowed_layers"]) * more
    return total


def _indexer(text: Config, hidden: int, width: int, plan: Layers) -> int:
    """DeepSeek Sparse Attention: which tokens a query looks at; only some layers have their own."""
    heads, query = integer(text, "index_n_heads") or 64, integer(text, "q_lora_rank") or hidden
    kinds = text.get("indexer_types")
    layers = kinds.count("full") if isinstance(kinds, list) else plan.count
    return layers * (query * heads * width + hidden * width + 2 * width + hidden * heads)


def _sparse_index(text: Config, hidden: int, plan: Layers) -> int:
    """MiniMax M3: the same for blocks of keys; the file says by a mapping of its own which layers have it."""
    own = text.get("sparse_attention_config")
    own = own if isinstance(own, Mapping) else {}
    each = own.get("sparse_attention_freq")
    layers = (
        sum(map(bool, each))
        if isinstance(each, list)
        else list(text.get("layer_types") or ()).count("minimax_m3_sparse")
    )
    heads = integer(own, "sparse_num_index_heads") or integer(text, "index_n_heads") or 0
    width = integer(own, "sparse_index_dim") or integer(text, "index_head_dim") or 0
    return min(layers, plan.count) * (hidden * width * (heads + 1) + 2 * width)


def _gemma3n(text: Config, hidden: int, plan: Layers) -> int:
    """Embeddings per layer with their projections, LAuReL, AltUp (Gemma3nTextDecoderLayer)."""
    small, rank = integer(text, "hidden_size_per_layer_input") or 0, integer(text, "laurel_rank") or 0
    inputs = integer(text, "altup_num_inputs") or 1
    once = (integer(text, "vocab_size_per_layer_input") or 0) * small * plan.count
    once += hidden * plan.count * small + small + 2 * (inputs - 1) * hidden * hidden
    layer = 2 * hidden * small + hidden + 2 * hidden * rank + hidden
    layer += inputs * inputs + inputs**3 + hidden * inputs + 2 * hidden
    return once + plan.count * layer


def _gemma4(text: Config, fields: Mapping[str, Any], plan: Layers) -> int:
    """Embeddings per layer, wider norms where the heads are wider, wide feed-forwards of layers with a shared cache."""
    hidden, small = fields["hidden"], integer(text, "hidden_size_per_layer_input") or 0
    full = plan.attention - plan.windowed
    total = full * 2 * (fields["global_head_dim"] - fields["head_dim"])
    if small:
        total += (integer(text, "vocab_size_per_layer_input") or 0) * small * plan.count
        total += hidden * plan.count * small + small + plan.count * (2 * hidden * small + hidden)
    if text.get("attention_k_eq_v"):  # keys serve as values
        total -= full * hidden * fields["global_head_dim"] * (fields["global_kv_heads"] or fields["kv_heads"])
    if text.get("use_double_wide_mlp"):
        total += (integer(text, "num_kv_shared_layers") or 0) * 3 * hidden * fields["intermediate"]
    if plan.experts:
        dense = width_of(text, "intermediate_size") or 0
        total += plan.count * (3 * hidden * dense + 3 * hidden + hidden + plan.experts)
    return total
