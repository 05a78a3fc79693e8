"""Can this release serve this architecture: the tables of all engines, and what is said between the releases read."""

from __future__ import annotations

from typing import Any

import pytest

from harness.catalog.config_json import shape_from_config
from harness.catalog.models import parse_catalogue
from harness.catalog.shapes import find_shape
from harness.engines import ENGINES, accepted, engine_named, support_of
from harness.engines.support import NOT_READ, Support, answer, read_architectures, who_can

TABLE = read_architectures(
    """# A registry. Read 2026-11-30 from a file.
# read: 0.8.0 0.11.0 0.21.0
# fallback: 0.8.0
OldForCausalLM 0.8.0 0.11.0
LlamaForCausalLM 0.8.0 -
Qwen3ForCausalLM 0.11.0 -
SmolLM3ForCausalLM 0.11.0 - fallback
"""
)


def shape(model_type: str, architecture: str = "", **more: Any) -> Any:
    known = find_shape("Llama-3.1-8B")
    assert known is not None
    from dataclasses import replace

    return replace(known, model_type=model_type, architecture=architecture, **more)


@pytest.mark.parametrize(
    ("version", "one", "kind", "words"),
    [
        ((0, 11, 0), shape("llama"), "native", "X 0.11.0 serves LlamaForCausalLM natively"),
        ((0, 30, 0), shape("llama"), "native", "natively, 0.21.0 is the newest that was read"),
        ((0, 7, 0), shape("llama"), "unknown", "is not known here, 0.8.0 does"),
        ((0, 8, 0), shape("qwen3"), "no", "does not serve Qwen3ForCausalLM: 0.8.0 did not yet, 0.11.0 does"),
        ((0, 9, 2), shape("qwen3"), "unknown", "may serve Qwen3ForCausalLM: 0.8.0 does not, 0.11.0 does"),
        ((0, 21, 0), shape("old", "OldForCausalLM"), "no", "no longer serves OldForCausalLM; the last"),
        ((0, 15, 0), shape("old", "OldForCausalLM"), "unknown", "may serve OldForCausalLM: 0.11.0 does"),
        ((0, 21, 0), shape("smollm3"), "fallback", "serves SmolLM3ForCausalLM by its Transformers fallback"),
        ((0, 21, 0), shape("gemma3"), "fallback", "if its Transformers knows it"),
        ((0, 7, 0), shape("gemma3"), "no", "does not serve Gemma3ForConditionalGeneration"),
        ((0, 21, 0), shape("acme", "AcmeForCausalLM"), "no", "does not serve AcmeForCausalLM"),
        ((0, 22, 0), shape("acme", "AcmeForCausalLM"), "unknown", "was not read; 0.21.0 does not serve"),
        ((0, 21, 0), shape("gemma3", mixer_layers=3), "no", "fallback has no such layers"),
        ((0, 21, 0), shape("acme"), "unknown", "model type 'acme' is not known here"),
    ],
)
def test_what_is_said_of_a_release(version: tuple[int, int, int], one: Any, kind: str, words: str) -> None:
    """Only what was read is claimed; between two releases that differ nothing is."""
    found = answer(TABLE, "X", version, one)
    assert found.kind == kind
    assert words in found.reason


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_every_engine_has_a_dated_table(engine: Any) -> None:
    """With the day, the releases and a model that everybody serves."""
    table = engine.architectures
    assert table.date == "2026-11-30"
    assert table.read == tuple(sorted(table.read))
    llama = find_shape("Llama-3.1-8B")
    assert llama is not None
    assert answer(table, engine.title, table.read[-1], llama).kind == "native"
    assert all(span.first in table.read for spans in table.spans.values() for span in spans)


@pytest.mark.parametrize(
    ("entry", "kind", "words"),
    [
        # get_model of TGI 3.3.7 has gemma3, takes qwen3 from Transformers 4.51, and knows no mistral3 or gpt_oss.
        ("repo: google/gemma-3-12b-it", "native", "TGI 3.3.7 serves gemma3 natively"),
        ("repo: Qwen/Qwen3-8B", "fallback", "by its Transformers fallback"),
        ("repo: openai/gpt-oss-20b", "no", "TGI 3.3.7 does not serve gpt_oss; vLLM 0.11.0 or newer, SGLang"),
        ("repo: google/gemma-3-12b-it, engine: {name: tgi, version: '2.4.1'}", "no", "2.4.1 does not serve gemma3"),
        ("repo: google/gemma-3-12b-it, engine: {name: vllm, version: '0.6.3'}", "no", "0.6.3 did not yet, 0.8.5"),
        ("repo: openai/gpt-oss-20b, engine: {name: vllm}", "native", "natively"),
        ("repo: mosaicml/mpt-7b, engine: {name: vllm}", "no", "the last release that did is 0.28.0"),
        ("repo: Qwen/Qwen3-8B, engine: {name: llamacpp, version: b11549}", "native", "natively"),
        ("repo: Qwen/Qwen3-8B, engine: {name: vllm, image: my/own:1}", "unknown", "my/own:1"),
        ("repo: org/unheard-of", "unknown", "architecture is not known"),
    ],
)
def test_entries_of_the_catalogue(entry: str, kind: str, words: str) -> None:
    """By the engine and version of the entry; on a no, who can."""
    model = parse_catalogue(f"models: {{m: {{{entry}}}}}", engines=accepted()).models["m"]
    found = support_of(model)
    assert found.kind == kind, found
    assert words in found.reason


def test_a_class_that_transformers_does_not_know_is_asked_by_its_own_name() -> None:
    """Kimi K2 is served as DeepSeek V3, whatever its model_type is."""
    config = {
        "model_type": "kimi_k2",
        "architectures": ["DeepseekV3ForCausalLM"],
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "vocab_size": 100,
    }
    vllm = engine_named("vllm")
    assert answer(vllm.architectures, "vLLM", (0, 32, 0), shape_from_config(config)).kind == "native"
    assert any(each.startswith("SGLang") for each in who_can(shape_from_config(config), ENGINES))


def test_an_engine_whose_registry_nobody_read_claims_nothing() -> None:
    """One that was put in from outside."""
    known = find_shape("Llama-3.1-8B")
    assert known is not None
    assert answer(NOT_READ, "Fifth", (1, 0, 0), known) == Support(
        "unknown", "whether Fifth 1.0.0 serves model type 'llama' is not known here"
    )
