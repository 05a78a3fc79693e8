"""Shapes from config.json as published, held against counts that Transformers made and products made by hand.

architectures.json: of each model where its config.json can be read in public (source), the fields of it that sizes
depend on, cut to these; the parameters of its language model, counted by building it in Transformers 5.24.0 without
memory; and the values of its KV cache per token as a product written by hand: 2 (keys and values) * layers * KV heads *
head size. Llama-Nemotron Super has no class in Transformers; its parameters are summed by hand: 80 blocks, of which 49
have attention of 64 heads and 8 KV heads, and feed-forwards of ffn_mult * 8,192 * 2 / 3 rounded up to 256.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from harness.catalog.config_fields import text_config
from harness.catalog.config_json import shape_from_config
from harness.catalog.gpus import find_gpu
from harness.catalog.layers import read_layers
from harness.catalog.quantization import quantization_from_config
from harness.catalog.shapes import active_parameters, kv_bytes_per_token, parameters, weight_bytes
from harness.errors import UsageError
from harness.simulator.laws.pool import Machine

PUBLISHED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "architectures.json").read_text(encoding="utf-8")
)


def product(text: str) -> int:
    """`2*48*8*256+2*4*2*512` as a number."""
    total = 0
    for addend in text.split("+"):
        size = 1
        for factor in addend.split("*"):
            size *= int(factor)
        total += size
    return total


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_every_parameter_and_every_cached_value_is_counted(name: str) -> None:
    """To the last one, whatever the config leaves to its class, nests, repeats by a pattern or has no attention in."""
    case = PUBLISHED[name]
    shape = shape_from_config(case["config"], name)
    assert parameters(shape) == case["parameters"]
    assert kv_bytes_per_token(shape) == 2 * product(case["kv"])


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("openai/gpt-oss-20b", 3.61),  # the model card counts without the embedding
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 17.17),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 17.18),
        ("moonshotai/Kimi-K2-Instruct", 32.86),
        ("Qwen/Qwen3-Coder-480B-A35B-Instruct", 35.47),
        ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16", 12.77),
        ("XiaomiMiMo/MiMo-V2-Flash", 15.45),
    ],
)
def test_active_parameters_are_those_of_the_model_cards(name: str, billions: float) -> None:
    """3.6, 17, 17, 32, 35, 12 and 15 billion."""
    shape = shape_from_config(PUBLISHED[name]["config"], name)
    outside = shape.vocab * shape.hidden if name == "openai/gpt-oss-20b" else 0
    assert (active_parameters(shape) - outside) / 1e9 == pytest.approx(billions, abs=0.01)


@pytest.mark.parametrize(
    ("name", "window", "layers"),
    [
        ("google/gemma-3-12b-it", 1024, 40),  # five of six
        ("HuggingFaceTB/SmolLM3-3B", 0, 0),  # switched off
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 8192, 36),  # chunks, three of four
        ("openai/gpt-oss-20b", 128, 12),  # every other
        ("XiaomiMiMo/MiMo-V2-Flash", 128, 39),  # ones in a list, not the chunks that it names too
        ("google/gemma-4-31B-it", 1024, 50),
        ("google/gemma-3n-E4B-it", 512, 16),  # of the twenty layers with a cache of their own
    ],
)
def test_windows_are_found_however_they_are_written(name: str, window: int, layers: int) -> None:
    """A period of the class, a list, a switch, chunks."""
    shape = shape_from_config(PUBLISHED[name]["config"], name)
    assert (shape.window, shape.windowed_layers) == (window, layers)


def test_letters_say_which_layers_have_the_window() -> None:
    """EXAONE 4: three with, one without; the last layer never has it."""
    config = {"model_type": "exaone4", "num_hidden_layers": 10, "sliding_window": 4096}
    kinds = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
    listed = {**config, "layer_types": [*(3 * kinds)[:9], "full_attention"]}
    assert shape_from_config({**config, "sliding_window_pattern": "LLLG"}) == shape_from_config(listed)


@pytest.mark.parametrize(
    ("fields", "full"),
    [
        ({"full_attention_interval": 4}, [3, 7]),
        ({"attn_layer_period": 4, "attn_layer_offset": 1}, [1, 5, 9]),
        ({"sliding_window": 64, "sliding_window_pattern": 4}, [3, 7]),
        ({"sliding_window": 64, "sliding_window_pattern": "LLG"}, [2, 5, 8, 9]),
        ({"sliding_window": 64, "layer_period": ["windowed", "full"]}, [1, 3, 5, 7, 9]),
        ({"attn_type_list": [0, 1, 0, 0, 0, 0, 0, 0, 0, 1]}, [1, 9]),
        ({"full_attn_idxs": [0, 8]}, [0, 8]),
        ({"linear_attn_config": {"full_attn_layers": [4, 8]}}, [3, 7]),
        ({"layer_group_size": 4}, [3, 7, 8, 9]),
        ({"attention_chunk_size": 64, "no_rope_layers": [1, 0] * 5}, [1, 3, 5, 7, 9]),
        ({"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 3}, [0, 1, 2]),
        ({"use_sliding_window": False, "sliding_window": 64}, list(range(10))),
    ],
)
def test_which_of_ten_layers_see_everything(fields: dict[str, Any], full: list[int]) -> None:
    """The period does not divide the ten, so that where it begins counts."""
    plan = read_layers(fields, "acme", 10)
    assert [index for index, kind in enumerate(plan.kinds) if kind == "full"] == full


def test_what_vllm_keeps_of_a_window() -> None:
    """gpt-oss-20b, 2,048 tokens in flight, a request of 131,072: twelve layers whole, twelve 128 - 1 + 2,048 tokens."""
    shape = shape_from_config(PUBLISHED["openai/gpt-oss-20b"]["config"])
    machine = Machine(shape, find_gpu("L40S"))
    layer = 2 * 8 * 64 * 2
    held = -(-(127 + 2048) // 16) * 16 + 16
    assert machine.kv_bytes_of_request(131072, 2048, 16) == 12 * layer * 131072 + 12 * layer * held
    assert machine.kv_bytes == 24 * layer


def test_latent_attention_is_kept_compressed_by_engines_that_can() -> None:
    """Kimi K2: 61 layers of 512 + 64 values, against 64 heads of 192 for keys and values in TGI."""
    shape = shape_from_config(PUBLISHED["moonshotai/Kimi-K2-Instruct"]["config"])
    assert Machine(shape, find_gpu("H200"), shards=8).kv_bytes == 61 * (512 + 64) * 2


def test_an_mxfp4_checkpoint_has_the_size_of_its_files() -> None:
    """gpt-oss-20b: 13.8 GB of files on the Hub; experts at 4.25 bits, the rest at 16."""
    config = PUBLISHED["openai/gpt-oss-20b"]["config"]
    assert quantization_from_config(config) == "mxfp4"
    assert weight_bytes(shape_from_config(config), "mxfp4") / 1e9 == pytest.approx(13.76, abs=0.15)


@pytest.mark.parametrize(
    ("kind", "written", "field", "value"),
    [
        ("qwen3_moe", {"num_experts": 160}, "experts", 160),
        ("qwen3_moe", {"num_local_experts": 160}, "experts", 160),
        ("deepseek_v3", {"num_local_experts": 32}, "experts", 32),
        ("ernie4_5_moe", {"num_experts_per_tok": 3}, "experts_per_token", 3),
        ("step3p5", {"num_attention_groups": 4}, "kv_heads", 4),
        ("gpt2", {"hidden_size": 1536}, "hidden", 1536),
    ],
)
def test_no_default_stands_beside_what_the_file_calls_otherwise(
    kind: str, written: dict[str, int], field: str, value: int
) -> None:
    """Qwen3-Coder-480B writes num_experts, its class num_local_experts: the class's 128 made it 387 billion."""
    assert getattr(shape_from_config({"model_type": kind, **written}), field) == value


