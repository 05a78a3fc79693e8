"""The same stacks on a real Swarm of one node. A swarm that the test made is left again after it."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from harness.stack import sidecar_image
from harness.stack.gateway import Route, gateway
from harness.stack.render_swarm import BRIDGE, MAKE_LOOPBACK_BRIDGE
from harness.stack.state import project_name
from tests.docker.conftest import Harness
from tests.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.containers, pytest.mark.timeout(900)]
STACK = ("--runtime", "swarm", "--emulate")
SECRET = "hf_that_must_stay_secret"


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


def in_swarm() -> bool:
    return docker("info", "--format", "{{.Swarm.LocalNodeState}}") == "active"


@pytest.fixture(scope="module")
def _swarm() -> Iterator[None]:
    """Made just as the harness advises, so that its ports are on 127.0.0.1 alone."""
    if in_swarm():
        pytest.skip("this Docker Engine is in a swarm already, which is not the test's to use")
    if BRIDGE in docker("network", "ls", "--format", "{{.Name}}").split():
        docker("network", "rm", BRIDGE)
    subprocess.run(MAKE_LOOPBACK_BRIDGE.split(), capture_output=True, check=True)
    docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    yield
    docker("swarm", "leave", "--force")
    until(lambda: not docker("ps", "-aq", "--filter", "label=com.docker.swarm.service.id"), seconds=120)
    docker("network", "rm", BRIDGE)


@pytest.fixture(autouse=True)
def _nothing_left(own_state: Path, _swarm: None) -> Iterator[None]:
    """No service, container, network, secret or configuration of this test's stack stays."""
    yield
    left = everything()
    if left:
        subprocess.run(["docker", "stack", "rm", stack()], capture_output=True, check=False)
        until(lambda: not everything(), seconds=120)
    assert left == []


def stack() -> str:
    return f"{project_name()}-swarm"


def everything() -> list[str]:
    label = f"label=com.docker.stack.namespace={stack()}"
    kinds = (("service", "ls"), ("ps", "-a"), ("network", "ls"), ("secret", "ls"), ("config", "ls"))
    return [f"{kind[0]} {name}" for kind in kinds for name in docker(*kind, "-q", "--filter", label).split()]


def container_of(service: str) -> str:
    """The one that runs now."""
    name = f"label=com.docker.swarm.service.name={stack()}_{service}"
    return docker("ps", "-q", "--filter", name)


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(
        "models:\n"
        "  one: {repo: Qwen/Qwen2.5-0.5B-Instruct, gpu: L4, limits: {max_input_tokens: 1000, max_total_tokens: 1200},\n"
        '    env: {NOTE: "$HOME ${PATH} `x` #"}}\n'
        "  two.5: {repo: Qwen/Qwen2.5-1.5B-Instruct, gpu: T4}\n"
        "  big: {repo: Qwen/Qwen2.5-7B-Instruct, gpu: T4, limits: {max_batch_prefill_tokens: 30000}}\n",
        encoding="utf-8",
    )
    return path


@pytest.mark.usefixtures("catalogue")
def test_from_up_to_down(harness: Harness, monkeypatch: pytest.MonkeyPatch, own_state: Path) -> None:
    """Two models and a gateway come up, answer on 127.0.0.1 alone, stay at a second `up`, and go without a trace."""
    wanted = gateway([Route("one", "one")])
    sidecar_image.ensure(wanted.image, wanted.engine, print)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    told = harness("up", "one", "two.5", *STACK, "--gateway", "--json")
    assert "every address" not in told.stderr
    running = {each["name"]: each for each in json.loads(told.stdout)}
    assert {name: each["phase"] for name, each in running.items()} == dict.fromkeys(
        ["one", "two.5", "gateway"], "ready"
    )
    assert {each["runtime"] for each in running.values()} == {"swarm"}
    assert running["one"]["limits"]["max_input_tokens"] == 1000
    assert running["one"]["limits"]["max_batch_total_tokens"] > 100_000

    client = openai.OpenAI(base_url=f"{running['gateway']['endpoint']}/v1", api_key="any", max_retries=0)
    for name in ("one", "two.5"):
        before = answered(running[name]["endpoint"])
        stream = client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "Hello"}], max_tokens=5, stream=True
        )
        assert len([event for event in stream if event.choices and event.choices[0].delta.content]) == 5
        assert answered(running[name]["endpoint"]) == before + 1

    port = int(running["one"]["endpoint"].rpartition(":")[2])
    assert not reachable(docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}"), port)
    described = json.loads(docker("inspect", container_of("one")))[0]
    assert SECRET not in json.dumps(described)
    assert SECRET not in docker("service", "inspect", f"{stack()}_one")
    assert "NOTE=$HOME ${PATH} `x` #" in described["Config"]["Env"]
    assert described["HostConfig"]["CapDrop"] == ["ALL"]
    assert docker("exec", container_of("one"), "cat", "/data/token") == SECRET
    assert docker("exec", container_of("one"), "stat", "-c", "%a", "/data/token") == "400"

    containers = [container_of("one"), container_of("two-5"), container_of("gateway")]
    again = harness("up", "one", "two.5", *STACK, "--gateway")
    assert again.stderr.count("up already") == 3
    assert [container_of("one"), container_of("two-5"), container_of("gateway")] == containers
    assert "Setting max batch total tokens" in harness("logs", "one").stdout
    shown = {each["name"]: each["phase"] for each in json.loads(harness("status", "--json").stdout)}
    assert shown == dict.fromkeys(["one", "two.5", "gateway"], "ready")

    harness("down", "one")
    assert not container_of("one")
    assert container_of("two-5") == containers[1]
    harness("down")
    assert everything() == []
    assert not list(own_state.rglob("hub-token"))


