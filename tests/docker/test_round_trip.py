"""The emulator's image in the very stack that would run TGI, on a real Docker Engine, by the command line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from harness.stack.document import compose_file
from harness.stack.state import subfolder
from tests.docker.conftest import Harness, environment, ours
from tests.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("catalogue")]
STACK = ("--runtime", "compose", "--emulate")
SECRET = "hf_that_must_stay_secret"


def inspect(name: str) -> dict[str, object]:
    answer = subprocess.run(["docker", "inspect", name], capture_output=True, text=True, check=True)
    document: dict[str, object] = json.loads(answer.stdout)[0]
    return document


def test_from_up_to_down(harness: Harness, monkeypatch: pytest.MonkeyPatch, own_state: Path) -> None:
    """Two models come up side by side, answer, are shown, stay as they are at a second `up`, and go without a trace."""
    monkeypatch.setenv("HF_TOKEN", SECRET)
    first = json.loads(harness("up", "one", "two", *STACK, "--json").stdout)
    assert [each["name"] for each in first] == ["one", "two"]
    assert [each["phase"] for each in first] == ["ready", "ready"]
    assert first[0]["emulated"] is True
    assert first[0]["limits"]["max_input_tokens"] == 1000
    assert first[0]["limits"]["max_batch_total_tokens"] > 100_000
    body = json.dumps({"inputs": "Hello", "parameters": {"max_new_tokens": 3}}).encode()
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{first[0]['endpoint']}/generate", body, headers)) as answer:
        assert json.load(answer)["generated_text"]

    containers = [name for kind, name in ours() if kind == "container"]
    again = harness("up", "one", *STACK, "--json")
    assert json.loads(again.stdout)[0]["endpoint"] == first[0]["endpoint"]
    assert [name for kind, name in ours() if kind == "container"] == containers

    shown = json.loads(harness("status", "--json").stdout)
    assert [each["phase"] for each in shown] == ["ready", "ready"]
    assert shown[1]["limits"]["max_batch_total_tokens"] == first[1]["limits"]["max_batch_total_tokens"]
    assert "Setting max batch total tokens" in harness("logs", "one").stdout

    for name in containers:
        described = inspect(name)
        assert SECRET not in json.dumps(described)
        assert described["HostConfig"]["ReadonlyRootfs"] is True  # type: ignore[index]
        assert described["HostConfig"]["PortBindings"]["8080/tcp"][0]["HostIp"] == "127.0.0.1"  # type: ignore[index]
    token = ["docker", "exec", containers[0], "cat", "/data/token"]
    assert subprocess.run(token, capture_output=True, text=True, check=True).stdout == SECRET
    for path in own_state.rglob("*"):
        if path.is_file() and path.name != "hub-token":
            assert SECRET not in path.read_text(encoding="utf-8", errors="replace")

    harness("down")
    assert ours() == []
    assert json.loads(harness("status", "--json").stdout) == []
    assert not list(own_state.rglob("hub-token"))


def test_environment_arrives_as_it_stands(harness: Harness) -> None:
    """Compose neither fills in variables nor takes quotes away."""
    harness("up", "two", *STACK)
    (container,) = [name for kind, name in ours() if kind == "container"]
    variables = inspect(container)["Config"]["Env"]  # type: ignore[index]
    assert "NOTE=$HOME ${PATH} `x` \"y\" 'z' #" in variables
    harness("down", "two")


def test_health_check_works_inside(harness: Harness) -> None:
    """By bash alone, read-only, without capabilities: Docker itself calls the container healthy."""
    harness("up", "one", *STACK)
    (container,) = [name for kind, name in ours() if kind == "container"]
    until(lambda: inspect(container)["State"]["Health"]["Status"] == "healthy", seconds=60)  # type: ignore[index]
    harness("down")


def test_changed_entry_renews_only_itself(harness: Harness, catalogue: Path) -> None:
    """A new limit of one model restarts that one and leaves its neighbour alone."""
    harness("up", "one", "two", *STACK)
    before = {name for kind, name in ours() if kind == "container"}
    text = catalogue.read_text(encoding="utf-8")
    catalogue.write_text(text.replace("max_total_tokens: 1200", "max_total_tokens: 1300"), encoding="utf-8")
    renewed = json.loads(harness("up", "one", "two", *STACK, "--json").stdout)
    after = {name for kind, name in ours() if kind == "container"}
    assert renewed[0]["limits"]["max_total_tokens"] == 1300
    assert (len(before & after), len(before | after)) == (1, 3)
    harness("down", "one")
    assert len([name for kind, name in ours() if kind == "container"]) == 1
    harness("down")


def test_failed_start_is_explained_and_removed(harness: Harness) -> None:
    """No memory at warm-up: exit 4, the cause with a smaller value, the last lines, and nothing left."""
    failed = harness("up", "big", *STACK, check=False)
    assert failed.returncode == 4
    assert "the GPU ran out of memory" in failed.stderr
    assert "Error: WebserverFailed" in failed.stderr or "Error: ShardCannotStart" in failed.stderr
    assert ours() == []


def test_second_of_a_stack_that_fails_is_removed(harness: Harness) -> None:
    """Also when another service of the same stack was started first: that one answered and stays."""
    failed = harness("up", "one", "big", *STACK, check=False)
    assert failed.returncode == 4
    assert len([name for kind, name in ours() if kind == "container"]) == 1
    assert [each["name"] for each in json.loads(harness("status", "--json").stdout)] == ["one"]
    harness("down")
    assert ours() == []


@pytest.mark.parametrize("words", ["building the emulator|creating the container", "first answer|starting,|loading"])
def test_ctrl_c_before_ready_takes_it_down(harness: Harness, tmp_path: Path, words: str) -> None:
    """At every stage: exit 130, and nothing is left."""
    command = [sys.executable, "-m", "harness", "up", "one", *STACK]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if any(word in line for word in words.split("|")):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        code = process.wait(timeout=90)
    assert "Traceback" not in rest
    assert code in (130, 0), rest  # 0: it had answered before the signal came
    if code == 0:
        harness("down")
    assert ours() == []


def test_half_started_stack_of_a_killed_harness_is_taken_down(harness: Harness, tmp_path: Path) -> None:
    """SIGKILL in the middle leaves a container that no process watches; `down` finds it."""
    command = [sys.executable, "-m", "harness", "up", "one", *STACK]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
    until(lambda: any(kind == "container" for kind, _ in ours()) or process.poll() is not None, seconds=60)
    process.kill()
    process.wait()
    time.sleep(1)  # a `docker compose up` of its own session may still be at work
    harness("down")
    assert ours() == []


def test_container_of_a_killed_probe_goes_with_the_next(harness: Harness, tmp_path: Path) -> None:
    """It would hold the GPU; `--resume` removes it before it starts its own."""
    command = ["probe", "one", "--quick", "--output", str(tmp_path / "out"), *STACK]
    with subprocess.Popen([sys.executable, "-m", "harness", *command], cwd=tmp_path, env=environment()) as process:
        until(lambda: bool(running_alone()) or process.poll() is not None, seconds=60)
        process.kill()
    time.sleep(1)  # a `docker compose up` of its own session may still be at work
    left = running_alone()
    assert len(left) == 1
    resumed = harness(*command, "--resume")
    assert "removing what a killed command left of it" in resumed.stderr
    assert running_alone() == []
    assert not list(subfolder("stacks").iterdir())


def running_alone() -> list[str]:
    """Containers of the stacks that single commands started for themselves."""
    found: list[str] = []
    for stack in subfolder("stacks").iterdir():
        command = ["docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={stack.name}"]
        found += subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return found


def test_taken_port_is_named(harness: Harness, catalogue: Path) -> None:
    """Exit 3 before anything is started."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        entry = f"  one: {{repo: Qwen/Qwen2.5-0.5B-Instruct, gpu: L4, port: {port}}}\n"
        catalogue.write_text(f"models:\n{entry}", encoding="utf-8")
        refused = harness("up", "one", *STACK, check=False)
    assert (refused.returncode, str(port) in refused.stderr) == (3, True)


