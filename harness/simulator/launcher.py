"""What TGI's launcher decides before any process starts (launcher/src/main.rs of TGI 3.3.7, lines as noted).

They read the model's config.json the way the launcher does, with what it fails to see. Log lines are returned with the
decision, as (level, text), for whoever prints them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from harness.simulator.rust import f32
from harness.units import MIB

Line = tuple[Literal["INFO", "WARN"], str]

QUANTIZATIONS = (
    "awq",
    "compressed-tensors",
    "eetq",
    "exl2",
    "gptq",
    "marlin",
    "bitsandbytes",
    "bitsandbytes-nf4",
    "bitsandbytes-fp4",
    "fp8",
)

DEFAULT_CUDA_GRAPHS = (1, 2, 4, 8, 16, 32)

# TFLOP/s by the lower-cased name of nvidia-smi with dashes for spaces (main.rs:1712-1785).
_COMPUTE = {
    "nvidia-4090": 82,
    "nvidia-t4": 65,
    "nvidia-l4": 121,
    "nvidia-l40": 181,
    "nvidia-l40s": 363,
    "nvidia-a10g": 125,
    "nvidia-a40": 149,
    "nvidia-a100-sxm4-80gb": 312,
    "nvidia-a100-sxm4-40gb": 312,
    "nvidia-a100-80gb-pcie": 312,
    "nvidia-a100": 312,
    "nvidia-h100-80gb-hbm3": 900,
    "nvidia-h100-nvl": 900,
    "nvidia-h100": 900,
    "nvidia-h200": 989,
}


class Unreadable(ValueError):
    """config.json is not what the launcher can deserialise; it then goes on as if there were none."""


@dataclass(frozen=True)
class LauncherConfig:
    """The fields of config.json that the launcher reads (main.rs:203-404). None where the file has none."""

    max_position_embeddings: int | None = None
    quantize: str | None = None
    head_dim: int | None = None
    num_heads: int | None = None
    num_kv_heads: int | None = None
    num_layers: int | None = None
    intermediate_size: int | None = None
    hidden_size: int | None = None
    vocab_size: int | None = None
    model_type: str | None = None
    text_head_dim: int | None = None
    vision: bool = False
    encoder_decoder: bool = False
    experts_per_token: int = 1
    shared_experts: int = 0
    experts: int = 1

    def resolved_head_dim(self) -> int | None:
        """What attention is chosen by; 256 for a Gemma 3 whose file does not say (main.rs:262-279)."""
        found = self.head_dim if self.head_dim is not None else self.text_head_dim
        return 256 if found is None and self.model_type == "gemma3" else found


def read_config(config: Mapping[str, Any]) -> LauncherConfig:
    """The launcher's view of a config.json. Raises Unreadable, for example for an unknown quant_method."""
    hidden = _size(config, "hidden_size", "n_embd")
    heads = _size(config, "num_attention_heads")
    derived = hidden // heads if hidden and heads and hidden % heads == 0 else None
    text = config.get("text_config")
    return LauncherConfig(
        max_position_embeddings=_size(config, "max_position_embeddings", "max_seq_len", "n_positions"),
        quantize=_quant_method(config),
        head_dim=_first(_size(config, "head_dim"), derived),
        num_heads=heads,
        num_kv_heads=_first(_size(config, "num_key_value_heads"), heads),
        num_layers=_size(config, "num_hidden_layers"),
        intermediate_size=_size(config, "intermediate_size"),
        hidden_size=hidden,
        vocab_size=_size(config, "vocab_size"),
        model_type=config.get("model_type"),
        text_head_dim=_size(text, "head_dim") if isinstance(text, Mapping) else None,
        vision=config.get("vision_config") is not None,
        encoder_decoder=bool(config.get("is_encoder_decoder")),
        experts_per_token=_first(_size(config, "num_experts_per_tok"), 1) or 0,
        shared_experts=_size(config, "n_shared_experts") or 0,
        experts=_first(_size(config, "num_local_experts"), 1) or 0,
    )


