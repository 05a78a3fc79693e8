"""What is llama.cpp's own about its stacks; tests/engines/test_stacks.py holds the whole documents."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from harness.catalog.models import EngineChoice, Limits, Model
from harness.errors import UsageError
from harness.stack.plan import Machine, StackPlan, plan_stack
from harness.stack.render import render
from tests.stack.test_render import EIGHT, TOKEN

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHAT = Model(
    "chat",
    "org/Chat-8B-GGUF",
    revision=COMMIT,
    file="chat-8b-Q4_K_M.gguf",
    gpu="L4",
    kv_cache_dtype="q8_0",
    limits=Limits(max_total_tokens=8000, max_batch_size=16, max_batch_prefill_tokens=1024),
    engine=EngineChoice("llamacpp", "b11347"),
)
LOCAL = replace(
    CHAT,
    name="local",
    repo="/srv/models/one of mine.gguf",
    revision=None,
    file=None,
    kv_cache_dtype=None,
    limits=Limits(),
    engine=EngineChoice("llamacpp", "v0.5.0", args=("--cache-ram", "0")),
)


def of_kind(model: Model, variant: str) -> Model:
    return replace(model, engine=replace(model.engine, variant=variant))


STACKS: dict[str, StackPlan] = {
    "pinned": plan_stack([CHAT], project="harness", machine=Machine(gpus=("0",), token_file=TOKEN)),
    "two-gpus": plan_stack([replace(CHAT, gpus=2, replicas=2)], project="harness", machine=EIGHT),
    "local-file": plan_stack([LOCAL], project="harness", machine=Machine(gpus=("0",))),
    "cpu": plan_stack([of_kind(LOCAL, "cpu")], project="harness"),
    "rocm": plan_stack([of_kind(CHAT, "rocm")], project="harness"),
}


@pytest.mark.parametrize("name", STACKS)
def test_kubernetes_accepts(name: str) -> None:
    """Every object fits its published schema."""
    for document in yaml.safe_load_all(render(STACKS[name], "kubernetes")):
        kubernetes_validate.validate(document, "1.33", strict=True)


@pytest.mark.parametrize(
    ("version", "variant", "tag"),
    [
        ("b11347", "cuda", "server-cuda-b11347"),
        ("11347", "cuda13", "server-cuda13-b11347"),
        ("v0.5.0", "rocm", "server-rocm-v0.5.0"),
        ("0.5.0", "vulkan", "server-vulkan-v0.5.0"),
        ("b11347", "cpu", "server-b11347"),
        ("latest", "cuda", "server-cuda"),
    ],
)
def test_tags_of_images(version: str, variant: str, tag: str) -> None:
    """A build and a release are written differently in a tag, and the image without a GPU has no word for it."""
    model = replace(CHAT, engine=EngineChoice("llamacpp", version, variant=variant))
    (service,) = plan_stack([model], project="harness").services
    assert service.image == f"ghcr.io/ggml-org/llama.cpp:{tag}"


def test_image_of_ones_own() -> None:
    """It is run as llama.cpp's, whatever it is called."""
    model = replace(CHAT, engine=replace(CHAT.engine, image="registry.example/llama:mine"))
    (service,) = plan_stack([model], project="harness").services
    assert service.image == "registry.example/llama:mine"


def test_unknown_variant_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(UsageError, match="cuda13"):
        plan_stack([of_kind(CHAT, "musa")], project="harness")


def test_token_reaches_the_server_by_its_environment_alone() -> None:
    """A script in the container reads the file and hands every argument on; the document holds no token."""
    (service,) = yaml.safe_load(render(STACKS["pinned"]))["services"].values()
    assert [each["target"] for each in service["secrets"]] == ["/run/secrets/hub-token"]
    assert service["entrypoint"][:2] == ["bash", "-c"]
    assert service["entrypoint"][2].startswith('export HF_TOKEN="$$(cat /run/secrets/hub-token)"; exec ')
    assert service["entrypoint"][2].endswith('"$$@"')
    assert "HF_TOKEN" not in service["environment"]


def test_script_of_the_container_hands_arguments_on(tmp_path: Path) -> None:
    """Run with a stand-in for the server: the token is in its environment, the arguments arrive as they were."""
    token, server = tmp_path / "hub-token", tmp_path / "llama-server"
    token.write_text("hf_secret")
    server.write_text('#!/bin/sh\nprintf "%s|" "$HF_TOKEN" "$@"\n')
    server.chmod(0o755)
    (service,) = STACKS["pinned"].services
    script = service.container.entrypoint[2].replace("/run/secrets/hub-token", str(token))
    command = [*service.container.entrypoint[:2], script, service.container.entrypoint[3], "--alias", "two words"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert done.stdout == "hf_secret|--alias|two words|"


def test_file_of_this_host_is_mounted_with_its_folder() -> None:
    """Its other parts lie beside it; the server is given the path that it has in the container."""
    (service,) = yaml.safe_load(render(STACKS["local-file"]))["services"].values()
    bind = service["volumes"][1]
    assert (bind["source"], bind["target"]) == ("/srv/models", "/models/local")
    place = service["command"].index("--model") + 1
    assert service["command"][place] == "/models/local/one of mine.gguf"


def test_open_answers_are_not_waited_for() -> None:
    """llama.cpp cuts them off at once and then waits for its clients."""
    (service,) = yaml.safe_load(render(STACKS["pinned"]))["services"].values()
    assert service["stop_grace_period"] == "10s"


def test_cluster_cannot_be_told_which_gpu_vulkan_needs() -> None:
    """Each maker's device plugin has a name of its own."""
    plan = plan_stack([of_kind(CHAT, "vulkan")], project="harness")
    assert "/dev/dri" in render(plan)
    with pytest.raises(UsageError, match="vulkan"):
        render(plan, "kubernetes")
