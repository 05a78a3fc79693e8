"""The capacity card against the truth that the emulator writes beside, for models and GPUs of several kinds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from harness.commands.probe import ProbeOptions, probe
from harness.serve.target import Target
from harness.simulator.kv_cache import StackAllocator

ANSWER = 200

ENTRIES = {  # model and GPU: what decides about blocks, heads and memory differs in each
    "blocks of one token": ("Qwen/Qwen2.5-0.5B-Instruct", "L4", {}),
    "blocks of 16, no chunking": ("microsoft/phi-4", "A100", {"env": {"ATTENTION": "paged"}}),
    "blocks of 256": ("Qwen/Qwen2.5-7B-Instruct", "A10G", {"env": {"ATTENTION": "flashdecoding"}}),
    "cache in fp8": ("meta-llama/Llama-3.1-8B-Instruct", "L4", {"kv_cache_dtype": "fp8_e5m2"}),
    "two GPUs": ("Qwen/Qwen2.5-14B-Instruct", "L40S", {"gpus": 2}),
    "half of the GPU": ("meta-llama/Llama-3.2-3B-Instruct", "L4", {"limits": {"cuda_memory_fraction": 0.6}}),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_the_card_is_right_to_one_chat(name: str, tmp_path: Path) -> None:
    """As many chats fit at each history as the engine's own allocator hands out blocks for."""
    repo, gpu, more = ENTRIES[name]
    truth, catalogue = tmp_path / "truth.json", tmp_path / "models.yaml"
    launcher = tmp_path / "launcher"
    launcher.write_text(
        f'#!/bin/sh\nexec {sys.executable} -m harness.emulator --gpu {gpu} --truth {truth} --speed 50 "$@"\n'
    )
    launcher.chmod(0o755)
    entry = {"repo": repo, "gpu": gpu, "answer_tokens": ANSWER, **more}
    catalogue.write_text(json.dumps({"models": {"it": entry}}))
    target = Target("it", runtime="local", launcher=str(launcher), catalogue=str(catalogue))
    found = probe(target, ProbeOptions(quick=True, output=tmp_path / "out")).as_json()
    known = json.loads(truth.read_text())
    assert found["limits"]["max_batch_total_tokens"] == known["max_batch_total_tokens"]
    assert abs(found["predicted"]["max_batch_total_tokens"]["off_by"]) < 0.05, found["predicted"]
    assert len(found["capacity"]) >= 3
    for cell in found["capacity"]:
        allocator = StackAllocator(known["outcome"]["blocks"], known["outcome"]["block_size"])
        fit = 0
        while allocator.allocate(cell["history_tokens"] + ANSWER - 1, None) is not None:
            fit += 1
        assert cell["chats_fit"] == fit, cell
