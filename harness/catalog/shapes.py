"""A model's shape, and what follows from it alone: parameters, weight bytes, KV-cache bytes per token.

The built-in table is shapes.yaml; config_json.py reads a shape from a model's own file. Formulas are those of the
transformer's layers, counted matrix by matrix.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from harness.errors import UsageError

SHAPE_VARIABLE = "HARNESS_EMULATOR_SHAPE"
"""By which the emulator is told the shape of an entry that gives one, as JSON."""


_MOST = 2**50  # of a size or a count


@dataclass(frozen=True)
class ModelShape:
    """The fields of config.json that memory and speed depend on. Counts; context in tokens.

    experts, experts_per_token: 0 for a dense model; then `intermediate` is the dense feed-forward's width, otherwise
    one expert's. gated: three matrices per feed-forward instead of two. layers_dense: leading layers with a dense
    feed-forward of `intermediate_dense` in an expert model. window: sliding window in tokens of `windowed_layers`.
    q_lora, kv_lora, rope_dim, v_head_dim: multi-head latent attention (DeepSeek V2/V3); 0 otherwise. index_head_dim:
    of the key by which sparse attention chooses its tokens, cached beside it (DeepSeek V3.2).
    positions: learned position embeddings. linear_bias, norm_bias: all linear layers, all norms have one.
    attention_layers, feed_forward_layers: that have one at all; 0 means every layer. kv_layers: with a KV cache of
    their own, 0 for all with attention. global_kv_heads, global_head_dim: of layers without a window where they differ.
    mixer_layers: with Mamba, linear attention or a convolution of mixer_parameters weights each; state_values: numbers
    that one running chat keeps in all of them. query_gate: the attention's output is gated, one gate per value.
    expert_hidden: what routed experts read and write where that is narrower than hidden, with a projection before and
    behind them. other_parameters: weights that no other field counts, below zero where the fields count some that are
    not there. stored: the method by which the maker's checkpoints are
    quantised, by the names of QUANTIZATIONS or its own; empty for none. architecture: the class that config.json names.
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
    expert_hidden: int = 0
    shared_intermediate: int = 0
    layers_dense: int = 0
    intermediate_dense: int = 0
    window: int = 0
    windowed_layers: int = 0
    kv_head_dim: int = 0  # head size of the KV cache where it differs (DeepSeek V2/V3 in TGI: 192)
    vision_parameters: int = 0
    q_lora: int = 0
    kv_lora: int = 0
    rope_dim: int = 0
    v_head_dim: int = 0
    positions: int = 0
    linear_bias: bool = False
    norm_bias: bool = False
    embedding_norm: bool = False
    attention_layers: int = 0
    kv_layers: int = 0
    feed_forward_layers: int = 0
    global_kv_heads: int = 0
    global_head_dim: int = 0
    index_head_dim: int = 0
    mixer_layers: int = 0
    mixer_parameters: int = 0
    state_values: int = 0
    query_gate: bool = False
    other_parameters: int = 0
    stored: str = ""
    architecture: str = ""

    def mistake(self) -> str | None:
        """What no model can have, in words; memory and time are computed from it and must not fail."""
        for name, value in vars(self).items():
            least = -_MOST if name == "other_parameters" else 0
            if isinstance(value, int) and not least <= value <= _MOST:
                return f"{name} is {'below zero' if value < 0 else 'beyond all bounds'}"
        for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "vocab", "context"):
            if getattr(self, name) < 1:
                return f"{name} is 0"
        if self.window and self.windowed_layers > self.layers:
            return "more layers have a window than there are"
        if parameters(self) < 1:
            return "other_parameters takes away more than there is"
        return None

    @property
    def with_attention(self) -> int:
        """Layers that have attention."""
        return self.attention_layers or self.layers

    @property
    def with_kv(self) -> int:
        """Layers that keep a KV cache of their own."""
        return self.kv_layers or self.with_attention

    @property
    def with_feed_forward(self) -> int:
        return self.feed_forward_layers or self.layers

    @property
    def caches(self) -> tuple[tuple[int, int, int], ...]:
        """Layers, KV heads, and values of one head, key and value together: of layers with a window, of the others."""
        key = self.kv_head_dim or self.head_dim
        value = self.v_head_dim if self.v_head_dim and not self.kv_lora else key
        full = self.with_kv - self.windowed_layers
        wide = 2 * self.global_head_dim or key + value
        return (self.windowed_layers, self.kv_heads, key + value), (full, self.global_kv_heads or self.kv_heads, wide)


