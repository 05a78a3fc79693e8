"""config.json -> ModelShape: what a repository's own file says of its model, and how TGI's launcher reads it.

What the file leaves out is filled in from the defaults of its class in Transformers (config_classes.json);
what a family has by its code rather than by its configuration is here, read in modeling_*.py of Transformers 5.24.
Image and audio towers are not counted: the headers of the weights have them (catalog/hub.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.catalog.config_fields import Config, integer, text_config, width_of
from harness.catalog.layers import Layers, read_layers, with_blocks
from harness.catalog.mixers import mixer_of
from harness.catalog.other_weights import WIDE_QK_NORM, other_parameters
from harness.catalog.quantization import quantization_from_config
from harness.catalog.shapes import ModelShape
from harness.errors import UsageError
from harness.input_files import brief


def shape_from_config(config: Config, name: str | None = None) -> ModelShape:
    """The shape that a config.json describes. Raises UsageError that names what is missing or not known."""
    try:
        shape = _shape_from_config(config, name)
        if mistake := shape.mistake():
            raise ValueError(mistake)
        return shape
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        # A file of another program, or half of one: a field that should be a number is a list, or the other way round.
        raise UsageError(
            f"not as expected: {type(error).__name__}: {brief(error)}",
            where="config.json",
            advice="Download it again, or give the shape of this model by hand.",
        ) from error


def _shape_from_config(config: Config, name: str | None) -> ModelShape:
    text: Config = text_config(config)
    family = str(text.get("model_type") or "")
    classes = config.get("architectures")
    architecture = str(classes[0]) if isinstance(classes, list) and classes else ""
    _refuse_other_kinds(text, family, architecture)
    layers = _layer_count(text)
    heads = _field(text, "num_attention_heads", "n_head", "num_heads", "n_heads")
    hidden = _field(text, "hidden_size", "n_embd", "d_model", "n_embed")
    text = with_blocks(text, hidden, heads)
    plan = read_layers(text, family, layers)
    if not plan.attention:
        raise _not_reckoned("a model without attention")
    fields: dict[str, Any] = {
        "model_type": str(config.get("model_type", family)),
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": _kv_heads(text, heads),
        "head_dim": integer(text, "head_dim", "attention_head_dim") or hidden // heads,
        "vocab": _field(text, "vocab_size"),
        "tied": _tied(config, text),
        "context": _context(text),
    }
    fields |= _feed_forward(text, family, hidden, plan)
    fields |= _by_family(text, family)
    fields |= _attention(text, family, fields, plan)
    mixer = mixer_of(text, family, plan)
    fields |= {"mixer_layers": mixer.layers, "mixer_parameters": mixer.parameters, "state_values": mixer.state_values}
    fields["other_parameters"] = other_parameters(text, family, fields, plan)
    fields["stored"] = quantization_from_config(config) or ""
    fields["architecture"] = architecture
    return ModelShape(name=name or str(config.get("_name_or_path") or fields["model_type"]), **fields)


_OTHER_KINDS = ("zamba", "zamba2", "doge", "recurrent_gemma", "longcat_flash", "muse_spark_text", "hrm_text", "xlstm",
                "jetmoe", "moshi", "cpmant", "ctrl", "deepseek_v4", "dory", "mamba2")  # fmt: skip
"""Blocks that are shared between layers, or built unlike any other: counting them as usual would be wrong by far."""


def _refuse_other_kinds(text: Config, family: str, architecture: str) -> None:
    if text.get("is_encoder_decoder"):
        raise _not_reckoned("an encoder with a decoder")
    if family in _OTHER_KINDS:
        raise _not_reckoned(f"model type {family!r}")
    # Quantised copies are published under model types of their makers' own.
    of_type = {kind.removesuffix("_text").replace("_", "") for kind in _OTHER_KINDS}
    if architecture.lower().removesuffix("forcausallm") in of_type:
        raise _not_reckoned(f"a model of class {architecture}")


def _not_reckoned(what: str) -> UsageError:
    return UsageError(
        f"{what} is not known to harness",
        where="config.json",
        advice="Give the shape of this model by hand, or leave it to `harness probe`, which measures.",
    )


def _layer_count(text: Config) -> int:
    """Where no number is given there is a list, or a letter for each."""
    for key in ("hybrid_override_pattern", "layers_block_type", "layer_types"):
        if text.get(key) and integer(text, *_LAYERS) is None:
            return len(text[key])
    return _field(text, *_LAYERS)


_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def _field(config: Config, *names: str) -> int:
    found = integer(config, *names)
    if found is None or found < 1:
        wrong = "no" if found is None else f"{found} is not a size for"
        raise UsageError(f"{wrong} {names[0]!r}", where="config.json", advice="Give the shape of this model by hand.")
    return found


def _tied(config: Config, text: Config) -> bool:
    """The language model's own word, else that of the whole, else its class's default."""
    return bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False)))


def _context(text: Config) -> int:
    found = integer(text, "max_position_embeddings", "model_max_length", "max_seq_len", "n_positions", "seq_length")
    return found or 2048


def _kv_heads(text: Config, heads: int) -> int:
    if text.get("multi_query") and not text.get("new_decoder_architecture"):
        return 1
    return integer(text, "num_key_value_heads", "num_kv_heads", "multi_query_group_num") or heads


def _feed_forward(text: Config, family: str, hidden: int, plan: Layers) -> dict[str, Any]:
    dense = width_of(text, "intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size") or 4 * hidden
    if family.startswith("lfm2") and text.get("block_auto_adjust_ff_dim", family == "lfm2"):
        dense = _adjusted(text, dense)
    experts = plan.experts
    some = plan.feed_forward if plan.feed_forward != plan.count else 0
    if not experts:
        if family == "granitemoehybrid":
            dense = integer(text, "shared_intermediate_size") or dense
        return {"intermediate": dense, "feed_forward_layers": some}
    width = width_of(text, "moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size") or dense
    top = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "top_k_experts")
    top_k = width_of(text, *top) or 1
    return {
        "intermediate": width,
        "experts": experts,
        "experts_per_token": top_k,
        "expert_hidden": integer(text, "moe_latent_size", "routed_expert_hidden_size") or 0,
        "shared_intermediate": _shared(text, family, width),
        "layers_dense": plan.dense,
        "intermediate_dense": (integer(text, "intermediate_size_mlp", "dense_intermediate_size") or dense)
        if plan.dense
        else 0,
        "feed_forward_layers": some,
    }


def _adjusted(text: Config, width: int) -> int:
    """LFM2: two thirds, rounded up (Lfm2MLP)."""
    width = int(2 * width / 3)
    if text.get("block_ffn_dim_multiplier") is not None:
        width = int(float(text["block_ffn_dim_multiplier"]) * width)
    multiple = integer(text, "block_multiple_of") or 256
    return multiple * -(-width // multiple)


def _shared(text: Config, family: str, width: int) -> int:
    """Width of all shared experts of a layer together."""
    if family in ("llama4_text", "llama4"):
        return width
    sized = integer(
        text, "shared_expert_intermediate_size", "shared_intermediate_size", "moe_shared_expert_intermediate_size"
    )
    count = integer(text, "n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts")
    if family == "nemotron_h":
        return (sized or 0) * (1 if count is None else count)
    return sized if sized is not None else width * (count or 0)


_UNGATED = (
    "gpt2", "gptj", "gpt_neox", "gpt_bigcode", "falcon", "starcoder2", "bloom", "opt", "mpt", "phi", "nemotron",
    "nemotron_h", "apertus", "arcee", "codegen", "persimmon", "nanochat", "jais2", "apertus1p5_text",
)  # fmt: skip
_NORM_BIAS = ("gpt2", "gptj", "gpt_neox", "gpt_bigcode", "falcon", "starcoder2", "bloom", "opt", "phi", "nemotron",
              "phimoe", "stablelm", "codegen", "persimmon", "jais2")  # fmt: skip
_FOUR_NORMS = ("gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gemma4", "gemma4_text", "glm4", "afmoe",
               "glm4v_text", "glm_ocr_text", "gemma4_unified", "gemma4_unified_text", "muse_glimmer_text",
               "lfm3")  # fmt: skip
_ONE_NORM = ("gptj", "cohere", "cohere2", "cohere2_moe", "phi", "codegen", "nemotron_h")
_NO_NORM_WEIGHTS = ("olmo", "nanochat")
_QK_NORM = ("qwen3", "gemma3", "gemma4", "exaone4", "exaone_moe", "apertus", "hunyuan_v1", "hy_v3", "afmoe", "dots1",
            "lfm2", "lfm3", "laguna", "step3p5")  # fmt: skip
_QUERY_GATE = ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "afmoe", "muse_glimmer_text")
_LINEAR_BIAS = ("gpt2", "gpt_neox", "gpt_bigcode", "starcoder2", "bloom", "opt", "phi", "gpt_oss", "jais2")


def _by_family(text: Config, family: str) -> dict[str, Any]:
    """What a family of models has by its code rather than by its configuration."""
    has_bias = family in _LINEAR_BIAS and text.get("use_bias", True) is not False
    return {
        "gated": family not in _UNGATED and text.get("gated_mlp", True) is not False,
        "qkv_bias": family.startswith(("qwen2", "glm4v")) or _says(text, "attention_bias", "qkv_bias", "use_qkv_bias"),
        "qk_norm": (family.startswith(_QK_NORM) or _says(text, "use_qk_norm", "qk_layernorm"))
        and family not in (*WIDE_QK_NORM, "llama4_text"),
        "norms_per_layer": _norms(text, family),
        "norm_bias": family in _NORM_BIAS,
        "linear_bias": has_bias,
        "embedding_norm": family == "bloom",
        "positions": _positions(text, family),
        "query_gate": family in _QUERY_GATE,
    }


def _says(text: Config, *names: str) -> bool:
    return any(bool(text.get(name)) for name in names)


def _norms(text: Config, family: str) -> int:
    """One where attention and feed-forward run side by side on the same input."""
    if family in _NO_NORM_WEIGHTS:
        return 0
    if family in _ONE_NORM or (family == "falcon" and not text.get("new_decoder_architecture")):
        return 1
    return 4 if family in _FOUR_NORMS else 2


def _positions(text: Config, family: str) -> int:
    if family == "opt":
        return int(text.get("max_position_embeddings") or 2048) + 2
    return int(text.get("n_positions") or 1024) if family in ("gpt2", "gpt_bigcode") else 0


def _attention(text: Config, family: str, fields: Mapping[str, Any], plan: Layers) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if plan.window:
        known |= {"window": plan.window, "windowed_layers": plan.windowed}
    attention, cached = plan.attention, plan.attention
    if shared := integer(text, "num_kv_shared_layers"):  # Gemma 3n and 4: the last layers read an earlier one's cache
        cached = attention - shared
        known["windowed_layers"] = plan.windowed_of_first(cached)
    if attention != plan.count:
        known["attention_layers"] = attention
    if cached != attention:
        known["kv_layers"] = cached
    if integer(text, "kv_lora_rank"):
        known |= _latent(text, fields["hidden"] // fields["heads"] if family == "minicpm3" else 128)
    elif value := integer(text, "v_head_dim"):
        known |= {"v_head_dim": value} if value != fields["head_dim"] else {}
    if plan.windowed:
        known |= _global_heads(text, family, fields)
    return known


def _global_heads(text: Config, family: str, fields: Mapping[str, Any]) -> dict[str, int]:
    """Heads of the layers without a window, where these have other ones."""
    if family.startswith("gemma4"):
        wide = integer(text, "global_head_dim") or 512  # Gemma4TextConfig's own
        fewer = (integer(text, "num_global_key_value_heads") or 0) if text.get("attention_k_eq_v") else 0
        return {"global_head_dim": wide, "global_kv_heads": fewer}
    windowed = integer(text, "swa_num_key_value_heads")
    if windowed and windowed != fields["kv_heads"]:
        return {"kv_heads": windowed, "global_kv_heads": fields["kv_heads"]}
    return {}


def _latent(text: Config, value_width: int) -> dict[str, Any]:
    no_position = integer(text, "qk_nope_head_dim")
    no_position = 128 if no_position is None else no_position
    rope = integer(text, "qk_rope_head_dim")
    rope = 64 if rope is None else rope
    value = integer(text, "v_head_dim") or value_width
    return {
        "head_dim": no_position + rope,
        "kv_head_dim": max(no_position + rope, value),
        "q_lora": integer(text, "q_lora_rank") or 0,
        "kv_lora": integer(text, "kv_lora_rank") or 512,
        "rope_dim": rope,
        "v_head_dim": value,
        "index_head_dim": integer(text, "index_head_dim") or 0,
        "qk_norm": False,
        "qkv_bias": False,
    }


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
