"""`make chaos`: each fault once, then random faults, commands and signals, for ten minutes; what must hold always.

    python -m tests.chaos [--seed N] [--minutes M] [--table FILE]

Held after every command: its exit code is one of the contract's; no traceback anywhere; no process is left; a folder
with a manifest can be reported; a record that says that an answer came has a request that the server saw. The seed is
printed; the same seed asks the same in the same order. --table writes what each fault did into a Markdown file, between
the lines that mark its place. Beside it run the tests of broken files with more cases.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil

from harness import cli
from harness.measure.journal import read_journal
from harness.measure.records import read_parquet
from tests.chaos.raw_server import FAULTS, PAGE_FAULTS, RawServer

ROOT = Path(__file__).resolve().parents[2]
CODES = (0, 1, 2, 3, 4, 130)
PATIENCE = 60.0  # seconds beyond what a command was told to last
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
EMULATED: dict[str, list[dict[str, object]]] = {
    "engine crashes": [{"kind": "crash", "after_requests": 5}],
    "engine runs out of memory": [{"kind": "oom", "after_requests": 5}],
    "a forward fails now and then": [{"kind": "error", "every": 3}],
    "a forward hangs": [{"kind": "hang", "after_requests": 5, "seconds": 2.0}],
    "overloaded now and then": [{"kind": "overload", "every": 2}],
    "streams are cut": [{"kind": "stream_cut", "every": 2}],
    "errors in streams": [{"kind": "stream_error", "every": 2}],
    "garbage in streams": [{"kind": "stream_garbage", "every": 2}],
    "bytes leave one by one": [{"kind": "stream_split", "size": 1}],
    "does not load": [{"kind": "load_error"}],
    "no memory in warm-up": [{"kind": "oom_at_warm_up"}],
}
DISK_FULL, REFUSED = "no room for files beyond 8 kB", "nobody listens"


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


def every_fault_once() -> Iterator[Case]:
    for fault in (*FAULTS, *PAGE_FAULTS, REFUSED, DISK_FULL):
        yield Case(fault, "bench --url")
    for fault in EMULATED:
        yield Case(fault, "emulated bench")


def at_random(random_: random.Random) -> Case:
    kind = random_.choice(
        ("bench --url", "bench --url", "emulated bench", "bench embedded", "up", "probe --url", "probe")
    )
    faults = EMULATED if kind == "emulated bench" else (*FAULTS, REFUSED, DISK_FULL)
    fault = random_.choice(tuple(faults)) if kind not in ("bench embedded", "up", "probe") else "none"
    sign = (random_.choice(SIGNALS), random_.uniform(0.05, 6.0)) if random_.random() < 0.8 else None
    return Case(fault, kind, sign, random_.choice((1, 1, 2)), pages=random_.random() < 0.2)


@cache
def calibrated() -> Path:
    """A state folder in which the client's own error is known, so that not every run measures it again."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-state-"))
    environment = {**os.environ, "XDG_STATE_HOME": str(folder)}
    subprocess.run([*HARNESS, "calibrate", "--users", "64"], env=environment, capture_output=True)
    return folder / "harness"


def run(case: Case, folder: Path) -> Outcome:
    """One command in a world of its own, and all that must hold after it."""
    out = folder / "run"
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "PYTHONUNBUFFERED": "1"}
    environment.pop("HARNESS_API_KEY", None)
    load = ["--users", "4", "--duration", "2s", "--warmup", "0s", "--input-tokens", "16", "--output-tokens", "8"]
    load += ["--timeout", "3s", "--output", str(out), "--processes", str(case.processes)]
    load += [] if case.pages else ["--no-report"]
    shutil.copytree(calibrated(), folder / "state" / "harness")
    with service(case, folder, environment) as (port, raw):
        url = f"http://127.0.0.1:{port}"
        api = "openai-chat" if raw is not None or case.fault in (REFUSED, DISK_FULL) else "tgi"
        quick = ["--quick", "--output", str(out)]
        command = {
            "bench --url": ["bench", "--url", url, "--api", api, *load],
            "emulated bench": ["bench", "--url", url, "--api", api, *load],
            "bench embedded": ["bench", "qwen2.5-0.5b", "--runtime", "embedded", *load],
            "probe": ["probe", "qwen2.5-0.5b", "--runtime", "embedded", *quick, "--max-starts", "2"],
            "probe --url": ["probe", "--url", url, *quick],
            "up": ["up", "qwen2.5-0.5b", "--runtime", "embedded"],
        }[case.kind]  # fmt: skip
        outcome = execute(command, case, folder, environment)
        if case.kind == "up":
            down = subprocess.run(
                [*HARNESS, "down"], capture_output=True, env=environment, timeout=PATIENCE, cwd=folder
            )
            if down.returncode != 0:
                outcome.broken.append(f"down ends with {down.returncode}: {down.stderr[-200:]!r}")
        outcome.broken += left_over(folder)
        if (out / "manifest.json").exists():
            outcome.broken += reportable(out)
            if raw is not None:
                outcome.broken += agrees(out, raw.ids)
    return outcome


