"""Really measured pairs of the same thing: `python -m tests.stats.aa_pairs [--sides 10] [--repeats 3]`.

So many sides of so many runs each of the embedded engine, in turn (one run of every side, then the next of each, in
reverse order, and so on); `compare` judges every pair of sides, 45 of ten. Prints a line per pair and how many ended
with 0, with 1 as decided (a false alarm), and could not tell. Pairs share sides, so 45 of them weigh less than 45 of
fresh runs would. One run a side is judged by the spread that `bench --repeat 5 --aa` measures first. On a busy machine
the runs are truly worse, and the gate may say so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import combinations
from pathlib import Path

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


def measured(folder: Path, sides: int, repeats: int, duration: str) -> list[list[Path]]:
    """The runs of each side, asked what the same seeds draw."""
    made: list[list[Path]] = [[] for _ in range(sides)]
    for repeat in range(repeats):
        for side in range(sides) if repeat % 2 == 0 else reversed(range(sides)):
            place = folder / f"side-{side:02}" / f"repeat-{repeat:02}"
            bench(place, 1 + repeat, duration)
            made[side].append(place)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--duration", default="20s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = f"{folder}/state"
        if arguments.repeats == 1:
            bench(Path(folder) / "spread", 1, arguments.duration, "--repeat", "5", "--aa")
        sides = measured(Path(folder), arguments.sides, arguments.repeats, arguments.duration)
        counts: Counter[str] = Counter()
        for one, other in combinations(range(arguments.sides), 2):
            found = compare(sides[one], sides[other]).comparison
            said = outcome(found)
            counts[said.partition(":")[0]] += 1
            undecided = ", ".join(change.figure for change in found.undecided)
            print(f"{one + 1} and {other + 1}: {said}{f' ({undecided})' if undecided else ''}", flush=True)
    print(", ".join(f"{many} {said}" for said, many in counts.most_common()))


if __name__ == "__main__":
    main()