def shape_for_emulator(shape: ModelShape | None) -> dict[str, str]:
    """The environment variable that hands a shape over; empty where there is none to hand."""
    if shape is None:
        return {}
    known = {field.name: getattr(shape, field.name) for field in fields(shape)}
    defaults = {field.name: field.default for field in fields(shape)}
    return {SHAPE_VARIABLE: json.dumps({key: value for key, value in known.items() if value != defaults[key]})}


@dataclass(frozen=True)
class ParameterCounts:
    """How many parameters sit where. linear: matrices of all layers without the routed experts, which are apart.

    head: 0 when the output head shares the embedding's matrix. small: norms, biases, positions. vision: image tower.
    """

    embedding: int
    head: int
    linear: int
    experts: int
    small: int
    vision: int

    @property
    def total(self) -> int:
        return self.embedding + self.head + self.linear + self.experts + self.small + self.vision


def parameter_counts(shape: ModelShape) -> ParameterCounts:
    """Parameters by place."""
    expert_layers = shape.with_feed_forward - shape.layers_dense if shape.experts else 0
    mixers = shape.mixer_layers * shape.mixer_parameters
    return ParameterCounts(
        embedding=shape.vocab * shape.hidden,
        head=0 if shape.tied else shape.vocab * shape.hidden,
        linear=_all_attention(shape) + mixers + _dense_feed_forward(shape, expert_layers),
        experts=expert_layers * shape.experts * expert_parameters(shape),
        small=_small_of_layers(shape) + _small_once(shape) + shape.other_parameters,
        vision=shape.vision_parameters,
    )


def parameters(shape: ModelShape) -> int:
    """All parameters, as published counts count them (a tied output head once)."""
    return parameter_counts(shape).total


def active_parameters(shape: ModelShape) -> int:
    """Parameters that one token passes through; all of them in a dense model."""
    counts = parameter_counts(shape)
    return counts.total - (
        counts.experts * (shape.experts - shape.experts_per_token) // shape.experts if shape.experts else 0
    )


def attention_parameters(shape: ModelShape) -> int:
    """Weights of one layer's attention matrices; of a layer with a window where the others have other heads."""
    if not shape.kv_lora:
        queries = (3 if shape.query_gate else 2) * shape.heads
        return shape.hidden * shape.head_dim * (queries + 2 * shape.kv_heads)
    no_position = shape.head_dim - shape.rope_dim
    query_width = shape.heads * shape.head_dim
    query = shape.hidden * shape.q_lora + shape.q_lora * query_width if shape.q_lora else shape.hidden * query_width
    key_value = shape.hidden * (shape.kv_lora + shape.rope_dim)
    key_value += shape.kv_lora * shape.heads * (no_position + shape.v_head_dim)
    return query + key_value + shape.heads * shape.v_head_dim * shape.hidden


def _all_attention(shape: ModelShape) -> int:
    if not shape.global_kv_heads and not shape.global_head_dim:
        return shape.with_attention * attention_parameters(shape)
    kv_heads, head_dim = shape.global_kv_heads or shape.kv_heads, shape.global_head_dim or shape.head_dim
    full = shape.with_attention - shape.windowed_layers
    whole = shape.hidden * head_dim * (2 * shape.heads + 2 * kv_heads)
    return shape.windowed_layers * attention_parameters(shape) + full * whole


def expert_parameters(shape: ModelShape) -> int:
    """Weights of one expert, or of the dense feed-forward where there are no experts."""
    hidden = shape.expert_hidden if shape.experts and shape.expert_hidden else shape.hidden
    return (3 if shape.gated else 2) * hidden * shape.intermediate


