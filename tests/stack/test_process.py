"""A launcher as a process of this host: a real one, that starts a shard in a session of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.catalog.models import Limits, Model
from harness.engines import engine_named
from harness.errors import MissingError, UsageError
from harness.stack import state
from harness.stack.launch import embedded_launch, local_launch
from harness.stack.ports import free_port, ports_from, release_port
from harness.stack.process import ProcessService, version_output
from harness.stack.process_tree import MARKER
from harness.stack.readiness import StartFailed, wait_until_ready
from harness.stack.running import services_of
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("no_process_left")
MODEL = Model("tiny", "Qwen/Qwen2.5-0.5B-Instruct", limits=Limits(max_concurrent_requests=7))


def family(service: ProcessService) -> list[psutil.Process]:
    record = service.record
    assert record is not None
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == record.marker and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_from_start_to_stop(launcher: str) -> None:
    """It answers, tells its log and its limits, and nothing is left of it or of its shard."""
    service = ProcessService(local_launch(MODEL, program=launcher))
    service.start()
    try:
        ready = wait_until_ready(service, timeout=30)
        assert ready.limits.max_batch_total_tokens == 2048
        assert ready.info.version == "3.3.6-dev0"
        assert len(family(service)) == 2
    finally:
        service.stop(grace=10)
    assert service.state().exit_code == 0
    assert family(service) == []
    assert state.recall_all() == []
    assert not list(state.subfolder("logs").iterdir())


def test_engine_sees_the_entry_and_nothing_of_the_users_tgi_variables(
    launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MAX_TOTAL_TOKENS of some other project in the shell must not change what is measured; PATH and the like stay."""
    monkeypatch.setenv("MAX_TOTAL_TOKENS", "77")
    monkeypatch.setenv("PREFIX_CACHING", "0")
    monkeypatch.setenv("MY_OWN", "kept")
    service = ProcessService(local_launch(MODEL, program=launcher))
    service.start()
    try:
        wait_until_ready(service, timeout=30)
        with urllib.request.urlopen(f"{service.endpoint.url}/environment") as answer:
            seen = json.load(answer)
    finally:
        service.stop(grace=5)
    assert "MAX_TOTAL_TOKENS" not in seen
    assert "PREFIX_CACHING" not in seen
    assert (seen["MY_OWN"], seen["MAX_CONCURRENT_REQUESTS"], seen["HOSTNAME"]) == ("kept", "7", "127.0.0.1")


def test_two_launchers_share_neither_sockets_nor_ports(launcher: str) -> None:
    """TGI's own defaults for the shard's socket and the metrics port are the same for all launchers of a host."""
    first, second = (dict(local_launch(MODEL, program=launcher).options) for _ in range(2))
    for name in ("SHARD_UDS_PATH", "PROMETHEUS_PORT", "PORT"):
        assert first[name] != second[name]


