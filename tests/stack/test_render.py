"""Rendered stacks: whole documents as golden files, and no name that could break out of one.

UPDATE_GOLDEN=1 rewrites tests/golden/stacks; read the difference before committing it.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.catalog.models import EngineChoice, Limits, Model
from harness.errors import UsageError
from harness.stack.compose_service import record_of
from harness.stack.document import compose_file
from harness.stack.plan import Machine, StackPlan, plan_stack
from harness.stack.render import render
from tests.goldens import check_golden

TOKEN = "/home/me/.local/state/harness/secrets/hub-token"

QWEN = Model(
    "qwen2.5-7b",
    "Qwen/Qwen2.5-7B-Instruct",
    revision="a09a35458c702b33eeacc393d103063234e8bc28",
    gpu="L4",
    dtype="bfloat16",
    kv_cache_dtype="fp8_e4m3fn",
    limits=Limits(
        max_input_tokens=8192, max_total_tokens=10240, max_batch_prefill_tokens=8192, max_concurrent_requests=64
    ),
    env={"CUDA_GRAPHS": "1,2,4,8"},
)
LLAMA = Model("llama-3.3-70b", "meta-llama/Llama-3.3-70B-Instruct", gpu="H100", gpus=4, start_timeout=3600)
TINY = Model("tiny", "Qwen/Qwen2.5-0.5B-Instruct", gpu="T4", port=8090)


def of_version(model: Model, version: str, **more: object) -> Model:
    return replace(model, engine=EngineChoice(version=version), **more)  # type: ignore[arg-type]


EIGHT = Machine(gpus=tuple("01234567"), token_file=TOKEN)
STACKS: dict[str, StackPlan] = {
    "one-model": plan_stack([QWEN], project="harness", machine=Machine(gpus=("0",))),
    "several-models": plan_stack([QWEN, LLAMA, replace(TINY, replicas=2)], project="harness", machine=EIGHT),
    "emulated": plan_stack([QWEN, TINY], project="harness", machine=EIGHT, emulator_image="harness-emulator:0"),
    "version-1.4": plan_stack(
        [of_version(QWEN, "1.4.0", kv_cache_dtype=None, env={})], project="harness", machine=EIGHT
    ),
    "version-2.0": plan_stack([of_version(QWEN, "2.0.4", kv_cache_dtype=None)], project="harness", machine=EIGHT),
    "version-2.3": plan_stack([of_version(QWEN, "2.3.1", kv_cache_dtype=None)], project="harness", machine=EIGHT),
    "rocm": plan_stack([replace(LLAMA, engine=EngineChoice(variant="rocm"))], project="harness", machine=EIGHT),
    "intel-cpu": plan_stack([replace(TINY, engine=EngineChoice(variant="intel-cpu"))], project="harness"),
    "intel-xpu": plan_stack([replace(TINY, engine=EngineChoice(variant="intel-xpu"))], project="harness"),
    "gaudi": plan_stack(
        [replace(TINY, gpus=2, engine=EngineChoice(variant="gaudi"))], project="harness", machine=EIGHT
    ),
    "cpu": plan_stack([replace(TINY, engine=EngineChoice(variant="cpu"))], project="harness", machine=EIGHT),
    "local-directory": plan_stack(
        [replace(TINY, repo="/srv/models/my model: $1"), of_version(QWEN, "3.3.7", name="img")], project="harness"
    ),
}


@pytest.mark.parametrize("name", STACKS)
def test_golden(name: str) -> None:
    """The whole document is what it was; a change is reviewed as a difference of files."""
    check_golden(f"stacks/{name}.yaml", render(STACKS[name]))


def require_compose_accepts(document: str, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(document, encoding="utf-8")
    checked = subprocess.run(["docker", "compose", "-f", str(path), "config", "-q"], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.docker
@pytest.mark.parametrize("name", STACKS)
def test_compose_accepts(name: str, tmp_path: Path) -> None:
    """`docker compose config` finds nothing wrong with any of them."""
    require_compose_accepts(render(STACKS[name]), tmp_path)


HOSTILE = st.text(
    alphabet=st.sampled_from("ab/.:$\"'#{}[]&*!|>%@`\\ \t\né😀-_,?~=") | st.characters(codec="utf-8"),
    min_size=1,
    max_size=30,
)


@given(name=HOSTILE, value=HOSTILE.filter(lambda text: "\x00" not in text))
def test_no_name_changes_the_document(name: str, value: str) -> None:
    """Whatever a model is called and an option holds: one service, with exactly these values, `$` doubled, in"
    " safe places."""
    model = Model(name, "/models/" + name, env={"NOTE": value})
    document = yaml.safe_load(render(plan_stack([model], project="harness")))
    ((service, body),) = document["services"].items()
    assert service.strip("abcdefghijklmnopqrstuvwxyz0123456789_.-") == ""
    assert body["labels"]["harness.model"] == name.replace("$", "$$")
    assert body["environment"]["NOTE"] == value.replace("$", "$$")
    target = body["volumes"][1]["target"]
    assert target == f"/models/{service}"
    assert ".." not in target


