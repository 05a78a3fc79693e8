"""How often `ab --until-decided` ends with what is true, however often it looks: `python -m tests.stats.looks_cells`.

Values of runs are drawn, not their requests: each run is faster or slower as a whole (spread), and each figure scatters
beside that as its requests do (within: of TTFT p50). The comparison and the rule of when to stop are the product's own.
Prints a row per cell: of so many sessions the share that ended with `slower`, with a broken gate, with exit 0, and how
many pairs they took.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from harness.commands.ab import LEAST, is_decided, look, turns
from harness.measure.records import Floats
from harness.measure.run_folder import utc_text
from harness.stats.comparison import Comparison
from harness.stats.gate import Gate
from harness.stats.kept_figures import KeptRun
from harness.stats.run_figure import THROUGHPUT, Measured
from tests.runs import closed_level, manifest
from tests.stats.gate_runs import BEGUN

PLAIN = manifest([closed_level(0, 8, 0.0, 60.0)])
# figure -> its value, and what its requests scatter it by, as a part of that of TTFT p50
FIGURES = {
    "ttft_p50": (0.2, 1.0),
    "itl_p50": (0.02, 0.2),
    THROUGHPUT: (300.0, 0.25),
    "e2e_p50": (1.0, 0.33),
    "ttft_p95": (0.35, 2.0),
}


@dataclass(frozen=True)
class DrawnLevel:
    """A LevelFigures in which every request was answered."""

    values: dict[str, Measured]
    load: str = "8 users"
    due: int = 450
    usual: float = 1.0
    answers: Floats = field(default_factory=lambda: np.empty(0))

    def measured(self, figure: str) -> Measured | None:
        return self.values.get(figure)

    def carries(self, figure: str) -> bool:
        return figure in self.values

    def why_absent(self, figure: str) -> str | None:
        return None

    def tokens_per_event(self) -> float:
        return 1.0

    def bad(self, stuck: float) -> int:
        return 0


def drawn_run(random: np.random.Generator, side: str, at: int, spread: float, within: float, slower: float) -> KeptRun:
    """at: its place in the order of runs."""
    whole, values = random.normal(0, spread), dict[str, Measured]()
    for figure, (value, part) in FIGURES.items():
        own, sign = within * part, -1 if figure == THROUGHPUT else 1
        moved = sign * (whole + np.log1p(slower)) + random.normal(0, own)
        values[figure] = Measured(float(value * np.exp(moved)), float(own * np.exp(random.normal(0, 0.2))))
    begun = BEGUN + timedelta(minutes=2 * at)
    name = f"{side}-{at}"
    about = replace(PLAIN, run_id=name, start=utc_text(begun), end=utc_text(begun + timedelta(minutes=1)))
    return KeptRun(Path(name), about, name, {0: DrawnLevel(values)})


def session(
    random: np.random.Generator, spread: float, within: float, slower: float, most: int
) -> Iterator[Comparison]:
    """What is found at each look, until it is decided or there are `most` pairs."""
    runs: tuple[list[KeptRun], list[KeptRun]] = ([], [])
    found: list[Comparison] = []
    for at, which in enumerate(turns(most)):
        runs[which].append(drawn_run(random, "ab"[which], at, spread, within, slower if which else 0.0))
        if at % 2 and len(runs[0]) >= LEAST:
            found.append(look(runs, Gate(), len(found) + 1, most))
            yield found[-1]
            if is_decided(found):
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=1000)
    sessions = parser.parse_args().sessions
    print("slower  spread  within  most pairs   `slower`    broken    exit 0   pairs")
    cells = [(spread, within) for spread, within in ((0.01, 0.02), (0.01, 0.045), (0.03, 0.02), (0.05, 0.03))]
    for slower in (0.0, 0.05, 0.2):
        for spread, within in cells:
            for most in (10, 30):
                count = sessions if slower == 0 else sessions // 5
                random = np.random.default_rng(1)
                last = [list(session(random, spread, within, slower, most))[-1] for _ in range(count)]
                shares = [
                    np.mean([any(each.verdict == "slower" for each in found.gated) for found in last]),
                    np.mean([any(each.passes is False for each in found.gated) for found in last]),
                    np.mean([found.passes for found in last]),
                ]
                pairs = np.mean([len(found.base) for found in last])
                told = "  ".join(f"{share:8.1%}" for share in shares)
                print(f"{slower:6.0%}  {spread:6.0%}  {within:6.1%}  {most:10}   {told}  {pairs:6.1f}", flush=True)


if __name__ == "__main__":
    main()
