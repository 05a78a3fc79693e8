"""Stacks of SGLang for every target: whole documents as golden files, checked by those who read them.

UPDATE_GOLDEN=1 rewrites tests/golden/stacks/sglang; read the difference before committing it.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.catalog.limits import Limits
from harness.catalog.models import EngineChoice, Model
from harness.stack.plan import Machine, StackPlan, plan_stack
from harness.stack.render import render
from tests.goldens import check_golden
from tests.stack.test_render import EIGHT, TOKEN

CHAT = Model(
    "chat",
    "org/Chat-8B",
    revision="0123456789abcdef0123456789abcdef01234567",
    gpu="L4",
    dtype="bfloat16",
    kv_cache_dtype="fp8_e5m2",
    limits=Limits(max_total_tokens=8000, max_batch_size=16, max_batch_prefill_tokens=1024, cuda_memory_fraction=0.9),
    engine=EngineChoice("sglang", "0.5.23"),
)
LOCAL = Model(
    "local", "/srv/models/one of mine", engine=EngineChoice("sglang", "0.5.23", args=("--disable-radix-cache",))
)


STACKS: dict[str, StackPlan] = {
    "pinned": plan_stack([CHAT], project="harness", machine=Machine(gpus=("0",), token_file=TOKEN)),
    "two-gpus": plan_stack([replace(CHAT, gpus=2, replicas=2)], project="harness", machine=EIGHT),
    "local-directory": plan_stack([LOCAL], project="harness", machine=Machine(gpus=("0",))),
}


@pytest.mark.parametrize("name", STACKS)
def test_golden(name: str) -> None:
    """Compose's whole document is what it was."""
    check_golden(f"stacks/sglang/{name}.yaml", render(STACKS[name]))


@pytest.mark.parametrize("target", ["swarm", "kubernetes"])
def test_golden_of_other_targets(target: str) -> None:
    """The pinned model's documents are what they were."""
    check_golden(f"stacks/sglang/{target}.yaml", render(STACKS["pinned"], target))


@pytest.mark.docker
@pytest.mark.parametrize("name", STACKS)
def test_compose_accepts(name: str, tmp_path: Path) -> None:
    """`docker compose config` finds nothing wrong with any of them."""
    path = tmp_path / "compose.yaml"
    path.write_text(render(STACKS[name]), encoding="utf-8")
    checked = subprocess.run(["docker", "compose", "-f", str(path), "config", "-q"], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
