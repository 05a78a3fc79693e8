"""`up`, `status`, `logs`, `down`, `render` and `doctor` as calls, on a launcher of this host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from harness.commands.doctor import CHECKS, as_text, doctor
from harness.commands.render import render
from harness.commands.status import down, logs, status, status_text
from harness.commands.up import dry_run_text, up, up_text
from harness.errors import MissingError, UsageError
from harness.serve.serving import open_service
from harness.serve.target import Target
from harness.stack import state
from harness.stack.ports import ports_from
from harness.stack.readiness import StartFailed
from tests.stack.conftest import STAND_IN, launcher  # noqa: F401 - a fixture
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("no_process_left")


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(
        "models:\n"
        "  one: {repo: a/one, gpu: L4, limits: {max_concurrent_requests: 7}}\n"
        "  two: {repo: a/two, gpu: L4}\n"
        "  greedy: {repo: a/b, gpu: L4, limits: {max_batch_prefill_tokens: 9000}}\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def target(catalogue: Path, launcher: str) -> Target:  # noqa: F811
    return Target(runtime="local", launcher=launcher, catalogue=str(catalogue))


def named(target: Target, *names: str) -> list[Target]:
    from dataclasses import replace

    return [replace(target, model=name) for name in names]


def test_from_up_to_down(target: Target) -> None:
    """Two models answer on ports of their own, are listed with their limits, and are gone after `down`."""
    running = up(named(target, "one", "two"))
    try:
        assert [each.name for each in running] == ["one", "two"]
        assert running[0].url != running[1].url
        assert running[0].limits.max_batch_total_tokens == 2048
        assert running[0].as_json()["endpoint"] == running[0].url
        json.dumps([each.as_json() for each in running])
        assert running[0].url in up_text(running)
        shown = status()
        assert [(each.name, each.phase) for each in shown] == [("one", "ready"), ("two", "ready")]
        assert "2,048" in status_text(shown)
        assert any("Warming up model" in line for line in logs(["one"]))
        assert {line.partition(" | ")[0] for line in logs()} == {"one", "two"}
    finally:
        assert down() == ["one", "two"]
    assert status() == []
    assert status_text([]) == "nothing runs"


def test_a_start_that_tells_another_budget_than_the_sum_is_pointed_at(target: Target, catalogue: Path) -> None:
    """The stand-in has 2,048 tokens whatever it serves; `status` and `up` show both figures."""
    catalogue.write_text("models:\n  one: {repo: Qwen/Qwen2.5-0.5B, gpu: L4}\n", encoding="utf-8")
    said: list[str] = []
    running = up(named(target, "one"), progress=said.append)
    try:
        (budget,) = running[0].predicted
        assert (budget.found, budget.predicted > 1_000_000) == (2048, True)
        assert any("shape, dtype or GPU in its entry may be wrong" in line for line in said)
        assert "% less)" in up_text(running)
        (shown,) = status()
        assert shown.as_json()["predicted"]["max_batch_total_tokens"]["found"] == 2048
        assert f"{budget.predicted:,} (-99." in status_text([shown])
    finally:
        down()


def test_an_entry_with_a_shape_of_its_own_is_played(catalogue: Path) -> None:
    """No table has it; the emulator gets the shape from the entry, and finds what the sum said."""
    catalogue.write_text(
        "models:\n  mine:\n    repo: acme/new-3b\n    gpu: L4\n    dtype: bfloat16\n"
        "    shape: {model_type: llama, layers: 30, hidden: 2560, heads: 20, kv_heads: 4, head_dim: 128,"
        " intermediate: 8192, vocab: 100000, tied: true, context: 16384}\n",
        encoding="utf-8",
    )
    running = up([Target(model="mine", runtime="embedded", catalogue=str(catalogue))])
    try:
        (budget,) = running[0].predicted
        assert abs(budget.off_by) < 0.02
    finally:
        down()


def test_up_twice_is_harmless(target: Target) -> None:
    """The second one says so and starts nothing."""
    said: list[str] = []
    try:
        first = up(named(target, "one"))
        pid = state.recall_all()[0].pid
        second = up(named(target, "one"), progress=said.append)
        assert (second[0].url, state.recall_all()[0].pid) == (first[0].url, pid)
        assert said == ["one: up already"]
    finally:
        down()


def test_changed_entry_is_renewed_and_its_neighbour_left_alone(target: Target, catalogue: Path) -> None:
    """Only what changed is started again."""
    try:
        up(named(target, "one", "two"))
        before = {record.name: record.pid for record in state.recall_all()}
        text = catalogue.read_text(encoding="utf-8")
        catalogue.write_text(text.replace("max_concurrent_requests: 7", "max_concurrent_requests: 8"), encoding="utf-8")
        up(named(target, "one", "two"))
        after = {record.name: record.pid for record in state.recall_all()}
        assert before["one"] != after["one"]
        assert before["two"] == after["two"]
    finally:
        down()


def test_what_died_is_told_and_renewed(target: Target) -> None:
    """A killed engine shows as exited; `up` starts it again, and its shard of before does not stay."""
    try:
        up(named(target, "one"))
        pid = state.recall_all()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while status()[0].phase != "exited":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert up(named(target, "one"))[0].phase == "ready"
    finally:
        down()


def test_failed_start_leaves_its_neighbours(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """What answered stays; what failed is named and gone."""
    monkeypatch.setenv("STAND_IN", "memory")
    try:
        with pytest.raises(StartFailed, match="greedy") as failed:
            up(named(target, "one", "greedy"))
        assert failed.value.exit_code == 4
        assert [each.name for each in status()] == ["one"]
    finally:
        down()


@pytest.mark.parametrize("names", [("one", "one"), ("none",)])
def test_wrong_names_are_refused(target: Target, names: tuple[str, ...]) -> None:
    """Before anything is started."""
    with pytest.raises(UsageError):
        up(named(target, *names))
    assert state.recall_all() == []


def test_unknown_program_is_told(target: Target) -> None:
    """Exit code 3, and nothing remembered."""
    from dataclasses import replace

    with pytest.raises(MissingError, match="not found"):
        up([replace(target, model="one", launcher="/nowhere")])
    assert state.recall_all() == []


def test_down_of_what_is_not_up(target: Target) -> None:
    """Says what is."""
    with pytest.raises(UsageError, match="nothing"):
        down(["one"])
    assert down() == []


def test_ctrl_c_before_ready(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 130, and the hanging launcher is gone with its shard."""
    monkeypatch.setenv("STAND_IN", "hang")
    assert target.launcher is not None
    command = [sys.executable, "-m", "harness", "up", "one", "--runtime", "local", "--launcher", target.launcher]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "warming up" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert (process.returncode, "Traceback" in rest) == (130, False)
    assert state.recall_all() == []


