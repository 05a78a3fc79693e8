"""Decisions of TGI's launcher, as its own binary made them."""

from __future__ import annotations

import pytest

from harness.catalog.config_json import config_from_shape
from harness.catalog.gpus import find_gpu
from harness.catalog.shapes import shapes
from harness.simulator.launcher import (
    LauncherConfig,
    NoDeviceVariable,
    ShardError,
    Unreadable,
    count_devices,
    default_prefill,
    read_config,
    resolve_attention,
    resolve_cuda_graphs,
    resolve_shards,
    supports_chunking,
)
from harness.units import MIB

# What the launcher printed as its default of max_batch_prefill_tokens, one GPU, fp16.
CARDS = ("L4", "A10G", "A100", "H100", "H200")
PREFILL = {
    "Llama-3.1-8B": (8049, 8315, 20755, 59870, 65791),
    "Llama-3.2-1B": (58162, 60085, 131072, 131072, 131072),
    "Mistral-7B-v0.3": (8049, 8315, 20755, 32768, 32768),
    "Qwen2.5-7B": (8787, 9077, 22658, 32768, 32768),
    "Qwen2.5-0.5B": (32768, 32768, 32768, 32768, 32768),
}


def config_of(model: str) -> LauncherConfig:
    return read_config(config_from_shape(shapes()[model]))


def prefill_of(model: str, card: str, **more: float) -> int:
    gpu = find_gpu(card)
    return default_prefill(config_of(model), gpu.smi_name, gpu.memory_bytes // MIB, **more).tokens  # type: ignore[arg-type]


@pytest.mark.parametrize("model", PREFILL)
def test_the_default_prefill_budget_is_the_launchers(model: str) -> None:
    """To the token, for each of five cards."""
    assert tuple(prefill_of(model, card) for card in CARDS) == PREFILL[model]


def test_without_nvidia_smi_the_default_is_4096_or_the_models_length() -> None:
    """And 8000 or 10000 for two families of vision models."""
    assert default_prefill(config_of("Llama-3.1-8B"), None, None).tokens == 4096
    assert default_prefill(config_of("GPT-2"), None, None).tokens == 1024
    assert default_prefill(None, "NVIDIA L4", 23034).tokens == 4096
    assert default_prefill(config_of("Gemma-3-4B"), None, None).tokens == 8000
    assert default_prefill(LauncherConfig(model_type="qwen2_5_vl"), None, None).tokens == 10_000


def test_an_unlisted_card_is_warned_of_and_counts_as_unknown() -> None:
    """The real name of a 4090 is not in the launcher's table; memory still limits."""
    found = default_prefill(config_of("Llama-3.1-8B"), "NVIDIA GeForce RTX 4090", 24564)
    assert found.lines[0] == ("WARN", "Unkown compute for card nvidia-geforce-rtx-4090")
    assert found.tokens == 4096


def test_too_little_memory_lowers_the_default_with_a_warning() -> None:
    """The warning names both values."""
    found = default_prefill(config_of("Llama-3.1-8B"), "NVIDIA A10G", 15_000)
    assert found.lines[0] == (
        "WARN",
        "Reducing the max batch prefill from 8315 to 1893 because there is not enough VRAM to support it.",
    )
    assert found.lines[1] == ("INFO", "Default `max_batch_prefill_tokens` to 1893")


def test_a_model_that_does_not_fit_is_only_warned_of() -> None:
    """The estimate is then left out."""
    found = default_prefill(config_of("Llama-3.1-70B"), "NVIDIA L4", 23034)
    assert found.lines[0] == ("WARN", "Not enough VRAM to run the model: Available: 22.95GB - Model 127.68GB.")
    assert found.lines[1][1] == f"Default `max_batch_prefill_tokens` to {found.tokens}"


def test_the_users_wiggle_room_shifts_the_estimate() -> None:
    """The launcher reads TGI_WIGGLE_ROOM too."""
    config = config_of("Llama-3.1-8B")
    assert default_prefill(config, "NVIDIA A10G", 16_000).tokens == 5723
    assert default_prefill(config, "NVIDIA A10G", 16_000, wiggle_room=0.9).tokens == 2498


def test_an_unknown_quant_method_makes_the_file_unreadable() -> None:
    """As does a size that is no number."""
    with pytest.raises(Unreadable):
        read_config({"quantization_config": {"quant_method": "int3"}})
    with pytest.raises(Unreadable):
        read_config({"hidden_size": "4096"})


ATTENTION = [
    # model, capability, environment -> attention, prefix caching
    ("Llama-3.1-8B", (8, 9), {}, "flashinfer", "true"),
    ("Llama-3.1-8B", (7, 5), {}, "flashinfer", "true"),
    ("Llama-3.1-8B", (8, 9), {"attention": "paged"}, "paged", "0"),
    ("Llama-3.1-8B", (8, 9), {"prefix_caching": "0"}, "flashinfer", "0"),
    ("Llama-3.1-8B", (8, 9), {"lora_adapters": True}, "flashinfer", "0"),
    ("Phi-3-mini-4k", (8, 9), {}, "flashdecoding", "0"),
    ("Phi-3-mini-4k", (7, 5), {}, "paged", "0"),
    ("Phi-3-mini-4k", (8, 0), {"prefix_caching": "1"}, "flashdecoding", "1"),
    ("Falcon-7B", (8, 0), {}, "flashdecoding", "true"),
    ("Falcon-7B", None, {}, "paged", "0"),
    ("Gemma-3-4B", (8, 0), {}, "flashinfer", "0"),
]


@pytest.mark.parametrize(("model", "capability", "environment", "attention", "caching"), ATTENTION)
def test_attention_and_prefix_caching(
    model: str, capability: tuple[int, int] | None, environment: dict[str, object], attention: str, caching: str
) -> None:
    """Head size, family, vision and compute capability decide what the environment leaves open."""
    choice = resolve_attention(config_of(model), capability, **environment)  # type: ignore[arg-type]
    assert (choice.attention, choice.prefix_caching) == (attention, caching)


def test_an_unreadable_config_leaves_the_defaults() -> None:
    """flashinfer with prefix caching."""
    assert resolve_attention(None, None)[:2] == ("flashinfer", "true")


def test_chunking_depends_on_model_attention_and_speculation() -> None:
    """Not on paged attention, not with speculation, not for Gemma 3 with vision, not through the generic backend."""
    assert supports_chunking("llama", "flashinfer")
    assert not supports_chunking("llama", "paged")
    assert not supports_chunking("llama", "flashinfer", speculate=2)
    assert not supports_chunking("llama", "flashinfer", switched_on=False)
    assert not supports_chunking("gemma3", "flashinfer")
    assert not supports_chunking("qwen3", "flashinfer")


@pytest.mark.parametrize(
    ("environment", "installed", "devices"),
    [
        ({}, 4, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, 4, 2),
        ({"CUDA_VISIBLE_DEVICES": "0", "NVIDIA_VISIBLE_DEVICES": "all"}, 4, 1),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, 4, 4),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, 2, 2),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, None, None),
        ({"NVIDIA_VISIBLE_DEVICES": "GPU-1,GPU-2,GPU-3"}, 8, 3),
        ({"ZE_AFFINITY_MASK": "0,1"}, None, 2),
    ],
)
def test_devices_that_the_environment_names(
    environment: dict[str, str], installed: int | None, devices: int | None
) -> None:
    """From 3.3.7 on `all` and `void` mean every GPU that nvidia-smi lists."""
    assert count_devices(environment, installed) == devices


