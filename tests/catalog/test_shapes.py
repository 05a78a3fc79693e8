"""Model shapes: published parameter counts, weight and KV-cache sizes, names, and the reading of config.json."""

from __future__ import annotations

import dataclasses

import pytest

from harness.catalog.config_json import config_from_shape, shape_from_config
from harness.catalog.quantization import quantization_from_config
from harness.catalog.shapes import (
    ModelShape,
    active_parameters,
    bytes_per_weight,
    find_shape,
    kv_bytes_per_token,
    parameters,
    shapes,
    weight_bytes,
)
from harness.errors import UsageError

# Published parameters, GiB at 16 bits, GiB at 4 bits with groups of 128, KV bytes per token at 16 bits. Text part only.
PUBLISHED = [
    ("Llama-3.1-8B", 8_030_261_248, 14.96, 5.33, 131_072),
    ("Llama-3.1-70B", 70_553_706_496, 131.42, 37.03, 327_680),
    ("Llama-3.1-405B", 405_853_388_800, 755.96, 202.17, 516_096),
    ("Llama-3.2-1B", 1_235_814_400, 2.30, 0.96, 32_768),
    ("Llama-3.2-3B", 3_212_749_824, 5.98, 2.10, 114_688),
    ("Llama-2-7B", 6_738_415_616, 12.55, 3.62, 524_288),
    ("Llama-2-13B", 13_015_864_320, 24.24, 6.75, 819_200),
    ("Llama-2-70B", 68_976_648_192, 128.48, 34.10, 327_680),
    ("Mistral-7B-v0.3", 7_248_023_552, 13.50, 3.88, 131_072),
    ("Mixtral-8x7B", 46_702_792_704, 86.99, 22.96, 131_072),
    ("Mixtral-8x22B", 140_630_071_296, 261.94, 68.60, 229_376),
    ("Qwen2.5-0.5B", 494_032_768, 0.92, 0.43, 12_288),
    ("Qwen2.5-1.5B", 1_543_714_304, 2.88, 1.07, 28_672),
    ("Qwen2.5-7B", 7_615_616_512, 14.19, 5.19, 57_344),
    ("Qwen2.5-14B", 14_770_033_664, 27.51, 9.29, 196_608),
    ("Qwen2.5-32B", 32_763_876_352, 61.03, 18.00, 262_144),
    ("Qwen2.5-72B", 72_706_203_648, 135.43, 38.61, 327_680),
    ("Qwen3-0.6B", 596_049_920, 1.11, 0.50, 114_688),
    ("Qwen3-4B", 4_022_468_096, 7.49, 2.48, 147_456),
    ("Qwen3-8B", 8_190_735_360, 15.26, 5.68, 147_456),
    ("Qwen3-14B", 14_768_307_200, 27.51, 9.29, 163_840),
    ("Qwen3-32B", 32_762_123_264, 61.02, 18.00, 262_144),
    ("Qwen3-30B-A3B", 30_532_122_624, 56.87, 15.63, 98_304),
    ("Gemma-2-9B", 9_241_705_984, 17.21, 5.74, 344_064),
    ("Gemma-2-27B", 27_227_128_320, 50.71, 14.80, 376_832),
    ("Gemma-3-1B", 999_885_952, 1.86, 0.90, 26_624),
    ("Gemma-3-4B", 3_880_263_168, 7.23, 2.80, 139_264),
    ("Gemma-3-12B", 11_766_034_176, 21.92, 7.08, 393_216),
    ("Gemma-3-27B", 27_009_346_304, 50.31, 15.01, 507_904),
    ("Phi-3-mini-4k", 3_821_079_552, 7.12, 2.12, 393_216),
    ("Phi-4", 14_659_507_200, 27.31, 8.51, 204_800),
    ("Phi-4-mini", 3_836_021_760, 7.15, 2.70, 131_072),
    ("SmolLM2-135M", 134_515_008, 0.25, 0.10, 23_040),
    ("SmolLM2-1.7B", 1_711_376_384, 3.19, 0.97, 196_608),
    ("CodeLlama-34B", 33_743_970_304, 62.85, 17.05, 196_608),
    ("Yi-6B", 6_061_035_520, 11.29, 3.66, 65_536),
    ("bloom-560m", 559_214_592, 1.04, 0.62, 98_304),
    ("opt-125m", 125_239_296, 0.23, 0.12, 36_864),
    ("GPT-2", 124_439_808, 0.23, 0.12, 36_864),
]