def _size(config: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise Unreadable(f"{name}: {value!r}")
        return value
    return None


def _first(value: int | None, otherwise: int | None) -> int | None:
    return value if value is not None else otherwise


def _quant_method(config: Mapping[str, Any]) -> str | None:
    section = config.get("quantization_config")
    method = section.get("quant_method") if isinstance(section, Mapping) else None
    if method is not None and method not in QUANTIZATIONS:
        raise Unreadable(f"quant_method: {method!r}")
    return method


class AttentionChoice(NamedTuple):
    """prefix_caching: the text of the environment variable: `true`, `0`, or what was set."""

    attention: str
    prefix_caching: str
    lines: list[Line]


def resolve_attention(
    config: LauncherConfig | None,
    compute_capability: tuple[int, int] | None,
    *,
    attention: str | None = None,
    prefix_caching: str | None = None,
    lora_adapters: bool = False,
) -> AttentionChoice:
    """Attention and prefix caching (main.rs:131-200). attention, prefix_caching: the environment's own."""
    lines: list[Line] = []

    def caching_off(reason: str | None) -> str:
        if prefix_caching is None and reason is not None:
            lines.append(("INFO", f"Disabling prefix caching {reason}"))
        return prefix_caching if prefix_caching is not None else "0"

    if config is not None:
        fallback = "paged" if compute_capability is None or compute_capability[0] < 8 else "flashdecoding"
        if config.vision:
            prefix_caching = caching_off("because of VLM model")
        elif config.encoder_decoder:
            prefix_caching = caching_off("because of seq2seq model")
        if config.resolved_head_dim() in (64, 128, 256):
            if lora_adapters:
                prefix_caching = caching_off("because of lora adapters")
            if config.model_type in ("falcon", "deepseek_v2"):
                if attention is None:
                    attention = fallback
                    text = f"Forcing attention to '{fallback}' because model {config.model_type} requires it"
                    lines.append(("INFO", text))
                if fallback == "paged":
                    prefix_caching = caching_off("because it is not supported with 'paged' attention")
        else:
            if attention is None:
                attention = fallback
                why = "because head dim is not supported by flashinfer, also disabling prefix caching"
                lines.append(("INFO", f"Forcing attention to '{fallback}' {why}"))
            prefix_caching = caching_off(None)
    if attention == "paged":
        prefix_caching = caching_off("on paged attention")
    return AttentionChoice(attention or "flashinfer", prefix_caching if prefix_caching is not None else "true", lines)


BLOCK_SIZES = {"flashinfer": 1, "flashdecoding": 256, "flashdecoding-ipex": 64, "paged": 16}
"""Tokens per KV-cache block (models/globals.py:37-46)."""

PADDED_MODELS = frozenset({"bloom", "mpt", "opt", "galactica"})
"""Model types without a flash path: their batches are padded, and nobody measures their budget."""

_CHUNKING_MODELS = frozenset(
    """
    llama phi3 granite phi phimoe phi-msft baichuan gemma gemma2 gemma3_text cohere dbrx falcon RefinedWeb
    RefinedWebModel mistral mixtral starcoder2 qwen2 gpt2 gptj gpt_neox gpt_bigcode deepseek_v2 deepseek_v3 llava_next
    idefics2 idefics3 paligemma
    """.split()  # noqa: SIM905 - thirty quotes would not read better
)


def supports_chunking(model_type: str | None, attention: str, *, speculate: int = 0, switched_on: bool = True) -> bool:
    """Whether prefill is chunked (models/model.py:73-95).

    Not with speculation, not with paged attention, and not where the model's class does not pass the flag: some vision
    models, and everything that runs through the generic Transformers backend (Qwen 3, for instance).
    """
    able = attention in ("flashinfer", "flashdecoding", "flashdecoding-ipex")
    return switched_on and able and speculate == 0 and (model_type is None or model_type in _CHUNKING_MODELS)


class PrefillDefault(NamedTuple):
    """Default of max_batch_prefill_tokens, with what the launcher logs about it."""

    tokens: int
    lines: list[Line]


def default_prefill(
    config: LauncherConfig | None,
    card: str | None,
    memory_mib: int | None,
    shards: int = 1,
    *,
    memory_fraction: float = 1.0,
    wiggle_room: float | None = None,
) -> PrefillDefault:
    """Default of max_batch_prefill_tokens (main.rs:28-92, 2114-2154).

    card, memory_mib: gpu_name and memory.total of the first row of nvidia-smi; None without it. wiggle_room: the value
    of TGI_WIGGLE_ROOM, which the launcher takes as 0.95 when unset while the server takes 0.90.
    """
    lines: list[Line] = []
    compute = _compute(card, shards, lines) if config is not None and card is not None else None
    default = _optimal(config, compute) or _fixed_default(config)
    value = default
    if config is not None and config.max_position_embeddings is not None:
        value = min(value, config.max_position_embeddings)
    allowed = None
    if config is not None and memory_mib is not None:
        available = _available(memory_mib, shards, memory_fraction, 0.95 if wiggle_room is None else wiggle_room)
        allowed = _tokens_that_fit(config, available, lines)
    if allowed is not None and allowed < value:
        why = "because there is not enough VRAM to support it."
        lines.append(("WARN", f"Reducing the max batch prefill from {default} to {allowed} {why}"))
        value = allowed
    lines.append(("INFO", f"Default `max_batch_prefill_tokens` to {value}"))
    return PrefillDefault(value, lines)


def _fixed_default(config: LauncherConfig | None) -> int:
    model_type = config.model_type if config is not None else None
    return {"qwen2_vl": 10_000, "qwen2_5_vl": 10_000, "gemma3": 8000}.get(model_type or "", 4096)


def _compute(card: str, shards: int, lines: list[Line]) -> int | None:
    key = card.replace(" ", "-").lower()
    if key not in _COMPUTE:
        lines.append(("WARN", f"Unkown compute for card {key}"))
        return None
    return _COMPUTE[key] * 10**12 * shards


def _optimal(config: LauncherConfig | None, compute: int | None) -> int | None:
    """Tokens whose arithmetic takes the GPU a second; what is not above 100 is taken for a mistake."""
    flops = _flops_per_token(config) if config is not None else None
    if not compute or not flops:
        return None
    tokens = compute // flops
    return tokens if tokens > 100 else None


def _flops_per_token(config: LauncherConfig) -> int | None:
    """main.rs:281-308; None for a vision model or where a field is missing."""
    values = _values(config, "num_heads", "num_kv_heads", "hidden_size", "intermediate_size", "num_layers")
    head_dim = config.resolved_head_dim()
    if config.vision or values is None or head_dim is None:
        return None
    heads, kv_heads, hidden, inner, layers = values
    width = inner * (config.experts_per_token + config.shared_experts)
    return layers * (2 * hidden * head_dim * (3 * heads + 2 * kv_heads) + 6 * hidden * width)


def _values(config: LauncherConfig, *names: str) -> list[int] | None:
    values = [getattr(config, name) for name in names]
    return None if None in values else values


def _available(memory_mib: int, shards: int, memory_fraction: float, wiggle_room: float) -> int:
    total = f32(float(memory_mib * MIB * shards))
    return int(f32(f32(total * f32(memory_fraction)) * f32(wiggle_room)))


def _tokens_that_fit(config: LauncherConfig, available: int, lines: list[Line]) -> int | None:
    """main.rs:62-92, 310-351; None for a quantised model, an incomplete file, or a model that does not fit."""
    names = ("num_heads", "num_kv_heads", "hidden_size", "intermediate_size", "num_layers", "vocab_size")
    values, head_dim = _values(config, *names), config.resolved_head_dim()
    if config.quantize or values is None or head_dim is None:
        return None
    heads, kv_heads, hidden, inner, layers, vocab = values
    layer = 3 * inner * config.experts * hidden + (heads + 2 * kv_heads) * head_dim + heads * head_dim * hidden
    model = 2 * (layer * layers + 2 * hidden * vocab)
    token = 4 * kv_heads * head_dim * layers + (inner + inner // 2) * config.experts * 2 * 3
    if model > available:
        sizes = f"Available: {_human(available)} - Model {_human(model)}."
        lines.append(("WARN", f"Not enough VRAM to run the model: {sizes}"))
        return None
    return (available - model) // token


def _human(size: int) -> str:
    """main.rs:48-60: decimal units without the last step down."""
    value, prefixes = float(size), ["", "K", "M", "G", "T"]
    while value > 1000 and len(prefixes) > 1:
        value, prefixes = value / 1000, prefixes[1:]
    return f"{value:.2f}{prefixes[0]}B"


class ShardError(ValueError):
    """The launcher refuses. kind: `ArgumentValidation` or `NotEnoughCUDADevices`; str() is the text in its `Error:`."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class NoDeviceVariable(ValueError):
    """`--sharded true` where no variable names any device: the launcher panics (exit code 101)."""


def count_devices(environment: Mapping[str, str], installed: int | None) -> int | None:
    """Devices that the environment names; None when it names none (main.rs:1262-1292).

    installed: GPUs that nvidia-smi lists, asked for where NVIDIA_VISIBLE_DEVICES is `all` or `void`; None without it.
    """
    devices = environment.get("CUDA_VISIBLE_DEVICES")
    if devices is None:
        devices = environment.get("NVIDIA_VISIBLE_DEVICES")
        if devices is not None and devices.strip() in ("all", "void"):
            return None if installed is None else max(1, installed)
    if devices is None:
        devices = environment.get("ZE_AFFINITY_MASK")
    return None if devices is None else len(devices.split(","))


def resolve_shards(sharded: bool | None, num_shard: int | None, devices: int | None) -> int:
    """Number of shards (main.rs:1374-1412). devices: of count_devices. Raises ShardError, NoDeviceVariable."""
    if sharded is True and num_shard is None:
        if devices is None:
            raise NoDeviceVariable
        if devices <= 1:
            text = f"`sharded` is true but only found {devices} CUDA devices"
            raise ShardError("NotEnoughCUDADevices", text)
        return devices
    if sharded is True and num_shard is not None and num_shard <= 1:
        raise ShardError("ArgumentValidation", "`sharded` is true but `num_shard` <= 1")
    if num_shard is None:
        num_shard = 1 if sharded is False else devices if devices is not None else 1
    if num_shard < 1:
        raise ShardError("ArgumentValidation", "`num_shard` cannot be < 1")
    return num_shard


def resolve_cuda_graphs(given: list[int] | None, quantize: str | None) -> tuple[list[int], list[Line]]:
    """Batch sizes to capture, in the launcher's order (main.rs:2169-2185)."""
    if given is not None:
        return [size for size in given if size > 0], []
    if quantize == "bitsandbytes":
        return [], [("WARN", "Bitsandbytes doesn't work with cuda graphs, deactivating them")]
    if quantize == "exl2":
        return [], [("WARN", "Exl2 doesn't work with cuda graphs, deactivating them")]
    sizes = list(DEFAULT_CUDA_GRAPHS)
    return sizes, [("INFO", f"Using default cuda graphs {sizes}")]
