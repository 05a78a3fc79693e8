"""Really measured pairs of the same thing: `python -m tests.stats.aa_pairs [--pairs 45] [--duration 20s]`.

Each pair is two sides of so many runs of the embedded engine, in turn, that `compare` judges; prints a line per pair
and how many ended with 0, with 1 as decided (a false alarm), and could not tell. One run a side is judged by the spread
that `bench --repeat 5 --aa` measures first. On a busy machine the runs are truly worse, and the gate may say so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from harness.commands.ab import turns
from harness.commands.compare import compare
from harness.stats.comparison import Comparison

# Few tokens a second, which a busy machine still reads in time, and enough requests for the share of good answers.
SERVICE = ("qwen2.5-7b", "--runtime", "embedded", "--gpu", "L4", "--users", "12", "--warmup", "5s",
           "--input-tokens", "100", "--output-tokens", "12", "--no-report")  # fmt: skip


def bench(folder: Path, seed: int, duration: str, *more: str) -> None:
    """A run, or repeats, as a user makes them."""
    command = [sys.executable, "-m", "harness", "bench", *SERVICE, "--duration", duration, "--seed", str(seed), *more]
    subprocess.run([*command, "--output", str(folder)], check=True, capture_output=True)


def outcome(found: Comparison) -> str:
    if found.problems:
        return f"not comparable: {found.problems[0]}"
    if found.passes:
        return "exit 0"
    broken = [change.figure for change in found.gated if change.passes is False]
    return f"exit 1, decided: {', '.join(broken)}" if broken else "cannot tell"


def pair(folder: Path, number: int, repeats: int, duration: str) -> Comparison:
    sides: tuple[list[Path], list[Path]] = ([], [])
    for which in turns(repeats):
        place = folder / f"pair-{number:02}" / "ab"[which] / f"repeat-{len(sides[which]):02}"
        bench(place, 10_000 * number + len(sides[which]), duration)
        sides[which].append(place)
    return compare(*sides).comparison


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=45)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--duration", default="20s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        os.environ["XDG_STATE_HOME"] = f"{made}/state"
        if arguments.repeats == 1:
            bench(Path(made) / "spread", 1, arguments.duration, "--repeat", "5", "--aa")
        counts: Counter[str] = Counter()
        for number in range(arguments.pairs):
            found = pair(Path(made), number, arguments.repeats, arguments.duration)
            said = outcome(found)
            counts[said.partition(":")[0]] += 1
            undecided = ", ".join(change.figure for change in found.undecided)
            print(f"pair {number + 1}: {said}{f' ({undecided})' if undecided else ''}", flush=True)
    print(", ".join(f"{many} {said}" for said, many in counts.most_common()))


if __name__ == "__main__":
    main()