def answered(endpoint: str) -> int:
    with urllib.request.urlopen(f"{endpoint}/metrics") as page:
        lines = [line.split() for line in page.read().decode().splitlines() if line.startswith("tgi_request_success ")]
    return int(lines[0][1]) if lines else 0


def reachable(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=3).close()
    except OSError:
        return False
    return True


@pytest.mark.usefixtures("catalogue")
def test_failed_start_is_explained_and_removed(harness: Harness) -> None:
    """Swarm would try for ever; the first end is the end, with its cause."""
    failed = harness("up", "big", *STACK, check=False)
    assert failed.returncode == 4
    assert "the GPU ran out of memory" in failed.stderr
    assert "Error: ShardCannotStart" in failed.stderr or "Error: WebserverFailed" in failed.stderr
    assert everything() == []


def test_changed_entry_renews_only_itself(harness: Harness, catalogue: Path) -> None:
    """Its neighbour keeps its container."""
    harness("up", "one", "two.5", *STACK)
    before = container_of("one"), container_of("two-5")
    text = catalogue.read_text(encoding="utf-8")
    catalogue.write_text(text.replace("max_total_tokens: 1200", "max_total_tokens: 1300"), encoding="utf-8")
    renewed = json.loads(harness("up", "one", "two.5", *STACK, "--json").stdout)
    assert renewed[0]["limits"]["max_total_tokens"] == 1300
    assert container_of("one") not in ("", before[0])
    assert container_of("two-5") == before[1]
    harness("down")


@pytest.mark.usefixtures("catalogue")
def test_what_dies_is_started_again(harness: Harness) -> None:
    """By Swarm itself, without the harness; its log goes on."""
    harness("up", "one", *STACK)
    before = container_of("one")
    docker("kill", before)
    until(lambda: container_of("one") not in ("", before), seconds=120)
    until(lambda: json.loads(harness("status", "--json").stdout)[0]["phase"] == "ready", seconds=120)
    assert harness("logs", "one").stdout.count("Setting max batch total tokens") == 2
    harness("down")


@pytest.mark.usefixtures("catalogue")
def test_stack_of_a_killed_harness_is_taken_down(harness: Harness, own_state: Path) -> None:
    """Found by its labels, when no record names it any more."""
    harness("up", "one", *STACK)
    for record in (own_state / "harness" / "services").iterdir():
        record.unlink()
    harness("down")
    assert everything() == []


def test_model_that_no_node_can_take(harness: Harness, catalogue: Path) -> None:
    """Without --emulate it asks for a GPU, which this node has not announced: exit 3 with what to do, nothing left."""
    text = catalogue.read_text(encoding="utf-8").replace(
        "{repo: Qwen/Qwen2.5-1.5B-Instruct,", '{repo: a/b, engine: {image: "python:3.11-slim-bookworm"},'
    )
    catalogue.write_text(text, encoding="utf-8")
    refused = harness("up", "two.5", "--runtime", "swarm", check=False)
    assert refused.returncode == 3
    assert "insufficient resources" in refused.stderr
    assert "NVIDIA-GPU" in refused.stderr
    assert everything() == []
