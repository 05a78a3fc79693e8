"""`python -m tests.chaos.signals`: TERM, INT and HUP at random moments of every command; what must hold always.

    python -m tests.chaos.signals [--seed N] [--count N] [--minutes M] [--kind NAME]

Each kind of command runs once to its end, which tells how long it lasts here; then signals come at moments drawn over
that time. Held after each: exit code 130 (or the command's own, where it was ending), no traceback, no process left,
every run folder can be reported, `down` works. The seed is printed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from harness.drive.baseline_store import store_at
from harness.drive.baselines import save
from tests.chaos.held import HARNESS, PATIENCE, Case, Outcome, calibrated, execute, left_over, reportable
from tests.commands.test_compare import repeats as repeats_of

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MODEL = ["qwen2.5-0.5b", "--runtime", "embedded"]
_LENGTHS = ["--input-tokens", "16", "--output-tokens", "8"]
_LOAD = ["--duration", "2s", "--warmup", "0s", *_LENGTHS]
_ONE_LEVEL = ["bench", *_MODEL, "--users", "2", *_LOAD, "--output", "{out}"]
COMMANDS: Mapping[str, Sequence[str]] = {
    "bench": _ONE_LEVEL,
    "bench, repeated": [*_ONE_LEVEL, "--repeat", "2", "--no-report"],
    "probe": ["probe", *_MODEL, "--quick", "--max-starts", "2", "--output", "{out}"],
    "up": ["up", *_MODEL],
    "capacity": ["capacity", *_MODEL, "--slo", "itl_p95=60ms", "--budget", "12s", "--level", "3s", *_LENGTHS,
                 "--output", "{out}"],
    "ab": ["ab", *_MODEL, "--b", "limits.max_batch_size=4", "--repeat", "2", "--users", "2", *_LOAD,
           "--output", "{out}"],
    "report": ["report", "{before}/repeat-00", "--format", "json,markdown,html", "--output", "{out}"],
    "compare": ["compare", "{valid}", "{valid}", "--markdown", "{out}.md"],
    "baseline save": ["baseline", "save", "it", "{valid}", "--store", "{out}"],
    "baseline promote": ["baseline", "promote", "it", "{valid}", "--reason", "new", "--store", "{copy}"],
    "baseline check": ["baseline", "check", "it", "{valid}", "--store", "{store}"],
    "history": ["history", "--runs", "{valid}", "--store", "{store}", "--output", "{out}"],
    "rerun": ["rerun", "{before}/repeat-00", "--output", "{out}", "--no-report"],
    "bench, explained": ["bench", "qwen2.5-0.5b", "--users", "2", *_LOAD, "--explain"],
    "calibrate": ["calibrate", "--users", "4"],
    "demo": ["demo", "--output", "{out}"],
    "doctor": ["doctor"],
    "models check": ["models", "check"],
    "render": ["render", "qwen2.5-0.5b", "--output", "{out}"],
    "migrate": ["migrate", "qwen2.5-0.5b", "--to", "vllm"],
    "models list": ["models", "list"],
    "status": ["status"],
    "down": ["down"],
}  # fmt: skip
NO_RUNS = ("report", "baseline save")  # what they write holds no run of theirs


@cache
def before() -> tuple[Path, Path, Path]:
    """A run of two repeats that was made here; valid runs that were made up, since none is valid where this machine is
    busy; and a store with a baseline of these.
    """
    folder = Path(tempfile.mkdtemp(prefix="signals-before-"))
    run, valid, store = folder / "run", folder / "valid", folder / "store"
    repeats = [word.format(out=run) for word in (*_ONE_LEVEL, "--repeat", "2", "--no-report")]
    made = subprocess.run([*HARNESS, *repeats], cwd=folder, env=_environment(folder), capture_output=True, text=True)
    if made.returncode != 0:
        print(f"cannot be prepared: {made.stderr[-300:].strip()}")
    save("it", [repeats_of(valid, (0, 3, 4, 6, 7, 8))], store_at(str(store)))
    return run, valid, store


def _environment(folder: Path) -> dict[str, str]:
    """A world of its own, in which the client's own error is known already."""
    if not (folder / "state").exists():
        shutil.copytree(calibrated(), folder / "state" / "harness")
    return {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}


def run(kind: str, sign: tuple[int, float] | None, folder: Path) -> Outcome:
    """One command, and all that must hold after it."""
    earlier, valid, store = before()
    environment = _environment(folder)
    copied = folder / "store"
    if kind == "baseline promote":
        shutil.copytree(store, copied)
    places = {"out": folder / "run", "before": earlier, "valid": valid, "store": store, "copy": copied}
    words = [word.format(**places) for word in COMMANDS[kind]]
    outcome = execute(words, Case("none", kind, sign), folder, environment)
    if kind == "up":
        down = subprocess.run([*HARNESS, "down"], capture_output=True, env=environment, timeout=PATIENCE, cwd=folder)
        if down.returncode != 0:
            outcome.broken.append(f"down ends with {down.returncode}: {down.stderr[-200:]!r}")
    if copied.exists() and not (copied / "it" / "baseline.json").exists():
        outcome.broken.append("the baseline is gone")
    outcome.broken += left_over(folder)
    for manifest in sorted((folder / "run").rglob("manifest.json")) if kind not in NO_RUNS else ():
        outcome.broken += reportable(manifest.parent)
    return outcome


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.signals")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--kind", choices=tuple(COMMANDS), action="append")
    told = parser.parse_args(arguments)
    print(f"seed {told.seed}: python -m tests.chaos.signals --seed {told.seed} --count {told.count}", flush=True)
    random_, until = random.Random(told.seed), time.monotonic() + told.minutes * 60
    kinds, lasts, failures, count = told.kind or list(COMMANDS), dict[str, float](), 0, 0
    while count < told.count and time.monotonic() < until:
        kind = kinds[(count + len(lasts)) % len(kinds)] if len(lasts) < len(kinds) else kinds[count % len(kinds)]
        first = kind not in lasts
        sign = None if first else (int(random_.choice(SIGNALS)), random_.uniform(0.02, lasts[kind]))
        folder = Path(tempfile.mkdtemp(prefix="signals-"))
        outcome = run(kind, sign, folder)
        if first:
            lasts[kind] = outcome.seconds
        count += not first
        failures += bool(outcome.broken)
        verdict = "BROKEN" if outcome.broken else "held"
        print(f"{verdict:<7}{outcome.code:>4} {outcome.seconds:5.1f} s  {Case('none', kind, sign)}", flush=True)
        for each in outcome.broken:
            print(f"        {each}\n        {outcome.said[:200]}\n        kept: {folder}", flush=True)
        if not outcome.broken:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{count} signals to {len(kinds)} kinds of commands, {failures} of all broke something; seed {told.seed}")
    return min(1, failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
