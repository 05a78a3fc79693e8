"""`harness probe` against programs with the arguments, lines and pages of vLLM, SGLang and llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.commands.probe import ProbeOptions, probe
from harness.engines import ENGINES
from harness.serve.target import Target
from tests.probe.engines import FakeLauncher, fake_pool

ANSWER = 128
HERE = [engine.name for engine in ENGINES if engine.name != "tgi"]


def run(fake: FakeLauncher, folder: Path, **options: Any) -> dict[str, Any]:
    """One probe of the fake, as its report says."""
    target = Target("toy", runtime="local", launcher=str(fake.program), catalogue=str(fake.catalogue))
    report = probe(target, ProbeOptions(output=folder, **options))
    assert report.as_text()
    document: dict[str, Any] = json.loads(report.path.read_text())
    return document


def test_slots_of_llamacpp_have_shares_that_are_filled_to_their_end(tmp_path: Path) -> None:
    """One start tells the pool; the second cuts it into as many shares of full length as it holds."""
    fake = fake_pool(tmp_path / "engine", style="llamacpp", context=4096, memory=60_000, weights=20_000, step=512)
    found = run(fake, tmp_path / "out")
    assert found["verified_under_load"], found["advice"]
    assert found["starts"] <= 3
    total, chats = found["limits"]["max_total_tokens"], found["limits"]["max_batch_size"]
    assert total == pytest.approx(4096, rel=0.01)
    assert chats * total <= 60_000 - 20_000


# Of 60,000 tokens of memory: less the weights and half a token for each that a step may read.
TRUTH = {"vllm": (0.92 * 60_000 - 12_000 - 0.5 * 2048) // 16 * 16, "sglang": (0.92 * 60_000 - 12_000 - 1024) // 16 * 16}


@pytest.mark.parametrize("style", [name for name in HERE if name in TRUTH])
def test_two_starts_tell_and_prove_the_pool(style: str, tmp_path: Path) -> None:
    """The budget is true to a percent, and what is recommended never made the engine put a chat back."""
    found = run(fake_pool(tmp_path / "engine", style=style), tmp_path / "out")
    assert found["starts"] == 2
    assert found["verified_under_load"], found["advice"]
    assert found["limits"]["max_batch_total_tokens"] == pytest.approx(TRUTH[style], rel=0.01)
    chats, total = found["limits"]["max_batch_size"], found["limits"]["max_total_tokens"]
    assert total == 8192 - (2 if style == "sglang" else 0)
    assert chats * total <= TRUTH[style] < (chats + 2) * total
    length = {"vllm": "--max-model-len", "sglang": "--context-length"}[style]
    assert found["recommended_flags"][length] == "8192"
    assert f"{length}=8192\n" in (tmp_path / "out" / "probe.md").read_text()
    longest = found["capacity"][-1]
    assert (longest["history_tokens"] + ANSWER, longest["chats_fit"]) == (total, TRUTH[style] // total)