def test_bench_and_up_share_a_service(target: Target, catalogue: Path) -> None:
    """`open_service` finds what `up` left without being told the runtime again, and leaves it; probe's own is"
    " its own."""
    from dataclasses import replace

    try:
        (running,) = up(named(target, "one"))
        with open_service(Target(model="one", catalogue=str(catalogue))) as served:
            assert (served.ours, served.service.endpoint.url) == (False, running.url)
            assert served.limits.max_batch_total_tokens == 2048
        with open_service(replace(target, model="one"), own=True) as mine:
            assert (mine.ours, mine.service.endpoint.url != running.url) == (True, True)
        assert [each.phase for each in status()] == ["ready"]
    finally:
        down()


def test_service_of_our_own_is_stopped_whatever_happens(target: Target) -> None:
    """Also when the work on it fails."""
    from dataclasses import replace

    with pytest.raises(ZeroDivisionError), open_service(replace(target, model="one")):
        _ = 1 / 0
    assert state.recall_all() == []


def test_renewed_entry_is_not_measured_by_mistake(target: Target, catalogue: Path) -> None:
    """What runs was started from another state of the entry: nobody may take its figures for the new one."""
    try:
        up(named(target, "one"))
        text = catalogue.read_text(encoding="utf-8")
        catalogue.write_text(text.replace("max_concurrent_requests: 7", "max_concurrent_requests: 8"), encoding="utf-8")
        with (
            pytest.raises(UsageError, match="another state"),
            open_service(Target(model="one", catalogue=str(catalogue))),
        ):
            pass
    finally:
        down()


def test_dry_run_prints_and_starts_nothing(catalogue: Path, target: Target) -> None:
    """The stack's file for Docker, the command and its environment for a process."""
    stack = dry_run_text([Target(model="one", runtime="compose", catalogue=str(catalogue))])
    assert list(yaml.safe_load(stack)["services"]) == ["one"]
    assert "MAX_CONCURRENT_REQUESTS: '7'" in dry_run_text(named(target, "one"))
    assert state.recall_all() == []


def test_render_writes_files(catalogue: Path, tmp_path: Path) -> None:
    """Into a folder, with several models in one stack."""
    targets = [Target(model=name, catalogue=str(catalogue), emulate=True) for name in ("one", "two")]
    path = Path(render(targets, output=tmp_path / "out"))
    assert list(yaml.safe_load(path.read_text(encoding="utf-8"))["services"]) == ["one", "two"]


