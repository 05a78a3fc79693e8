"""What may end an engine that started: each reason by an entry that has it and one that has not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.catalog.gpus import find_gpu
from harness.catalog.limits import Limits
from harness.catalog.models import EngineChoice, Model
from harness.commands.models import all_gpus_text
from harness.simulator import memory
from harness.simulator.world import World
from harness.sizing.check import Fit, check, check_text
from harness.sizing.known import shape_of

QWEN = Model(name="it", repo="Qwen/Qwen2.5-7B-Instruct", gpu="L4", dtype="bfloat16")
GEMMA = replace(QWEN, repo="google/gemma-3-4b-it")
BLOOM = replace(QWEN, repo="bigscience/bloom-7b1", gpu="L40S", dtype="float16")


def on(model: Model, engine: str, args: tuple[str, ...] = (), **limits: Any) -> Fit:
    """What is said of the model by this engine."""
    version = {"tgi": "3.3.7", "vllm": "0.32.0", "sglang": "0.5.23"}[engine]
    entry = replace(model, engine=EngineChoice(name=engine, version=version, args=args), limits=Limits(**limits))
    return check(entry, find_gpu(entry.gpu or ""))


@pytest.mark.parametrize("engine", ["tgi", "vllm", "sglang"])
def test_an_ordinary_entry_just_fits(engine: str) -> None:
    """Text, flash attention, nothing set by hand."""
    fit = on(QWEN, engine)
    assert (fit.verdict, fit.may_die) == ("fits", ())


@pytest.mark.parametrize(
    ("model", "engine", "args", "limits", "words"),
    [
        (replace(BLOOM, gpu="L4"), "tgi", (), {}, "do not fit; `harness probe` finds the limits that hold"),
        (BLOOM, "tgi", (), {"max_batch_total_tokens": 4096, "max_batch_size": 1}, "fits by this sum"),
        (GEMMA, "tgi", (), {}, "its warm-up reads one tiny image"),
        (GEMMA, "sglang", (), {}, "no start measures what large or many images take"),
        (QWEN, "sglang", (), {"cuda_memory_fraction": 0.95}, "mem_fraction_static 0.95 leaves less than SGLang's own"),
        (replace(QWEN, gpu="H100"), "vllm", (), {"cuda_memory_fraction": 0.985}, "of the card are outside its share"),
        (QWEN, "vllm", ("--kv-cache-memory-bytes", "7G"), {}, "of the card are outside its share"),
    ],
)  # fmt: skip
def test_what_starts_and_may_die_says_why(
    model: Model, engine: str, args: tuple[str, ...], limits: dict[str, Any], words: str
) -> None:
    """In the verdict, in JSON and on the terminal."""
    fit = on(model, engine, args, **limits)
    assert fit.fits
    assert fit.verdict == "starts"
    assert any(words in reason for reason in fit.may_die), fit.may_die
    assert fit.as_json()["verdict"] == "starts"
    assert fit.as_json()["may_die"] == list(fit.may_die)
    assert check_text([fit]).startswith("STARTS")
    assert f"may die under load: {fit.may_die[0]}" in check_text([fit])


def test_the_table_over_all_cards_tells_them_apart_too() -> None:
    """In a word, and below the table what it means."""
    text = all_gpus_text([[check(GEMMA, find_gpu("L4")), check(QWEN, find_gpu("L4"))]])
    assert "starts: " in text
    assert "fits: " in text
    assert "(starts: may die under load" in text


def test_images_are_profiled_by_vllm() -> None:
    """It starts with the largest ones; text alone is in no danger anywhere."""
    assert on(GEMMA, "vllm").verdict == "fits"


@pytest.mark.parametrize("wiggle", ["0.9", "0.95", "0.99", "0.999"])
def test_a_step_beside_a_full_cache_is_judged_by_the_law_that_ends_the_emulated_engine(wiggle: str) -> None:
    """TGI_WIGGLE_ROOM takes the reserve away from which such a step lives."""
    entry = replace(QWEN, env={"TGI_WIGGLE_ROOM": wiggle, "CUDA_GRAPHS": "0"})
    fit = check(entry, find_gpu("L4"))
    plan = memory.ServingPlan(
        shape_of(entry), find_gpu("L4"), version="3.3.7", dtype="bfloat16", wiggle_room=float(wiggle), cuda_graphs=()
    )
    started = memory.budget(plan, World())
    assert isinstance(started, memory.Budget)
    survives = memory.forward_fits(plan, World(), started, started.max_batch_prefill_tokens, 128)
    assert any("beside a full KV cache" in reason for reason in fit.may_die) is not survives


def test_no_room_for_graphs_is_said() -> None:
    """They are captured behind the KV cache; TGI's log alone says that they were not."""
    fit = check(replace(QWEN, env={"TGI_WIGGLE_ROOM": "0.999", "CUDA_GRAPHS": "4096"}), find_gpu("L4"))
    assert any("its CUDA graphs do not fit behind the KV cache" in reason for reason in fit.may_die)


def test_what_does_not_start_cannot_die_later() -> None:
    """One verdict at a time."""
    fit = on(replace(GEMMA, repo="google/gemma-3-27b-it"), "tgi")
    assert (fit.verdict, fit.may_die) == ("does not fit", ())