@pytest.mark.parametrize("form", ["serve", "colour", "json"])
def test_log_is_understood_in_each_form(launcher: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain, coloured and JSON lines lead to the same limits."""
    monkeypatch.setenv("STAND_IN", form)
    service = ProcessService(local_launch(MODEL, program=launcher))
    service.start()
    try:
        assert wait_until_ready(service, timeout=30).limits.max_batch_total_tokens == 2048
    finally:
        service.stop(grace=5)


def test_output_never_blocks_the_engine(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte of log before anybody reads does not hold it up, and no line of it is lost."""
    monkeypatch.setenv("STAND_IN", "flood")
    service = ProcessService(local_launch(MODEL, program=launcher))
    service.start()
    try:
        until(lambda: any("Connected" in line for line in service.all_log_lines()))
        lines = list(service.log_lines())
        assert lines.count("y" * 99) == 10_000
        assert lines.count("x" * 99) == 1
        assert list(service.log_lines()) == []
    finally:
        service.stop(grace=5)


def test_failure_has_its_cause(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory in warm-up is named, with the exit code of the launcher and a smaller value."""
    monkeypatch.setenv("STAND_IN", "memory")
    service = ProcessService(local_launch(MODEL, program=launcher, changes={"MAX_BATCH_PREFILL_TOKENS": "8192"}))
    service.start()
    said: list[str] = []
    try:
        with pytest.raises(StartFailed, match=r"8,192 tokens at once.*4096") as failed:
            wait_until_ready(service, timeout=30, say=said.append)
    finally:
        service.stop(grace=5)
    assert failed.value.exit_code == 4
    assert (failed.value.failure.cause, failed.value.failure.engine_exit_code) == ("warmup-memory", 1)
    assert any("Error: WebserverFailed" in line for line in said)


def test_hanging_start_ends_in_time(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`start_timeout` holds, and the message says in which phase it hung."""
    monkeypatch.setenv("STAND_IN", "hang")
    service = ProcessService(local_launch(MODEL, program=launcher))
    service.start()
    try:
        with pytest.raises(StartFailed, match="warming up") as failed:
            wait_until_ready(service, timeout=1)
    finally:
        service.stop(grace=5)
    assert failed.value.failure.cause == "timeout"


def test_stubborn_launcher_is_killed_with_its_shard(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who ignores SIGTERM gets SIGKILL after the grace."""
    monkeypatch.setenv("STAND_IN", "stubborn")
    service = ProcessService(local_launch(MODEL, program=launcher))
    service.start()
    try:
        until(lambda: any("Connected" in line for line in service.log_lines()))
    finally:
        service.stop(grace=0.3)
    assert service.state().exit_code == 137
    assert family(service) == []


def test_shard_without_launcher_is_ended_too(launcher: str) -> None:
    """A launcher that was killed from outside leaves a shard behind; stop() finds it by its marker."""
    service = ProcessService(local_launch(MODEL, program=launcher))
    service.start()
    try:
        until(lambda: any("Connected" in line for line in service.log_lines()))
        record = service.record
        assert record is not None
        assert record.pid is not None
        psutil.Process(record.pid).kill()
        until(lambda: not service.state().running)
        assert service.state().exit_code == 137
        assert len(family(service)) == 1
    finally:
        service.stop(grace=5)
    assert family(service) == []


def test_kept_service_is_found_again(launcher: str) -> None:
    """What `up` leaves running has its address, its log and its end in the next command, and stop() is harmless"
    " twice."""
    service = ProcessService(local_launch(MODEL, program=launcher))
    service.start()
    try:
        until(lambda: any("Connected" in line for line in service.all_log_lines()))
        service.keep({"max_batch_total_tokens": 2048})
        (again,) = services_of("tiny")
        assert again.endpoint.url == service.endpoint.url
        assert any("Warming up model" in line for line in again.log_lines())
        assert again.digest == service.digest
        assert again.state().running
        again.stop(grace=5)
        again.stop(grace=5)
        assert not again.state().running
        assert services_of("tiny") == []
    finally:
        service.stop(grace=5)


def test_survives_the_death_of_the_harness(launcher: str, own_state: Path) -> None:
    """The harness is killed: what was kept goes on and can be found and ended; what was not has gone with it."""
    script = f"""
import os, signal
from harness.catalog.models import Model
from harness.stack.launch import local_launch
from harness.stack.process import ProcessService
kept, own = (ProcessService(local_launch(Model(name, "a/b"), program={launcher!r})) for name in ("kept", "own"))
kept.start(); kept.keep(); own.start()
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], check=False)
    from harness.commands.status import down, status

    until(lambda: [each.phase for each in status(["kept"])] == ["ready"])
    until(lambda: [each.name for each in status()] == ["kept"])
    assert down() == ["kept"]
    assert status() == []


def test_reused_process_number_is_not_taken_for_ours(launcher: str) -> None:
    """The number alone proves nothing: the moment it began must be the same."""
    me = psutil.Process(os.getpid())
    record = state.ServiceRecord("old", "local", "http://127.0.0.1:1", pid=me.pid, created=me.create_time() - 100)
    service = ProcessService.found_again(record)
    assert not service.state().running
    service.stop(grace=1)
    assert me.is_running()


def test_missing_program_is_named() -> None:
    """Exit code 3, and what to do."""
    service = ProcessService(local_launch(MODEL, program="/nowhere/launcher"))
    with pytest.raises(MissingError, match=r"/nowhere/launcher.*--launcher"):
        service.start()
    assert state.recall_all() == []
    assert not list(state.subfolder("logs").iterdir())


def test_program_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    """A file without the right to be executed."""
    program = tmp_path / "launcher"
    program.write_text("no program", encoding="utf-8")
    with pytest.raises(MissingError, match="cannot be run"):
        ProcessService(local_launch(MODEL, program=str(program))).start()


def test_taken_port_is_told_before_anything_starts(launcher: str) -> None:
    """With who holds it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        service = ProcessService(local_launch(MODEL, program=launcher, port=port))
        with pytest.raises(MissingError, match=f"port {port} .* in use") as refused:
            service.start()
    assert refused.value.exit_code == 3


def test_launcher_tells_its_version(launcher: str, tmp_path: Path) -> None:
    """`--version` where there is one; nothing hangs or stays where there is none."""
    assert engine_named("tgi").told_version(version_output(launcher)) == "3.3.6-dev0"
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\nexit 2\n", encoding="utf-8")
    other.chmod(0o755)
    assert version_output(str(other)) == ""


def test_options_are_spelled_for_the_launchers_own_version(tmp_path: Path) -> None:
    """The entry may say 3.3.7; the program here is 1.4, which knows max_input_length only."""
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho text-generation-launcher 1.4.0\n", encoding="utf-8")
    old.chmod(0o755)
    launch = local_launch(Model("m", "a/b", limits=Limits(max_input_tokens=100)), program=str(old))
    assert launch.options["MAX_INPUT_LENGTH"] == "100"
    assert launch.engine_version == "1.4.0"


def test_embedded_plays_the_gpu_of_the_entry() -> None:
    """The emulator is told model and GPU; without one it plays an L4."""
    assert embedded_launch(MODEL).options["HARNESS_EMULATOR_GPU"] == "L4"
    assert embedded_launch(MODEL, gpu="H100").options["HARNESS_EMULATOR_GPU"] == "H100"
    assert embedded_launch(MODEL).options["MODEL_ID"] == MODEL.repo


def test_digest_changes_with_the_entry_alone(launcher: str) -> None:
    """Free ports differ from start to start; they are no change of the entry."""
    first, second = (local_launch(MODEL, program=launcher) for _ in range(2))
    other = local_launch(MODEL, program=launcher, changes={"MAX_TOTAL_TOKENS": "10"})
    assert first.digest == second.digest != other.digest


def test_two_harnesses_choose_different_ports() -> None:
    """Between choosing and binding lie seconds; whoever comes in between gets the next one."""
    (mine,) = ports_from(8080, 1, reserve=True)
    script = f"from harness.stack.ports import ports_from; print(ports_from({mine}, 1, reserve=True)[0])"

    def theirs() -> int:
        return int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)

    try:
        assert theirs() > mine
        assert mine not in ports_from(mine, 1)
    finally:
        release_port(mine)
    assert ports_from(mine, 1, avoid={mine}) != [mine]


def test_process_listens_where_the_entry_says() -> None:
    """On all addresses or on 127.0.0.1: we could not reach it under another one."""
    assert local_launch(replace(MODEL, listen="0.0.0.0"), program="true").options["HOSTNAME"] == "0.0.0.0"
    with pytest.raises(UsageError, match=r"192\.0\.2\.7"):
        local_launch(replace(MODEL, listen="192.0.2.7"), program="true")


def test_free_port_can_be_bound() -> None:
    """And lies above the ports that need a privilege."""
    port = free_port()
    assert port > 1024
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
