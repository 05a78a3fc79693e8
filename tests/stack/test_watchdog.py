"""The harness is killed: what it started for itself ends, what was to stay stays."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.commands.status import down
from harness.stack import state
from harness.stack.process_tree import MARKER, alive, descendants, end, marked
from harness.stack.running import all_services
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("no_process_left", "no_watchdog_left")


@pytest.fixture
def no_watchdog_left(no_process_left: None, own_state: Path) -> Iterator[None]:
    """It ends a moment after those that it ends."""
    yield
    until(lambda: not watchdogs(str(own_state)))


def watchdogs(folder: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get("HARNESS_TEST_STATE") == folder and alive(process)
            found += [process] if ours and "harness.stack.watchdog" in process.cmdline() else []
    return found


START = """
import os, signal, sys, time
from pathlib import Path
from harness.catalog.models import Model
from harness.stack import state
from harness.stack.launch import local_launch
from harness.stack.process import ProcessService
launch = local_launch(Model("tiny", "a/b"), program={launcher!r})
service = ProcessService(launch, outlives_harness={stays})
service.start()
until = time.monotonic() + 30
while not any({awaited!r} in line for line in service.all_log_lines()) and time.monotonic() < until:
    time.sleep(0.02)
Path(launch.options["SHARD_UDS_PATH"] + "-0").touch()
if {kept}:
    service.keep()
    ProcessService.found_again(state.recall("tiny")).end_with_harness()
print(service.record.marker, launch.options["SHARD_UDS_PATH"] + "-0", flush=True)
os.kill(os.getpid(), signal.{signal})
time.sleep(60)
"""


def killed_harness(
    launcher: str, *, stays: bool = False, kept: bool = False, awaited: str = "Connected", by: str = "SIGKILL"
) -> list[str]:
    """The marker of what it had started, and a socket that its shard left."""
    script = START.format(launcher=launcher, stays=stays, kept=kept, awaited=awaited, signal=by)
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert answer.returncode == -signal.Signals[by], answer.stderr
    return answer.stdout.split()


@pytest.mark.parametrize("form", ["serve", "stubborn", "hang"])
def test_nothing_outlives_a_killed_harness(launcher: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a launcher, willing or not, ready or not, nor its shard, nor a file of theirs."""
    monkeypatch.setenv("STAND_IN", form)
    marker, socket = killed_harness(launcher, awaited="Warming up")
    until(lambda: not marked(marker))
    until(lambda: not state.recall_all() and not list(state.subfolder("logs").iterdir()) and not Path(socket).exists())
    assert down() == []


def test_sigterm_without_a_handler_is_a_death_too(launcher: str) -> None:
    """A program that uses these parts need not know of the command line's handlers."""
    marker, _ = killed_harness(launcher, by="SIGTERM")
    until(lambda: not marked(marker))


def test_what_was_kept_for_a_while_can_be_bound_again(launcher: str) -> None:
    """A command that starts, lets others use it by its name, and stops."""
    marker, socket = killed_harness(launcher, stays=True, kept=True)
    until(lambda: not marked(marker))
    until(lambda: not state.recall_all() and not list(state.subfolder("logs").iterdir()))
    Path(socket).unlink()


def test_what_up_starts_stays_even_before_it_is_ready(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack survives the death of the harness; `down` finds it."""
    monkeypatch.setenv("STAND_IN", "hang")
    marker, socket = killed_harness(launcher, stays=True, awaited="Warming up")
    time.sleep(1.5)  # longer than a watchdog would need
    assert len(marked(marker)) == 2
    (service,) = all_services()
    assert service.state().running
    service.stop(grace=0)
    assert not marked(marker)
    Path(socket).unlink()


def test_orphan_without_the_mark_is_remembered(tmp_path: Path) -> None:
    """A shard that wrote over its environment, and whose launcher died before the harness did."""
    script = f"""
import os, psutil, signal, subprocess, sys, time
from harness.stack.watchdog import Watchdog
watchdog = Watchdog("mark", ({str(tmp_path / "left*")!r},))
shard = "import os, signal, time; os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
clean = dict(HARNESS_TEST_STATE=os.environ["HARNESS_TEST_STATE"])
launcher = subprocess.Popen(["/bin/sh", "-c", '"$0" -c "$1" & wait', sys.executable, shard], env=clean)
watchdog.watch(launcher.pid)
time.sleep(2.2)
(shard,) = psutil.Process(launcher.pid).children()
launcher.kill()
launcher.wait()
print(shard.pid, shard.status(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    (tmp_path / "left-1").touch()
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    pid, status = answer.stdout.split()
    assert status == "sleeping"
    until(lambda: not psutil.pid_exists(int(pid)))
    until(lambda: not (tmp_path / "left-1").exists())


def test_descendants_of_the_dead_are_none_and_those_of_the_living_are_all() -> None:
    """Grandchildren too; a process number that another has now is nobody of ours."""
    launcher = subprocess.Popen(
        ["sh", "-c", "sh -c 'sleep 600; true' & wait"], env={MARKER: "m", "PATH": "/usr/bin:/bin"}
    )
    me = psutil.Process(launcher.pid)
    try:
        until(lambda: len(descendants({me})) == 3)
        assert descendants({me}) == marked("m")
    finally:
        end(descendants({me}), None)
        launcher.wait()
    assert descendants({me}) == set()
