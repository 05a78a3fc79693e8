"""A model's shape, and what follows from it alone: parameters, weight bytes, KV-cache bytes per token.

The built-in table is shapes.yaml. Formulas are those of the transformer's layers, counted matrix by matrix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from harness.errors import UsageError


@dataclass(frozen=True)
class ModelShape:
    """The fields of config.json that memory and speed depend on. Counts; context in tokens.

    experts, experts_per_token: 0 for a dense model; then `intermediate` is the dense feed-forward's width, otherwise
    one expert's. gated: three matrices per feed-forward instead of two. layers_dense: leading layers with a dense
    feed-forward of `intermediate_dense` in an expert model. window: sliding window in tokens of `windowed_layers`.
    q_lora, kv_lora, rope_dim, v_head_dim: multi-head latent attention (DeepSeek V2/V3); 0 otherwise.
    positions: learned position embeddings. linear_bias, norm_bias: all linear layers, all norms have one.
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
    q_lora: int = 0
    kv_lora: int = 0
    rope_dim: int = 0
    v_head_dim: int = 0
    positions: int = 0
    linear_bias: bool = False
    norm_bias: bool = False
    embedding_norm: bool = False


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
    expert_layers = shape.layers - shape.layers_dense if shape.experts else 0
    return ParameterCounts(
        embedding=shape.vocab * shape.hidden,
        head=0 if shape.tied else shape.vocab * shape.hidden,
        linear=shape.layers * attention_parameters(shape) + _dense_feed_forward(shape, expert_layers),
        experts=expert_layers * shape.experts * expert_parameters(shape),
        small=shape.layers * _small_per_layer(shape) + _small_once(shape),
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
    """Weights of one layer's attention matrices."""
    if not shape.kv_lora:
        return shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    no_position = shape.head_dim - shape.rope_dim
    query_width = shape.heads * shape.head_dim
    query = shape.hidden * shape.q_lora + shape.q_lora * query_width if shape.q_lora else shape.hidden * query_width
    key_value = shape.hidden * (shape.kv_lora + shape.rope_dim)
    key_value += shape.kv_lora * shape.heads * (no_position + shape.v_head_dim)
    return query + key_value + shape.heads * shape.v_head_dim * shape.hidden


def expert_parameters(shape: ModelShape) -> int:
    """Weights of one expert, or of the dense feed-forward where there are no experts."""
    return (3 if shape.gated else 2) * shape.hidden * shape.intermediate


def _dense_feed_forward(shape: ModelShape, expert_layers: int) -> int:
    matrices = 3 if shape.gated else 2
    router_and_shared = shape.hidden * shape.experts + matrices * shape.hidden * shape.shared_intermediate
    width = shape.intermediate_dense if shape.experts else shape.intermediate
    return expert_layers * router_and_shared + (shape.layers - expert_layers) * matrices * shape.hidden * width


def _small_per_layer(shape: ModelShape) -> int:
    norms = shape.norms_per_layer * shape.hidden * (2 if shape.norm_bias else 1)
    norms += 2 * shape.head_dim if shape.qk_norm else 0
    norms += shape.q_lora + shape.kv_lora
    biases = (shape.heads + 2 * shape.kv_heads) * shape.head_dim if shape.qkv_bias or shape.linear_bias else 0
    if shape.linear_bias:
        biases += shape.hidden + max(1, shape.experts) * (shape.intermediate * (2 if shape.gated else 1) + shape.hidden)
    return norms + biases


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
    packed = counts.linear + counts.experts
    full = counts.total - packed
    return round((packed * bytes_per_weight(quantize, dtype) + full * dtype_bytes(dtype)) / shards)


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
    (text_generation_server/models/flash_causal_lm.py:1283-1295 of TGI 3.3.7).
    """
    heads = 1 if shape.kv_heads == 1 else shape.kv_heads // shards
    width = kv_cache_element_bytes(kv_cache_dtype, dtype)
    return 2 * shape.layers * heads * (shape.kv_head_dim or shape.head_dim) * width


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


def shape_from_config(config: Mapping[str, Any], name: str | None = None) -> ModelShape:
    """The shape that a config.json describes. Raises UsageError that names the missing field.

    Vision models keep the language model's fields under `text_config`; the image tower is then not counted.
    """
    text = _text_config(config)
    model_type = str(config.get("model_type", ""))
    heads = _field(text, "num_attention_heads", "n_head", "num_heads", "n_heads")
    hidden = _field(text, "hidden_size", "n_embd", "d_model", "n_embed")
    experts = int(text.get("num_local_experts") or text.get("num_experts") or text.get("n_routed_experts") or 0)
    layers = _field(text, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    fields_known = {
        "name": name or str(config.get("_name_or_path") or model_type),
        "model_type": model_type,
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": _kv_heads(text, heads),
        "head_dim": int(text.get("head_dim") or _default_head_dim(model_type, hidden, heads)),
        "intermediate": _intermediate(text, experts, hidden),
        "vocab": _field(text, "vocab_size"),
        "tied": bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", _tied_by_default(model_type)))),
        "context": _field(text, "max_position_embeddings", "max_seq_len", "n_positions", "seq_length", default=2048),
        "experts": experts,
        "experts_per_token": int(text.get("num_experts_per_tok") or 0) if experts else 0,
    }
    return ModelShape(**{**fields_known, **_family_fields(text, model_type, layers)})


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = config.get("text_config")
    return {**config, **nested} if isinstance(nested, Mapping) else config


def _field(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    for name in names:
        if isinstance(config.get(name), int):
            return int(config[name])
    if default is None:
        raise UsageError(f"no {names[0]!r}", where="config.json", advice="Give the shape of this model by hand.")
    return default


def _kv_heads(text: Mapping[str, Any], heads: int) -> int:
    if text.get("multi_query") and not text.get("new_decoder_architecture"):
        return 1
    return _field(text, "num_key_value_heads", "num_kv_heads", default=heads)


def _default_head_dim(model_type: str, hidden: int, heads: int) -> int:
    return 256 if model_type.startswith("gemma3") else hidden // heads


def _tied_by_default(model_type: str) -> bool:
    """Families whose configuration class ties embeddings unless the file says otherwise."""
    return model_type.startswith(("gemma", "gpt2", "opt", "bloom", "mpt", "falcon", "starcoder2"))


def _intermediate(text: Mapping[str, Any], experts: int, hidden: int) -> int:
    if experts and text.get("moe_intermediate_size"):
        return int(text["moe_intermediate_size"])
    return _field(text, "intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", default=4 * hidden)


_UNGATED = ("gpt2", "gptj", "gpt_neox", "falcon", "starcoder2", "bloom", "opt", "mpt", "phi")


def _family_fields(text: Mapping[str, Any], model_type: str, layers: int) -> dict[str, Any]:
    """What a family of models has by its code rather than by its configuration."""
    known: dict[str, Any] = {
        "gated": model_type not in _UNGATED,
        "qkv_bias": model_type.startswith("qwen2") or bool(text.get("attention_bias")),
        "qk_norm": model_type.startswith(("qwen3", "gemma3")),
        "norms_per_layer": _norms_per_layer(text, model_type),
        "norm_bias": model_type in _UNGATED and model_type != "mpt",
        "linear_bias": model_type in ("gpt2", "gpt_neox", "starcoder2", "bloom", "opt", "phi", "gpt_oss"),
        "embedding_norm": model_type == "bloom",
        "positions": _positions(text, model_type),
    }
    window = text.get("sliding_window")
    if window and text.get("use_sliding_window", True):
        known |= {"window": int(window), "windowed_layers": _windowed_layers(text, model_type, layers)}
    if model_type.startswith("deepseek_v"):
        known |= _latent_fields(text)
    return known


def _norms_per_layer(text: Mapping[str, Any], model_type: str) -> int:
    """One where attention and feed-forward run side by side on the same input."""
    if model_type == "gptj" or (model_type == "falcon" and not text.get("new_decoder_architecture")):
        return 1
    return 4 if model_type.startswith(("gemma2", "gemma3")) else 2


def _positions(text: Mapping[str, Any], model_type: str) -> int:
    if model_type == "opt":
        return int(text.get("max_position_embeddings", 2048)) + 2
    return int(text.get("n_positions", 1024)) if model_type == "gpt2" else 0


def _windowed_layers(text: Mapping[str, Any], model_type: str, layers: int) -> int:
    if model_type.startswith("gemma3"):
        return layers - layers // int(text.get("sliding_window_pattern", 6))
    return layers // 2 if model_type in ("gemma2", "gpt_oss") else layers


def _latent_fields(text: Mapping[str, Any]) -> dict[str, Any]:
    no_position, rope = int(text.get("qk_nope_head_dim", 128)), int(text.get("qk_rope_head_dim", 64))
    value = int(text.get("v_head_dim", 128))
    width = int(text.get("moe_intermediate_size", 0))
    return {
        "head_dim": no_position + rope,
        "kv_head_dim": max(no_position + rope, value),
        "q_lora": int(text.get("q_lora_rank") or 0),
        "kv_lora": int(text.get("kv_lora_rank", 512)),
        "rope_dim": rope,
        "v_head_dim": value,
        "shared_intermediate": width * int(text.get("n_shared_experts") or 0),
        "layers_dense": int(text.get("first_k_dense_replace", 0)),
        "intermediate_dense": int(text.get("intermediate_size", 0)),
    }


def quantization_from_config(config: Mapping[str, Any]) -> str | None:
    """The `quant_method` of config.json, None for unquantised weights."""
    section = config.get("quantization_config")
    method = section.get("quant_method") if isinstance(section, Mapping) else None
    return str(method) if method else None


def config_from_shape(shape: ModelShape) -> dict[str, Any]:
    """The fields of config.json that TGI's launcher reads, for a shape of the table.

    Its absences are the launcher's too: no `intermediate_size` where the family's configuration has none.
    """
    config: dict[str, Any] = {
        "model_type": shape.model_type,
        "max_position_embeddings": shape.context,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.intermediate_dense or shape.intermediate,
        "vocab_size": shape.vocab,
        "tie_word_embeddings": shape.tied,
    }
    if shape.head_dim * shape.heads != shape.hidden and not shape.kv_lora:
        config["head_dim"] = shape.head_dim
    if shape.vision_parameters:
        config["vision_config"] = {}
    if shape.model_type == "falcon":
        config["new_decoder_architecture"] = shape.norms_per_layer == 2
    return config | (_expert_config(shape) if shape.experts else {})


def _expert_config(shape: ModelShape) -> dict[str, Any]:
    config: dict[str, Any] = {"num_experts_per_tok": shape.experts_per_token}
    if shape.shared_intermediate:
        config["n_shared_experts"] = shape.shared_intermediate // shape.intermediate
    if shape.model_type in ("mixtral", "gpt_oss"):
        config["num_local_experts"] = shape.experts
    else:
        config["moe_intermediate_size"] = shape.intermediate
    return config