def test_missing_gpu_runtime_is_named_before_anything_is_pulled(harness: Harness) -> None:
    """Exit 3, with what to install. Runs where there is no NVIDIA runtime."""
    from harness.stack.docker import has_gpu_runtime

    if has_gpu_runtime():
        pytest.skip("this Docker Engine has an NVIDIA runtime")
    refused = harness("up", "one", "--runtime", "compose", check=False)
    assert refused.returncode == 3
    assert "nvidia-container-toolkit" in refused.stderr


def test_image_that_cannot_be_pulled_is_named(harness: Harness) -> None:
    """Exit 3 with the registry's reason."""
    refused = harness("up", "away", "--runtime", "compose", check=False)
    assert refused.returncode == 3
    assert "cannot pull 127.0.0.1:1/nothing:1" in refused.stderr
    assert ours() == []


def test_engine_that_does_not_run_is_named(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 3, with how to start it and what works without."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    refused = harness("up", "one", *STACK, check=False)
    assert refused.returncode == 3
    assert "--runtime embedded" in refused.stderr
    monkeypatch.delenv("DOCKER_HOST")


def test_daemon_goes_away_while_serving(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` says what is wrong and `down` ends with 3, both without a traceback; with the daemon back,"
    " `down` works."""
    harness("up", "one", *STACK)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    (shown,) = json.loads(harness("status", "--json").stdout)
    assert (shown["phase"], "does not answer" in shown["detail"]) == ("unknown", True)
    assert harness("down", check=False).returncode == 3
    monkeypatch.delenv("DOCKER_HOST")
    harness("down")


def test_container_that_hits_its_memory_limit(harness: Harness, tmp_path: Path) -> None:
    """Told apart from GPU memory, with what to change: exit 4. The limit comes from a template of the user's own."""
    template = compose_file("service.yaml") + "\nmem_limit: 12m\nmemswap_limit: 12m\n"
    (tmp_path / "compose").mkdir()
    (tmp_path / "compose" / "service.yaml").write_text(template, encoding="utf-8")
    failed = harness("up", "one", *STACK, check=False)
    assert failed.returncode == 4
    assert "its own memory limit" in failed.stderr
    assert "mem_limit" in failed.stderr


def test_two_stacks_at_once(harness: Harness, tmp_path: Path) -> None:
    """Two users of one engine bring the same model up at the same moment, and each takes down only their own."""
    command = [sys.executable, "-m", "harness", "up", "one", *STACK, "--json"]
    other_state = {**environment(), "XDG_STATE_HOME": str(tmp_path / "other")}
    with (
        subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE) as mine,
        subprocess.Popen(command, cwd=tmp_path, env=other_state, stdout=subprocess.PIPE) as theirs,
    ):
        answers = [json.loads(each.communicate(timeout=120)[0]) for each in (mine, theirs)]
    assert answers[0][0]["endpoint"] != answers[1][0]["endpoint"]
    harness("down")
    assert ours() == []
    subprocess.run([*command[:3], "status"], cwd=tmp_path, env=other_state, check=True, capture_output=True)
    with urllib.request.urlopen(f"{answers[1][0]['endpoint']}/health") as health:
        assert health.status == 200
    subprocess.run([*command[:3], "down"], cwd=tmp_path, env=other_state, check=True, capture_output=True)


def test_bench_uses_what_is_up(harness: Harness, tmp_path: Path) -> None:
    """`open_service` of the same entry yields the running one and leaves it running."""
    harness("up", "one", *STACK)
    script = f"""
from harness.serve.serving import open_service
from harness.serve.target import Target
with open_service(Target(model="one", catalogue={str(tmp_path / "models.yaml")!r})) as served:
    print(served.ours, served.limits.max_input_tokens, served.service.facts().image)
"""
    command = [sys.executable, "-c", script]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert told.stdout.startswith("False 1000 harness-emulator:")
    assert len(ours()) == 2
    harness("down")


def test_what_died_is_explained(harness: Harness) -> None:
    """`status` says why it is away, not only that it is; and `up` starts it again."""
    harness("up", "one", *STACK)
    (container,) = [name for kind, name in ours() if kind == "container"]
    subprocess.run(["docker", "kill", container], capture_output=True, check=True)
    (shown,) = json.loads(harness("status", "--json").stdout)
    assert shown["phase"] == "exited"
    assert "137" in shown["detail"]
    assert "signal 9" in shown["detail"]
    assert json.loads(harness("up", "one", *STACK, "--json").stdout)[0]["phase"] == "ready"
    harness("down")
