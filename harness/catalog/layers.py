"""Which layers of a model have a KV cache, which of these a window, and which have experts: from its config.json.

Families spell this in many ways; Transformers 5 writes `layer_types` and `mlp_layer_types`, older files a period, an
offset, a list of indices, or a string of letters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import UsageError

Config = Mapping[str, Any]
LayerKind = Literal["full", "windowed", "mixer", "none"]
"""full: attention to everything before; windowed: to the last tokens; mixer: a state of fixed size; none: neither."""


@dataclass(frozen=True)
class Layers:
    """kinds: of each layer. window: tokens. sparse, dense: layers with experts, and with one feed-forward for all."""

    kinds: tuple[LayerKind, ...]
    window: int
    experts: int
    sparse: int
    dense: int

    @property
    def count(self) -> int:
        return len(self.kinds)

    @property
    def attention(self) -> int:
        return self.kinds.count("full") + self.windowed

    @property
    def windowed(self) -> int:
        return self.kinds.count("windowed")

    @property
    def mixers(self) -> int:
        return self.kinds.count("mixer")

    @property
    def feed_forward(self) -> int:
        """Layers with any feed-forward."""
        return self.sparse + self.dense

    def windowed_of_first(self, count: int) -> int:
        return self.kinds[:count].count("windowed")


def read_layers(text: Config, family: str, count: int) -> Layers:
    """The layers that these fields describe. Raises UsageError for a kind of layer that is not known to harness."""
    experts = _experts(text)
    letters = text.get("hybrid_override_pattern")
    if isinstance(letters, str) and letters:
        return _of_letters(letters, experts)
    if family == "nemotron_h" and isinstance(text.get("layers_block_type"), list):
        word = {"mamba": "M", "linear_attention": "M", "attention": "*", "full_attention": "*", "moe": "E", "mlp": "-"}
        return _of_letters("".join(word.get(each, "?") for each in text["layers_block_type"]), experts)
    window = next((each for name in _WINDOWS if isinstance(each := text.get(name), int)), 0)
    if text.get("use_sliding_window", True) is False:
        window = 0
    kinds = _kinds(text, family, count, window)
    sparse = _sparse(text, family, count) if experts else 0
    window = window if "windowed" in kinds else 0
    return Layers(tuple(kinds), window, experts if sparse else 0, sparse, count - sparse)


_WINDOWS = ("sliding_window", "sliding_window_size", "attention_chunk_size")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def _experts(text: Config) -> int:
    if text.get("enable_moe_block") is False:
        return 0
    found = (text.get(name) for name in _EXPERTS)
    return next((each for each in found if isinstance(each, int) and each > 1), 0)


def _of_letters(letters: str, experts: int) -> Layers:
    """Nemotron-H: each layer is one of Mamba (M), attention (*), a feed-forward (-), experts (E)."""
    kinds: dict[str, LayerKind] = {"M": "mixer", "*": "full", "-": "none", "E": "none"}
    if set(letters) - set(kinds):
        raise _unknown("hybrid_override_pattern", letters)
    sparse = letters.count("E")
    return Layers(tuple(kinds[each] for each in letters), 0, experts if sparse else 0, sparse, letters.count("-"))


def with_blocks(text: Config, hidden: int, heads: int) -> Config:
    """Llama-Nemotron says each layer by itself; here in the words of the others.

    Raises UsageError where attention differs between layers, or is something else.
    """
    blocks = text.get("block_configs")
    if not isinstance(blocks, list) or not blocks or "attention" not in blocks[0]:
        return text
    attention, feed_forward = [each["attention"] for each in blocks], [each["ffn"] for each in blocks]
    groups = {each["n_heads_in_group"] for each in attention if not each["no_op"]}
    odd = ("replace_with_linear", "window_length")
    if len(groups) != 1 or any(each.get(name) for each in (*attention, *feed_forward) for name in odd):
        raise _unknown("block_configs", "several of attention, or none")
    # _ffn_mult_to_intermediate_size of the repositories' own modeling_decilm.py
    widths = [0 if each["no_op"] else 256 * -(-int(2 * each["ffn_mult"] * hidden / 3) // 256) for each in feed_forward]
    return {
        **text,
        "layer_types": ["no_attention" if each["no_op"] else "full_attention" for each in attention],
        "num_key_value_heads": heads // groups.pop(),
        "intermediate_size": widths,
    }


_WORDS: Mapping[str, LayerKind] = {
    "full_attention": "full",
    "attention": "full",
    "hybrid": "full",  # Falcon-H1, Zamba: attention beside or behind the mixer
    "indexed_attention": "full",
    "deepseek_sparse_attention": "full",
    "minimax_m3_sparse": "full",
    "sliding_attention": "windowed",
    "chunked_attention": "windowed",
    "hybrid_sliding": "windowed",
    "linear_attention": "mixer",
    "mamba": "mixer",
    "mamba2": "mixer",
    "conv": "mixer",
    "recurrent": "mixer",
    "no_attention": "none",
}


def _unknown(key: str, found: object) -> UsageError:
    return UsageError(
        f"{key}: layers of the kind {found!r} are not known to harness",
        where="config.json",
        advice="`harness probe` measures what the engine makes of them.",
    )


def _kinds(text: Config, family: str, count: int, window: int) -> list[LayerKind]:
    for key in ("layer_types", "layers_block_type"):
        written = text.get(key)
        if isinstance(written, list) and len(written) >= count:
            return [_kind(key, each, window) for each in written[:count]]
    pattern = text.get("hybrid_layer_pattern")
    if isinstance(pattern, list) and len(pattern) >= count:  # MiMo V2: 1 has the window
        return ["windowed" if each and window else "full" for each in pattern[:count]]
    mixers = _mixers(text, family, count)
    if mixers is not None:
        return ["mixer" if each else "full" for each in mixers]
    windowed = _windowed(text, count) if window else None
    if windowed is not None:
        return ["windowed" if each else "full" for each in windowed]
    period: Sequence[LayerKind] | None = text.get("layer_period")
    if period is None:
        return ["windowed" if window else "full"] * count
    if not period:
        raise UsageError(
            "no 'layer_types'", where="config.json", advice="Which layers have attention or a window must be said."
        )
    kinds = [period[index % len(period)] for index in range(count)]
    return ["full" if kind == "windowed" and not window else kind for kind in kinds]


def _kind(key: str, word: object, window: int) -> LayerKind:
    if not isinstance(word, str) or word not in _WORDS:
        raise _unknown(key, word)
    kind = _WORDS[word]
    return "full" if kind == "windowed" and not window else kind


def _number(text: Config, name: str) -> int | None:
    value = text.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _mixers(text: Config, family: str, count: int) -> list[bool] | None:
    """Which layers have no attention; None where the file says nothing of that kind."""
    if period := _number(text, "attn_layer_period"):
        offset = _number(text, "attn_layer_offset") or 0
        return [(index - offset) % period != 0 for index in range(count)]
    if interval := _number(text, "full_attention_interval"):
        return [(index + 1) % interval != 0 for index in range(count)]
    if interval := _number(text, "layer_group_size"):  # bailing_hybrid, and the last layers that fill no group
        whole = count // interval * interval
        return [(index + 1) % interval != 0 and index < whole for index in range(count)]
    for key in ("attn_type_list",):  # MiniMax-01: 0 is lightning attention
        if isinstance(text.get(key), list):
            return [each == 0 for each in text[key][:count]]
    for key in ("full_attn_idxs", "attn_layer_indices"):
        if isinstance(text.get(key), list):
            return [index not in text[key] for index in range(count)]
    linear = text.get("linear_attn_config")
    if isinstance(linear, Mapping) and isinstance(linear.get("full_attn_layers"), list):  # Kimi Linear counts from 1
        return [index + 1 not in linear["full_attn_layers"] for index in range(count)]
    return None


def _windowed(text: Config, count: int) -> list[bool] | None:
    """Which layers have the window; None where the file says nothing of that kind."""
    rope = text.get("no_rope_layers")
    if _number(text, "attention_chunk_size") and isinstance(rope, list) and len(rope) >= count:
        return [bool(each) for each in rope[:count]]
    written = text.get("sliding_window_pattern")
    if isinstance(written, str) and written:  # EXAONE 4: L is windowed, G is not; the last layer never is
        letters = (written * count)[:count]
        return [each == "L" and index < count - 1 for index, each in enumerate(letters)]
    names = (
        "sliding_window_pattern",
        "_sliding_window_pattern",
        "global_attn_every_n_layers",
        "no_rope_layer_interval",
    )
    for name in names:
        if period := _number(text, name):
            return [(index + 1) % period != 0 for index in range(count)]
    first = _number(text, "max_window_layers")
    if first is not None and text.get("use_sliding_window"):  # Qwen2: the first layers have no window
        return [index >= first for index in range(count)]
    return None


def _sparse(text: Config, family: str, count: int) -> int:
    """How many layers have experts."""
    if isinstance(kinds := text.get("mlp_layer_types"), list) and len(kinds) >= count:
        return sum(kind != "dense" for kind in kinds[:count])
    if isinstance(layers := text.get("moe_layers"), list):
        return len([each for each in layers if each < count])
    if period := _number(text, "expert_layer_period"):
        offset = _number(text, "expert_layer_offset") or 0
        return sum((index - offset) % period == 0 for index in range(count))
    if isinstance(each_layer := text.get("moe_layer_freq"), list):
        return sum(map(bool, each_layer[:count]))
    start = next((n for name in _DENSE_FIRST if (n := _number(text, name)) is not None), 0)
    step = next((n for name in _STEPS if (n := _number(text, name))), 1)
    end = _number(text, "moe_layer_end_index")
    alone = text.get("mlp_only_layers")
    alone = alone if isinstance(alone, list) else []
    # DeepSeek counts the step from layer 0, the others from 1.
    shift = 0 if _number(text, "moe_layer_freq") else 1
    return sum(
        (index + shift) % step == 0 and index not in alone and (end is None or end < 0 or index <= end)
        for index in range(start, count)
    )


_DENSE_FIRST = ("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers")
_STEPS = ("interleave_moe_layer_step", "decoder_sparse_step", "moe_layer_interval", "moe_layer_freq")