def _dense_feed_forward(shape: ModelShape, expert_layers: int) -> int:
    matrices = 3 if shape.gated else 2
    router_and_shared = shape.hidden * shape.experts + matrices * shape.hidden * shape.shared_intermediate
    router_and_shared += 2 * shape.hidden * shape.expert_hidden
    width = shape.intermediate_dense if shape.experts else shape.intermediate
    dense_layers = shape.with_feed_forward - expert_layers
    return expert_layers * router_and_shared + dense_layers * matrices * shape.hidden * width


def _small_of_layers(shape: ModelShape) -> int:
    norms = shape.layers * shape.norms_per_layer * shape.hidden * (2 if shape.norm_bias else 1)
    attention = 2 * shape.head_dim if shape.qk_norm else 0
    attention += shape.q_lora + shape.kv_lora
    if shape.qkv_bias or shape.linear_bias:
        attention += (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    biases = 0
    if shape.linear_bias:
        widths = shape.intermediate * (2 if shape.gated else 1) + shape.hidden
        biases = shape.layers * (shape.hidden + max(1, shape.experts) * widths)
    return norms + shape.with_attention * attention + biases


def _small_once(shape: ModelShape) -> int:
    norm = shape.hidden * (2 if shape.norm_bias else 1)
    return norm * (2 if shape.embedding_norm else 1) + shape.positions * shape.hidden


_DTYPE_BYTES = {"float16": 2, "bfloat16": 2, "fp16": 2, "bf16": 2, "float32": 4}

GROUP_SIZE = 128
"""Weights that share one scale in the usual AWQ and GPTQ checkpoints."""

# Bytes per weight of a linear layer: the packed value, and its share of scales and zero points.
_QUANTIZED_BYTES = {
    "awq": 0.5 + 2.5 / GROUP_SIZE,
    "gptq": 0.5 + 2.5 / GROUP_SIZE,
    "marlin": 0.5 + 2.5 / GROUP_SIZE,
    "w4a16": 0.5 + 2.0 / GROUP_SIZE,
    "exl2": 0.5 + 2.5 / GROUP_SIZE,  # about 4 bits; the format allows 2 to 8
    "bitsandbytes-nf4": 0.5 + 4 / 64,
    "bitsandbytes-fp4": 0.5 + 4 / 64,
    "bitsandbytes": 1.0 + 2 / 4096,
    "eetq": 1.0 + 2 / 4096,
    "fp8": 1.0,
    "compressed-tensors": 1.0,
    "mxfp4": 0.5 + 1 / 32,
    "nvfp4": 0.5 + 1 / 16,
}

QUANTIZATIONS = tuple(_QUANTIZED_BYTES)


def bytes_per_weight(quantize: str | None = None, dtype: str | None = None) -> float:
    """Bytes of one weight of a linear layer. quantize: TGI's names, None for 16 bits. Raises UsageError."""
    if quantize is None or quantize == "none":
        return dtype_bytes(dtype)
    if quantize not in _QUANTIZED_BYTES:
        raise UsageError(f"unknown quantization {quantize!r}", advice=f"Known: {', '.join(_QUANTIZED_BYTES)}.")
    return _QUANTIZED_BYTES[quantize]


def dtype_bytes(dtype: str | None) -> int:
    """Bytes of one unquantised value; 2 for None. Raises UsageError."""
    if dtype is None:
        return 2
    if dtype not in _DTYPE_BYTES:
        raise UsageError(f"unknown dtype {dtype!r}", advice=f"Known: {', '.join(_DTYPE_BYTES)}.")
    return _DTYPE_BYTES[dtype]


def weight_bytes(shape: ModelShape, quantize: str | None = None, dtype: str | None = None, shards: int = 1) -> int:
    """Bytes of all weights on one of `shards` GPUs, split evenly, a tied head counted once.

    Embedding, head and norms stay at 16 bits in quantised checkpoints. TGI loads more than this: simulator/memory.py.
    """
    counts = parameter_counts(shape)
    full = counts.total - counts.linear - counts.experts
    return round((layer_bytes(counts, quantize, dtype) + full * dtype_bytes(dtype)) / shards)


def layer_bytes(counts: ParameterCounts, quantize: str | None, dtype: str | None) -> float:
    """Bytes of the matrices of all layers. Of an MXFP4 checkpoint with experts only these are packed."""
    width = bytes_per_weight(quantize, dtype)
    rest = dtype_bytes(dtype) if quantize == "mxfp4" and counts.experts else width
    return counts.linear * rest + counts.experts * width


def kv_cache_element_bytes(kv_cache_dtype: str | None, dtype: str | None = None) -> int:
    """1 for an fp8 KV cache, else the model's own width."""
    if kv_cache_dtype is not None and kv_cache_dtype.startswith("fp8"):
        return 1
    return dtype_bytes(kv_cache_dtype or dtype)


def kv_bytes_per_token(
    shape: ModelShape, kv_cache_dtype: str | None = None, shards: int = 1, dtype: str | None = None
) -> int:
    """Bytes of KV cache that one token takes on one of `shards` GPUs, as TGI stores it.

    Every layer at full length whatever its window; latent attention decompressed. A single KV head is replicated
    (text_generation_server/models/flash_causal_lm.py:1283-1295 of TGI 3.3.7). Layers without attention have no cache.
    """
    width = kv_cache_element_bytes(kv_cache_dtype, dtype)
    return width * sum(layers * (1 if heads == 1 else heads // shards) * size for layers, heads, size in shape.caches)


@cache
def shapes() -> dict[str, ModelShape]:
    """The built-in table by name, in the file's order."""
    return {name: shape for name, shape, _ in _entries()}


@cache
def _entries() -> tuple[tuple[str, ModelShape, tuple[str, ...]], ...]:
    document = yaml.safe_load(files("harness.catalog").joinpath("shapes.yaml").read_text(encoding="utf-8"))
    sheets: dict[str, dict[str, Any]] = {}
    entries = []
    for name, sheet in document["shapes"].items():
        own = {key: value for key, value in sheet.items() if key not in ("like", "aliases")}
        sheets[name] = {**sheets.get(sheet.get("like"), {}), **own}
        entries.append((name, ModelShape(name=name, **sheets[name]), tuple(sheet.get("aliases", ()))))
    return tuple(entries)


def find_shape(repo: str) -> ModelShape | None:
    """The built-in shape of a Hub id or family name, None where the table has none.

    The organisation, case, and suffixes that do not change the shape (-Instruct, -it, -AWQ, ...) are ignored.
    """
    table = _shapes_by_key()
    for key in _keys(repo):
        if key in table:
            return table[key]
    return None


@cache
def _shapes_by_key() -> dict[str, ModelShape]:
    table: dict[str, ModelShape] = {}
    for name, shape, aliases in _entries():
        for each in (name, *aliases):
            table.setdefault(_squeeze(each), shape)
    return table


# Parts of a repository's name that say how it was tuned or stored, not what shape it has.
_SUFFIX = re.compile(
    r"[-_.]?(instruct|chat|it|hf|base|pt|text|awq|gptq|marlin|exl2|gguf|bnb|nf4|fp8|fp16|bf16|int4|int8|4bit|8bit|4-bit|8-bit"
    r"|w4a16|w8a8|w8a16|kv|quantized|dynamic|static|block|g128|128g|preview|unsloth|autofp8|qat|q4_0|sft|dpo|beta|alpha"
    r"|nvfp4|v\d(\.\d+)?(-16k)?|16k|32k|1m|2\d0[1-9]|2\d1[0-2]|4k|8k|128k)$"
)


def _keys(repo: str) -> list[str]:
    """From the most to the least specific: the name, then with one suffix less at a time."""
    name = repo.rstrip("/").rsplit("/", 1)[-1].lower()
    name = re.sub(r"\([^)]*\)", "", name).strip().replace(" ", "-")
    names = []
    while name:
        names += [name, name.removeprefix("meta-"), re.sub(r"-(instruct|chat|it)(?=-)", "", name.removeprefix("meta-"))]
        shorter = _SUFFIX.sub("", name)
        if shorter == name:
            break
        name = shorter
    return list(dict.fromkeys(_squeeze(each) for each in names))


def _squeeze(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum() or character == ".").replace(
        "v0.", "v0"
    )