@pytest.mark.parametrize("name", STACKS)
def test_what_every_stack_keeps(name: str) -> None:
    """Ports on this host alone, exit codes not hidden by restarts, time to drain, no secret, shards always told."""
    text = render(STACKS[name])
    for service in yaml.safe_load(text)["services"].values():
        assert [port["host_ip"] for port in service["ports"]] == ["127.0.0.1"]
        assert service["restart"] == "no"
        assert int(service["stop_grace_period"].removesuffix("s")) > 90
        assert int(service["environment"]["NUM_SHARD"]) >= 1
        assert "HF_TOKEN" not in service["environment"]
        assert "" not in service["environment"].values()
        assert "command" not in service
        assert ("shm_size" in service) == (service["environment"]["NUM_SHARD"] != "1" and "ipc" not in service)


def test_token_is_a_file_where_python_and_rust_look() -> None:
    """The document names the file's place and nothing else of it."""
    document = yaml.safe_load(render(STACKS["several-models"]))
    assert document["secrets"] == {"hub-token": {"file": TOKEN}}
    for service in document["services"].values():
        assert [each["target"] for each in service["secrets"]] == ["/data/token"]
        assert "entrypoint" not in service


def test_token_reaches_a_router_that_reads_no_file() -> None:
    """A script of the container reads it there; the document holds the script and no token, `$` doubled."""
    (service,) = yaml.safe_load(render(STACKS["version-2.3"]))["services"].values()
    assert [each["target"] for each in service["secrets"]] == ["/run/secrets/hub-token"]
    assert service["entrypoint"][2].startswith('export HF_TOKEN="$$(cat /run/secrets/hub-token)"; ')


def test_image_of_ones_own_gets_the_token_in_both_places() -> None:
    """Nobody here knows where its HF_HOME is."""
    model = replace(TINY, engine=EngineChoice(image="registry.example/tgi:mine"))
    document = yaml.safe_load(render(plan_stack([model], project="harness", machine=EIGHT)))
    places = [each["target"] for each in document["services"]["tiny"]["secrets"]]
    assert places == ["/data/token", "/root/.cache/huggingface/token"]


def test_models_on_another_makers_devices_do_not_share_them() -> None:
    """All devices are handed in, and a variable leaves each service its own; what runs already keeps its."""
    rocm = EngineChoice(variant="rocm")
    models = [replace(LLAMA, gpus=2, engine=rocm), replace(TINY, engine=rocm)]
    plan = plan_stack(models, project="harness", machine=Machine(gpus=("0",), used=("1",)))
    services = yaml.safe_load(render(plan))["services"].values()
    assert [each["environment"]["ROCR_VISIBLE_DEVICES"] for each in services] == ["0,2", "3"]


def test_port_is_shown_elsewhere_where_the_entry_asks_for_it() -> None:
    """The address of the stack, another digest than the stack on 127.0.0.1 has, and an address that we reach."""
    (quiet,) = plan_stack([TINY], project="harness").services
    plan = plan_stack([replace(TINY, listen="0.0.0.0")], project="harness")
    (service,) = yaml.safe_load(render(plan))["services"].values()
    assert service["ports"] == [{"target": 8080, "published": "8090", "host_ip": "0.0.0.0"}]
    assert plan.services[0].digest != quiet.digest
    assert record_of(plan.services[0], plan).url == "http://127.0.0.1:8090"
    (other,) = plan_stack([replace(TINY, listen="192.0.2.7")], project="harness").services
    assert record_of(other, plan).url == "http://192.0.2.7:8090"


def test_directory_of_a_user_can_be_read() -> None:
    """Root without any power over other users' files could not open one of mode 0700."""
    (service, other) = yaml.safe_load(render(STACKS["local-directory"]))["services"].values()
    assert service["cap_add"] == ["DAC_OVERRIDE"]
    assert "cap_add" not in other


def test_snapshot_of_the_hubs_cache_is_mounted_with_what_it_links_to() -> None:
    """Its files are links to `blobs` beside `snapshots`."""
    repo = "/home/me/.cache/huggingface/hub/models--a--b/snapshots/0123abc"
    (service,) = yaml.safe_load(render(plan_stack([replace(TINY, repo=repo)], project="h")))["services"].values()
    assert service["volumes"][1]["source"] == "/home/me/.cache/huggingface/hub/models--a--b"
    assert service["environment"]["MODEL_ID"] == "/models/tiny/snapshots/0123abc"


def test_stack_without_token_has_no_secret() -> None:
    """And no capability that only the token's file needs."""
    document = yaml.safe_load(render(STACKS["one-model"]))
    assert "secrets" not in document
    (service,) = document["services"].values()
    assert "secrets" not in service
    assert "cap_add" not in service


def test_unknown_target_is_refused() -> None:
    """With those that are known."""
    with pytest.raises(UsageError, match="compose"):
        render(STACKS["one-model"], "nomad")


def test_template_of_the_working_directory_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who keeps a compose/ of their own gets their stack."""
    folder = tmp_path / "compose"
    folder.mkdir()
    (folder / "service.yaml").write_text("restart: always\nhealthcheck: {interval: 1s}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert "always" in compose_file("service.yaml")
    (service,) = yaml.safe_load(render(STACKS["one-model"]))["services"].values()
    assert service["restart"] == "always"