@pytest.mark.parametrize(("name", "count", "full", "packed", "cache"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_sizes_are_the_published_ones(name: str, count: int, full: float, packed: float, cache: int) -> None:
    """Parameters to the last one; sizes as far as they are printed."""
    shape = dataclasses.replace(shapes()[name], vision_parameters=0)
    assert parameters(shape) == count
    assert weight_bytes(shape) / 2**30 == pytest.approx(full, abs=0.006)
    assert weight_bytes(shape, "awq") / 2**30 == pytest.approx(packed, abs=0.011)
    assert kv_bytes_per_token(shape) == cache


def test_active_parameters_of_expert_models() -> None:
    """Mixtral uses 12.9 billion of its 46.7 per token, Qwen3-30B-A3B 3.35 of 30.5, DeepSeek-V3 37 of 671."""
    assert active_parameters(shapes()["Mixtral-8x7B"]) == pytest.approx(12.88e9, rel=1e-3)
    assert active_parameters(shapes()["Qwen3-30B-A3B"]) == pytest.approx(3.35e9, rel=1e-3)
    deepseek = shapes()["DeepSeek-V3"]
    assert parameters(deepseek) == pytest.approx(671e9, rel=1e-3)
    assert active_parameters(deepseek) == pytest.approx(37e9, rel=0.02)
    assert active_parameters(shapes()["Llama-3.1-8B"]) == parameters(shapes()["Llama-3.1-8B"])


def test_kv_cache_is_what_tgi_stores() -> None:
    """An fp8 cache halves it, shards divide it, one KV head is replicated, latent attention is stored decompressed."""
    llama = shapes()["Llama-3.1-8B"]
    assert kv_bytes_per_token(llama, "fp8_e4m3fn") == 65_536
    assert kv_bytes_per_token(llama, shards=4) == 32_768
    assert kv_bytes_per_token(shapes()["Gemma-3-1B"], shards=2) == 26_624
    assert kv_bytes_per_token(shapes()["DeepSeek-V3"]) == 5_996_544


@pytest.mark.parametrize(
    ("repo", "name"),
    [
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "Llama-3.1-8B"),
        ("meta-llama/Meta-Llama-3-8B", "Llama-3-8B"),
        ("meta-llama/Llama-3.3-70B-Instruct", "Llama-3.1-70B"),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", "Llama-3.1-8B"),
        ("neuralmagic/Meta-Llama-3.1-8B-Instruct-FP8-dynamic", "Llama-3.1-8B"),
        ("TheBloke/Llama-2-13B-chat-GPTQ", "Llama-2-13B"),
        ("meta-llama/Llama-2-70b-hf", "Llama-2-70B"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "Mistral-7B-v0.3"),
        ("mistralai/Mistral-Nemo-Instruct-2407", "Mistral-Nemo-12B"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "Mixtral-8x7B"),
        ("HuggingFaceH4/zephyr-7b-beta", "Mistral-7B-v0.1"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen2.5-7B"),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", "Qwen2.5-32B"),
        ("Qwen/Qwen3-4B-Instruct-2507", "Qwen3-4B-2507"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "Llama-3.1-8B"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "DeepSeek-R1-Distill-Qwen-7B"),
        ("google/gemma-3-27b-it", "Gemma-3-27B"),
        ("microsoft/Phi-3-mini-4k-instruct", "Phi-3-mini-4k"),
        ("microsoft/Phi-4", "Phi-4"),
        ("openai-community/gpt2", "GPT-2"),
        ("bigscience/bloom-560m", "bloom-560m"),
        ("/data/models/Qwen2.5-0.5B-Instruct/", "Qwen2.5-0.5B"),
    ],
)
def test_a_shape_is_found_by_hub_id(repo: str, name: str) -> None:
    """Organisation, tuning and storage format do not change the shape."""
    found = find_shape(repo)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("repo", ["google/flan-t5-xl", "acme/unknown-9b", "", "Llama-3.1"])
def test_an_unknown_model_has_no_shape(repo: str) -> None:
    """Better none than a wrong one."""
    assert find_shape(repo) is None


@pytest.mark.parametrize(
    "shape",
    [
        shape
        for shape in shapes().values()
        if not shape.kv_lora and not shape.mixer_layers and shape.name != "GLM-4.5-Air"
    ],
    ids=lambda shape: shape.name,
)
def test_the_launchers_view_of_a_shape_reads_back(shape: ModelShape) -> None:
    """A config.json made from a shape gives that shape's sizes again, but for windows, which TGI's memory ignores."""
    read = shape_from_config(config_from_shape(shape) | {"num_experts": shape.experts, "sliding_window": None})
    assert parameters(read) == parameters(dataclasses.replace(shape, vision_parameters=0))
    assert kv_bytes_per_token(read) == kv_bytes_per_token(shape)
    assert read.context == shape.context


def test_config_json_of_a_vision_model() -> None:
    """The language model's fields stand under text_config."""
    text = {
        "hidden_size": 2560,
        "num_hidden_layers": 34,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "intermediate_size": 10240,
        "vocab_size": 262208,
        "sliding_window": 1024,
        "max_position_embeddings": 131072,
    }
    shape = shape_from_config({"model_type": "gemma3", "text_config": text, "vision_config": {}})
    assert parameters(shape) == 3_880_263_168
    assert (shape.window, shape.windowed_layers) == (1024, 29)


def test_config_json_of_deepseek() -> None:
    """Latent attention, shared experts and leading dense layers are read from their own fields."""
    config = {
        "model_type": "deepseek_v3",
        "hidden_size": 7168,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": 3,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "vocab_size": 129280,
        "max_position_embeddings": 163840,
        "tie_word_embeddings": False,
    }
    assert dataclasses.replace(shape_from_config(config), name="DeepSeek-V3") == shapes()["DeepSeek-V3"]


def test_a_config_without_layers_is_refused_by_name() -> None:
    """The message says which field is missing."""
    with pytest.raises(UsageError, match="num_hidden_layers"):
        shape_from_config({"model_type": "acme", "hidden_size": 8, "num_attention_heads": 2, "vocab_size": 10})


def test_quantization_is_read_from_the_config() -> None:
    """`quant_method` names it; without a section there is none."""
    assert quantization_from_config({"quantization_config": {"quant_method": "awq"}}) == "awq"
    assert quantization_from_config({}) is None


def test_an_unknown_quantization_is_refused() -> None:
    """With the names that are known."""
    with pytest.raises(UsageError, match="awq"):
        bytes_per_weight("int3")