def test_number_of_shards() -> None:
    """An explicit number wins; else the devices; a refusal has the launcher's text."""
    assert resolve_shards(None, 3, 8) == 3
    assert resolve_shards(None, None, 4) == 4
    assert resolve_shards(None, None, None) == 1
    assert resolve_shards(False, None, 4) == 1
    assert resolve_shards(True, None, 2) == 2
    with pytest.raises(ShardError, match="`num_shard` cannot be < 1"):
        resolve_shards(None, 0, 4)
    with pytest.raises(ShardError, match="`sharded` is true but `num_shard` <= 1"):
        resolve_shards(True, 1, 4)
    with pytest.raises(ShardError, match="`sharded` is true but only found 1 CUDA devices") as refusal:
        resolve_shards(True, None, 1)
    assert refusal.value.kind == "NotEnoughCUDADevices"
    with pytest.raises(NoDeviceVariable):
        resolve_shards(True, None, None)


def test_cuda_graphs() -> None:
    """The default list, none for two quantizations, a given list without its zero."""
    assert resolve_cuda_graphs(None, None) == (
        [1, 2, 4, 8, 16, 32],
        [("INFO", "Using default cuda graphs [1, 2, 4, 8, 16, 32]")],
    )
    assert resolve_cuda_graphs(None, "exl2")[0] == []
    assert resolve_cuda_graphs([0], None) == ([], [])
    assert resolve_cuda_graphs([8, 0, 2], "bitsandbytes") == ([8, 2], [])
