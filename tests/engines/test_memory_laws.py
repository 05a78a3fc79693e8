"""What each engine hands to its memory law, and that the law takes it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.catalog.gpus import find_gpu
from harness.catalog.limits import Limits
from harness.catalog.models import EngineChoice, Model
from harness.catalog.shapes import find_shape
from harness.engines import ENGINES, engine_named, stored_as
from harness.engines.base import Engine
from harness.simulator.fit import LAWS, Candidate, Fits, start

SHAPE = find_shape("Qwen/Qwen2.5-7B-Instruct")


def entry(engine: Engine) -> Model:
    model = Model("m", "Qwen/Qwen2.5-7B-Instruct", gpu="L40S", engine=EngineChoice(engine.name, engine.accepts.newest))
    return replace(model, file="Qwen2.5-7B-Instruct-Q4_K_M.gguf") if engine.name == "llamacpp" else model


def started(model: Model) -> Fits:
    law = engine_named(model.engine.name).memory_law(model)
    assert law is not None
    assert SHAPE is not None
    stored = stored_as(model)
    outcome = start(Candidate(law.name, SHAPE, find_gpu("L40S"), model.gpus, model.dtype, stored, options=law.options))
    assert isinstance(outcome, Fits), outcome
    return outcome


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_law_takes_what_its_engine_hands_over(engine: Engine) -> None:
    """Every engine's law is one of the list, and knows all its options."""
    bare = started(entry(engine))
    assert bare.tokens > 30_000
    assert 0 < bare.usable_tokens <= bare.tokens


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_limits_reach_the_law(engine: Engine) -> None:
    """The longest request and one step's tokens are the entry's."""
    limits = Limits(max_total_tokens=4096, max_batch_prefill_tokens=4096)
    fit = started(replace(entry(engine), limits=limits))
    assert (fit.max_total_tokens, fit.max_batch_prefill_tokens) == (4096, 4096)


@pytest.mark.parametrize("engine", [each for each in ENGINES if each.name != "llamacpp"], ids=lambda each: each.name)
def test_share_of_the_gpu_reaches_the_law(engine: Engine) -> None:
    """Less of the card is less for the KV cache."""
    wide, narrow = (
        started(replace(entry(engine), limits=Limits(cuda_memory_fraction=share))).tokens for share in (0.9, 0.6)
    )
    assert narrow < wide


def test_estimates_say_so() -> None:
    """Only TGI's law is held against published starts of the engine itself; the others say what they rest on."""
    assert [name for name, law in LAWS.items() if not law.estimate] == ["tgi"]


@pytest.mark.parametrize(
    ("args", "name", "value"),
    [
        (("--max-model-len", "8k"), "max_model_len", 8000),
        (("--max-model-len", "8K"), "max_model_len", 8192),
        (("--max-model-len", "auto"), "max_model_len", -1),
        (("--kv-cache-memory-bytes", "2G"), "kv_cache_memory_bytes", 2 << 30),
        (("--num-gpu-blocks-override=500",), "num_gpu_blocks_override", 500),
        (("--enforce-eager",), "enforce_eager", True),
        (("--gpu-memory-utilization", "0.5"), "gpu_memory_utilization", 0.5),
        ((), "gpu_memory_utilization", 0.92),
    ],
)
def test_own_arguments_of_vllm_count(args: tuple[str, ...], name: str, value: object) -> None:
    """What an entry's arguments say of memory is reckoned with, in vLLM's own way to write numbers."""
    model = Model("m", "a/b", engine=EngineChoice("vllm", "0.32.0", args=args))
    law = engine_named("vllm").memory_law(model)
    assert law is not None
    assert law.options[name] == value


def test_older_vllm_takes_a_smaller_share() -> None:
    """The default share of the GPU grew with 0.20."""
    law = engine_named("vllm").memory_law(Model("m", "a/b", engine=EngineChoice("vllm", "0.12.0")))
    assert law is not None
    assert law.options["gpu_memory_utilization"] == 0.9


@pytest.mark.parametrize(
    ("file", "known"),
    [("m-Q4_K_M.gguf", "Q4_K_M"), ("m.IQ4_XS.gguf", "IQ4_XS"), ("m-f16.gguf", "F16"), ("m.gguf", None)],
)
def test_files_of_llamacpp_are_weighed_by_their_name(file: str, known: str | None) -> None:
    """A file that does not name its type, and whose size nobody gives, is not weighed."""
    law = engine_named("llamacpp").memory_law(Model("m", "a/b", file=file, engine=EngineChoice("llamacpp", "latest")))
    assert (law.options["file_type"] if law else None) == known


@pytest.mark.parametrize("name", ["vllm", "llamacpp"])
def test_service_without_a_gpu_is_not_judged(name: str) -> None:
    """Main memory has no law here."""
    model = entry(engine_named(name))
    assert engine_named(name).memory_law(replace(model, engine=replace(model.engine, variant="cpu"))) is None