def test_rendered_stack_says_where_the_token_must_be(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a command that works as it stands; the token is not in it, and a stack without one says nothing."""
    target = Target(model="one", catalogue=str(catalogue), emulate=True)
    assert "HF_TOKEN" not in render([target])
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    text = render([target])
    assert "hf_secret" not in text
    subprocess.run(["sh", "-c", text.splitlines()[1].lstrip("# ")], check=True)
    written = Path(yaml.safe_load(text)["secrets"]["hub-token"]["file"])
    assert (written.read_text(encoding="utf-8"), written.stat().st_mode & 0o777) == ("hf_secret", 0o600)


@pytest.mark.parametrize(
    "wrong",
    [
        Target(runtime="embedded", launcher="x"),
        Target(runtime="local", emulate=True),
    ],
)
def test_options_that_contradict_each_other(wrong: Target, catalogue: Path) -> None:
    """--launcher without local, --emulate without a stack."""
    from dataclasses import replace

    with pytest.raises(UsageError):
        up([replace(wrong, model="one", catalogue=str(catalogue))])


def test_doctor_names_every_part_with_a_remedy() -> None:
    """Each finding has a verdict; what is not well has a command or says what it means."""
    findings = doctor()
    assert len(findings) == len(CHECKS)
    assert {each.verdict for each in findings} <= {"ok", "warn", "fail"}
    names = {each.name for each in findings}
    assert {"docker", "compose", "nvidia runtime", "gpu", "disk", "hub token", "ports", "open files"} <= names
    text = as_text(findings)
    for each in findings:
        assert each.name in text
        assert each.verdict != "fail" or each.fix


def test_doctor_without_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `docker` command: that is what it says, and the rest is examined all the same."""
    from harness.stack import docker

    docker.engine.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    found = {each.name: each for each in doctor()}
    docker.engine.cache_clear()
    assert (found["docker"].verdict, "no `docker`" in found["docker"].found) == ("fail", True)
    assert found["ports"].verdict in ("ok", "warn")


def test_entry_that_cannot_be_started_reserves_no_port(
    target: Target, catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another `up` may have the port that was chosen for it."""
    catalogue.write_text(catalogue.read_text().replace("a/two, ", "a/two, listen: 192.0.2.7, "))
    first_port = 28_080  # no other test's, which may come and go meanwhile
    monkeypatch.setattr("harness.commands.up.FIRST_PORT", first_port)
    first = ports_from(first_port, 1)
    with pytest.raises(UsageError, match=r"192\.0\.2\.7"):
        up(named(target, "two"))
    assert ports_from(first_port, 1) == first


def begin_up(target: Target, catalogue: Path, *names: str, **environment: str) -> subprocess.Popen[str]:
    assert target.launcher is not None
    command = [sys.executable, "-m", "harness", "up", *names, "--runtime", "local", "--launcher", target.launcher]
    return subprocess.Popen(
        [*command, "--catalogue", str(catalogue)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def test_several_that_start_one_entry_at_once_share_one_engine(target: Target, catalogue: Path) -> None:
    """All end with 0, one engine is there, `status` knows it and `down` ends it."""
    try:
        asked = [("one",), ("one", "two"), ("two", "one")]
        started = [begin_up(target, catalogue, *names) for names in asked]
        ended = [(process.communicate(timeout=60)[0], process.returncode) for process in started]
        assert [code for _, code in ended] == [0, 0, 0], ended
        assert any("another harness" in said for said, _ in ended)
        assert sorted(each.name for each in status()) == ["one", "two"]
        markers = {record.marker for record in state.recall_all()}
        engines = [each for each in psutil.process_iter() if _is_stand_in(each)]
        assert len(engines) == len(markers) == 2
    finally:
        down()


def _is_stand_in(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[1:2] == [str(STAND_IN)] and process.environ().get("XDG_STATE_HOME") == os.environ.get(
            "XDG_STATE_HOME"
        )
    except psutil.Error:
        return False


def test_a_start_that_is_killed_holds_nobody_up(target: Target, catalogue: Path) -> None:
    """The lock goes with its process."""
    hanging = begin_up(target, catalogue, "one", STAND_IN="hang")
    try:
        until(lambda: any(each.attached for each in state.recall_all()))
        waiting = begin_up(target, catalogue, "one")
        assert waiting.stdout is not None
        assert f"process {hanging.pid}" in waiting.stdout.readline()
        hanging.kill()
        assert (waiting.communicate(timeout=60)[1], waiting.returncode) == (None, 0)
        assert [each.phase for each in status(["one"])] == ["ready"]
    finally:
        hanging.kill()
        hanging.communicate()
        down()
