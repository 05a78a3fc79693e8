"""Stacks of vLLM, SGLang and llama.cpp for every target: whole documents as golden files, checked by those who read
them. TGI's are in tests/stack.

UPDATE_GOLDEN=1 rewrites tests/golden/stacks; read the difference before committing it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.catalog.limits import Limits
from harness.catalog.models import EngineChoice, Model
from harness.stack.plan import Machine, StackPlan, plan_stack
from harness.stack.render import render
from tests.engines.llamacpp.test_stacks import STACKS as OF_LLAMACPP
from tests.goldens import check_golden
from tests.stack.test_render import EIGHT, TOKEN, require_compose_accepts

VLLM, SGLANG = EngineChoice("vllm", "0.32.0"), EngineChoice("sglang", "0.5.23")
CHAT = Model(
    "chat",
    "org/Chat-8B",
    revision="0123456789abcdef0123456789abcdef01234567",
    gpu="L4",
    dtype="bfloat16",
    kv_cache_dtype="fp8_e5m2",
    limits=Limits(max_total_tokens=8000, max_batch_size=16, max_batch_prefill_tokens=1024, cuda_memory_fraction=0.9),
)
ONE_GPU = Machine(gpus=("0",))


def stacks_of(engine: EngineChoice, own_argument: str) -> dict[str, StackPlan]:
    chat = replace(CHAT, engine=engine)
    local = Model("local", "/srv/models/one of mine", engine=replace(engine, args=(own_argument,)))
    return {
        "pinned": plan_stack([chat], project="harness", machine=replace(ONE_GPU, token_file=TOKEN)),
        "two-gpus": plan_stack([replace(chat, gpus=2, replicas=2)], project="harness", machine=EIGHT),
        "local-directory": plan_stack([local], project="harness", machine=ONE_GPU),
    }


OF_ENGINE = {
    "vllm": {
        **stacks_of(VLLM, "--enforce-eager"),
        "rocm": plan_stack([replace(CHAT, engine=replace(VLLM, variant="rocm"))], project="harness", machine=ONE_GPU),
    },
    "sglang": stacks_of(SGLANG, "--disable-radix-cache"),
    "llamacpp": OF_LLAMACPP,
}
STACKS = {f"{engine}/{name}": plan for engine, plans in OF_ENGINE.items() for name, plan in plans.items()}


@pytest.mark.parametrize("name", STACKS)
def test_golden(name: str) -> None:
    """Compose's whole document is what it was."""
    check_golden(f"stacks/{name}.yaml", render(STACKS[name]))


@pytest.mark.parametrize("target", ["swarm", "kubernetes"])
@pytest.mark.parametrize("engine", OF_ENGINE)
def test_golden_of_other_targets(engine: str, target: str) -> None:
    """The pinned model's documents are what they were."""
    check_golden(f"stacks/{engine}/{target}.yaml", render(OF_ENGINE[engine]["pinned"], target))


@pytest.mark.docker
@pytest.mark.parametrize("name", STACKS)
def test_compose_accepts(name: str, tmp_path: Path) -> None:
    """`docker compose config` finds nothing wrong with any of them."""
    require_compose_accepts(render(STACKS[name]), tmp_path)
