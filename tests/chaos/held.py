"""What must hold after every command, whatever it was asked and however it was ended."""

from __future__ import annotations

import io
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil

from harness import cli
from harness.measure.journal import read_journal
from harness.measure.records import read_parquet

CODES = (0, 1, 2, 3, 4, 130)
PATIENCE = 120.0  # seconds beyond what a command was told to last
WENT_ON = 3.0  # seconds after a signal in which a command may still end by itself
DISK_FULL, REFUSED = "no room for files beyond 8 kB", "nobody listens"
OURS = re.compile(r"/harness/(?!__init__|__main__|harness/)\w").search  # in a traceback: it had come so far
HARNESS = [sys.executable, "-m", "harness"]


@dataclass(frozen=True)
class Case:
    """What is asked. kind: of command. sign: a signal, and after how many seconds."""

    fault: str
    kind: str
    sign: tuple[int, float] | None = None
    processes: int = 1
    pages: bool = False

    def __str__(self) -> str:
        told = f", {signal.Signals(self.sign[0]).name} after {self.sign[1]:.2f} s" if self.sign else ""
        return f"{self.kind} / {self.fault}{told}"


@dataclass
class Outcome:
    """What came of it. broken: which of the things that must hold did not."""

    code: int
    said: str
    seconds: float
    broken: list[str] = field(default_factory=list)


@cache
def calibrated() -> Path:
    """A state folder in which the client's own error is known, so that not every run measures it again."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-state-"))
    environment = {**os.environ, "XDG_STATE_HOME": str(folder)}
    subprocess.run([*HARNESS, "calibrate", "--users", "64"], env=environment, capture_output=True)
    return folder / "harness"


def execute(command: Sequence[str], case: Case, folder: Path, environment: dict[str, str]) -> Outcome:
    begun, heard = time.monotonic(), 0.0

    def small_files() -> None:
        if case.fault == DISK_FULL:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))

    said_file = folder / "said"
    with said_file.open("wb") as said:
        process = subprocess.Popen([*HARNESS, *command], stdout=said, stderr=said, env=environment, cwd=folder,
                                   preexec_fn=small_files)  # fmt: skip
        try:
            if case.sign is not None:
                with_patience(process, case.sign[1])
                if process.poll() is None:
                    process.send_signal(case.sign[0])
                    heard = time.monotonic()
            late = not with_patience(process, PATIENCE)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    text = said_file.read_text(errors="replace")
    lines = [line for line in text.splitlines() if line.startswith("harness:")] or text.splitlines() or [""]
    outcome = Outcome(process.returncode, lines[-1], time.monotonic() - begun)
    killed = case.sign is not None and case.sign[0] == signal.SIGKILL
    # Before Python has come to harness, a signal ends it as it ends any Python program: by SIGINT with its traceback.
    early = case.sign is not None and case.sign[1] < 0.5 and process.returncode == -case.sign[0]
    early |= case.sign is not None and case.sign[1] < 0.5 and text.endswith("KeyboardInterrupt\n") and not OURS(text)
    if late:
        outcome.broken.append("did not end")
    elif process.returncode not in CODES and not (killed and process.returncode == -9) and not early:
        outcome.broken.append(f"exit code {process.returncode}")
    elif heard and not killed and not early:
        went_on = time.monotonic() - heard
        # One that was ending already may end as if nothing had been.
        if process.returncode != 130 and (process.returncode not in (0, 1, 2) or went_on > WENT_ON):
            outcome.broken.append(f"exit code {process.returncode}, {went_on:.1f} s after the signal")
    log = folder / "run" / "load.log"
    if ("Traceback" in text and not early) or (log.is_file() and "Traceback" in log.read_text(errors="replace")):
        outcome.broken.append("a traceback")
    if process.returncode in (2, 3, 4, 70) and not lines[-1].startswith("harness:"):
        outcome.broken.append("no line that says why")
    return outcome


def with_patience(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it ended within so many seconds."""
    try:
        process.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        return False


def left_over(folder: Path) -> list[str]:
    """Processes of this case's world, after all had time to see that they are not wanted any more."""
    deadline = time.monotonic() + 15
    while (found := list(_ours(str(folder / "state")))) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in found:
        process.kill()
    return [f"left: {' '.join(_command(each))[:120]}" for each in found]


def _ours(state: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if environment.get("XDG_STATE_HOME") == state and "CHAOS_SERVER" not in environment:
                yield process
        except psutil.Error:
            continue


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return ["?"]


def reportable(folder: Path) -> list[str]:
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):  # in this process: to load it anew takes longer than to report
        command = ["report", str(folder), "--format", "json,markdown", "--output", str(folder.parent / "again")]
        code = cli.run(command)
    return [] if code == 0 else [f"report ends with {code}: {said.getvalue()[-300:]!r}"]


def agrees(folder: Path, seen: Sequence[str]) -> list[str]:
    """Every answer that a record tells of was asked of the server, once; and nothing that reached it lacks a record."""
    parquet = folder / "records.parquet"
    whole = parquet.exists()
    records = read_parquet(parquet) if whole else read_journal(folder).records
    ids = [str(each) for each in records.request_id]
    answered = {name for name, first in zip(ids, records.first_byte_at) if first == first}
    asked = {name for name in seen if name.count("-") == 4}  # not what the harness asks beside its load
    problems = []
    if len(set(ids)) != len(ids):
        problems.append("two records of one request")
    if answered - asked:
        problems.append(f"{len(answered - asked)} answers to requests that the server never saw")
    if whole and asked - set(ids):
        problems.append(f"{len(asked - set(ids))} requests without a record")
    return problems