def test_a_copy_under_a_model_type_of_its_own_is_still_not_reckoned() -> None:
    """Its class tells what it is."""
    with pytest.raises(UsageError, match="a model of class DeepseekV4ForCausalLM is not known to harness"):
        shape_from_config({"model_type": "deepseek_ref", "architectures": ["DeepseekV4ForCausalLM"]})


def test_nothing_is_taken_away_that_is_not_there() -> None:
    """Below zero in all makes no model."""
    shape = shape_from_config(PUBLISHED["google/gemma-4-31B-it"]["config"])
    assert shape.other_parameters < 0  # keys that serve as values
    assert shape.mistake() is None
    assert "other_parameters" in str(dataclasses.replace(shape, other_parameters=-(10**12)).mistake())


@pytest.mark.parametrize(
    ("section", "method"),
    [
        ({"quant_method": "awq"}, "awq"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_method": "modelopt_fp4"}, "nvfp4"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8"),
        (
            {
                "quant_method": "modelopt",
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {"a": {"quant_algo": "W4A16_NVFP4"}, "b": {"quant_algo": "FP8"}},
            },
            "nvfp4",
        ),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
            },
            "w4a16",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "float"}}},
            },
            "nvfp4",
        ),
        ({}, None),
    ],
)
def test_the_checkpoints_own_method(section: dict[str, Any], method: str | None) -> None:
    """Read from wherever makers put it, also beside the text's own fields."""
    assert quantization_from_config({"model_type": "llama", "quantization_config": section}) == method
    assert quantization_from_config({"text_config": {"quantization_config": section}}) == method


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True}, "an encoder with a decoder is not known to harness"),
        ({"model_type": "zamba2"}, "model type 'zamba2' is not known to harness"),
        (
            {"model_type": "llama", "num_hidden_layers": 2, "layer_types": ["heavily_compressed_attention"] * 2},
            "layers of the kind 'heavily_compressed_attention' are not known to harness",
        ),
        ({"model_type": "acme", "hidden_size": 64, "num_attention_heads": 4}, "no 'num_hidden_layers'"),
        ({"model_type": "llama", "num_hidden_layers": 0}, "0 is not a size for 'num_hidden_layers'"),
    ],
)
def test_what_is_not_reckoned_says_so(config: dict[str, Any], words: str) -> None:
    """Better no figure than one that is wrong by far."""
    with pytest.raises(UsageError, match=words):
        shape_from_config(config)


def test_the_file_goes_before_its_class() -> None:
    """A null is a word too, and what stands outside of the text's own fields counts where those say nothing."""
    assert text_config({"model_type": "gemma3_text", "sliding_window": None})["sliding_window"] is None
    outside = {"model_type": "qwen3_vl_moe", "tie_word_embeddings": False, "text_config": {"num_hidden_layers": 2}}
    assert not text_config(outside)["tie_word_embeddings"]
    assert text_config(outside)["model_type"] == "qwen3_vl_moe_text"
