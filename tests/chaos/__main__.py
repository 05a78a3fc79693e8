"""`make chaos`: each fault once, then random faults, commands and signals, for ten minutes; what must hold always.

    python -m tests.chaos [--seed N] [--minutes M] [--table FILE]

Held after every command: its exit code is one of the contract's; no traceback anywhere; no process is left; a folder
with a manifest can be reported; a record that says that an answer came has a request that the server saw. The seed is
printed; the same seed asks the same in the same order. --table writes what each fault did into a Markdown file, between
the lines that mark its place, and tries nothing else, however long that takes. Beside it run the tests of broken files
with more cases.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.held import (
    DISK_FULL,
    HARNESS,
    PATIENCE,
    REFUSED,
    Case,
    Outcome,
    agrees,
    calibrated,
    execute,
    left_over,
    reportable,
)
from tests.chaos.raw_server import FAULTS, PAGE_FAULTS, RawServer

ROOT = Path(__file__).resolve().parents[2]
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


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--table", type=Path, help="a Markdown file that says what each fault did")
    told = parser.parse_args(arguments)
    print(f"seed {told.seed}: python -m tests.chaos --seed {told.seed}", flush=True)
    random_, until = random.Random(told.seed), time.monotonic() + told.minutes * 60 - 45
    if told.table is not None:  # a table is of all of them, however long they take
        until = math.inf
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

    return re.sub(r"[^\s:]*/chaos-\w+/run", "RUN", re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