HARNESS = [sys.executable, "-m", "harness"]


@contextmanager
def service(case: Case, folder: Path, environment: dict[str, str]) -> Iterator[tuple[int, RawServer | None]]:
    """Port of what is asked, and the raw server where it is one."""
    if case.fault == REFUSED or case.kind in ("bench embedded", "up", "probe"):
        yield 1, None
    elif case.kind == "emulated bench":
        scenario = folder / "scenario.json"
        scenario.write_text(json.dumps({"faults": EMULATED[case.fault]}))
        command = [*HARNESS, "emulate", "--port", "0", "--scenario", str(scenario)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                              env={**environment, "CHAOS_SERVER": "1"}) as emulator:  # fmt: skip
            assert emulator.stderr is not None
            line = next((line for line in emulator.stderr if "listening on" in line), ":1")
            try:
                yield int(line.strip().rpartition(":")[2]), None
            finally:
                emulator.terminate()
                emulator.stderr.close()
    else:
        with RawServer(case.fault) as raw:
            yield raw.port, raw


def execute(command: Sequence[str], case: Case, folder: Path, environment: dict[str, str]) -> Outcome:
    begun = time.monotonic()

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
            late = not with_patience(process, PATIENCE)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    text = said_file.read_text(errors="replace")
    lines = [line for line in text.splitlines() if line.startswith("harness:")] or text.splitlines() or [""]
    outcome = Outcome(process.returncode, lines[-1], time.monotonic() - begun)
    killed = case.sign is not None and case.sign[0] == signal.SIGKILL
    # Before Python has installed a handler, a signal ends it as it ends any program.
    early = case.sign is not None and case.sign[1] < 0.5 and process.returncode == -case.sign[0]
    if late:
        outcome.broken.append("did not end")
    elif process.returncode not in CODES and not (killed and process.returncode == -9) and not early:
        outcome.broken.append(f"exit code {process.returncode}")
    log = folder / "run" / "load.log"
    if "Traceback" in text or (log.is_file() and "Traceback" in log.read_text(errors="replace")):
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


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--table", type=Path, help="a Markdown file that says what each fault did")
    told = parser.parse_args(arguments)
    print(f"seed {told.seed}: python -m tests.chaos --seed {told.seed}", flush=True)
    random_, until = random.Random(told.seed), time.monotonic() + told.minutes * 60 - 45
    failures, rows, count = 0, [], 0
    planned = every_fault_once()
    while time.monotonic() < until:
        # By turns, so that both have their part in whatever time there is; for a table all of them and nothing else.
        case = next(planned, None) if told.table is not None or count % 2 == 0 else None
        if case is None and told.table is not None:
            break
        fixed, case = case is not None, case or at_random(random_)
        folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        outcome = run(case, folder)
        count += 1
        failures += bool(outcome.broken)
        if fixed:
            rows.append((case, outcome))
        print(
            f"{'BROKEN' if outcome.broken else 'held':<7}{outcome.code:>4} {outcome.seconds:5.1f} s  {case}", flush=True
        )
        for each in outcome.broken:
            print(f"        {each}\n        {outcome.said[:200]}\n        kept: {folder}", flush=True)
        if not outcome.broken:
            shutil.rmtree(folder, ignore_errors=True)
    if told.table is not None:
        write_table(told.table, rows)
    print(f"{count} commands, {failures} of them broke something; seed {told.seed}")
    return min(1, failures)


BEGIN, END = "<!-- what each fault did: written by `python -m tests.chaos --table` -->", "<!-- end of the table -->"


def write_table(path: Path, rows: Sequence[tuple[Case, Outcome]]) -> None:
    lines = ["| fault | exit code | last line |", "| --- | ---: | --- |"]
    for case, outcome in rows:
        said = outcome.said.replace("|", "\\|").replace("\\x1b", "")
        said = said[:160].replace("<", "&lt;")
        lines.append(f"| {case.fault} | {outcome.code} | {_without_places(said)} |")
    text = path.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    path.write_text(head + "\n".join([BEGIN, *lines, END]) + rest.partition(END)[2], encoding="utf-8")


def _without_places(text: str) -> str:
    """Folders and ports differ from run to run."""
    import re

    return re.sub(r"/tmp/chaos-\w+/run", "RUN", re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
