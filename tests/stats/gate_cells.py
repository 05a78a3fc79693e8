"""How often the gate says what is true: `python -m tests.stats.gate_cells [--trials 100] [CELL ...]`.

Prints a row per cell: of so many comparisons of made-up runs (gate_runs.py), the share that ended with 0, that ended
with 1 as decided, and that could not tell, and for which figures.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from harness.commands.compare import compare
from harness.stats.comparison import Comparison
from tests.stats.gate_runs import Service, write_sides

TURNS = "ABBAABBAAB"
APART = "AAAAABBBBB"


@dataclass(frozen=True)
class Cell:
    """wanted: what at least `least` of the comparisons must be: `pass`, `fail` (exit 1), `slower` (named so)."""

    name: str
    service: Service
    wanted: str
    least: float
    slower: float = 0.0
    order: str = TURNS
    drift: float = 0.0


def _cells() -> list[Cell]:
    plain = Service()
    found = []
    for spread in (0.0, 0.01, 0.03, 0.05):
        each = replace(plain, spread=spread)
        name = f"spread {spread:.0%}"
        found.append(
            Cell(f"A/A, {name}", each, "pass" if spread <= 0.01 else "no alarm", 0.9 if spread <= 0.01 else 0.99)
        )
        found.append(Cell(f"+20 %, {name}", each, "fail", 0.99, 0.2))
        if spread <= 0.01:
            found.append(Cell(f"+5 %, {name}", each, "slower", 0.95, 0.05))
    strong = replace(plain, memory=0.8)
    found.append(Cell("A/A, strong memory", strong, "pass", 0.9))
    found.append(Cell("+5 %, strong memory", strong, "slower", 0.95, 0.05))
    found.append(Cell("A/A one after the other, drift 1 %", plain, "no alarm", 1.0, order="AAABBB", drift=0.01))
    found.append(Cell("A/A in turn, drift 1 %", plain, "no alarm", 0.99, order=TURNS, drift=0.01))
    found.append(Cell("+5 % in turn, drift 1 %", plain, "slower", 0.95, 0.05, TURNS, 0.01))
    found.append(Cell("A/A, one run a side", plain, "fail", 1.0, order="AB"))
    found.append(Cell("+20 %, one run a side", plain, "fail", 1.0, 0.2, "AB"))
    return found


CELLS = _cells()


def holds(cell: Cell, found: Comparison) -> bool:
    broken = any(change.passes is False for change in found.gated)
    slower = any(change.verdict == "slower" for change in found.gated)
    return {"pass": found.passes, "fail": not found.passes, "slower": slower, "no alarm": not broken}[cell.wanted]


def judged(cell: Cell, trial: int) -> Comparison:
    """One comparison of runs that are written and read as any others."""
    folder = Path(tempfile.mkdtemp())
    try:
        base, new = write_sides(folder, cell.order, cell.service, cell.service.slower(cell.slower), trial, cell.drift)
        return compare(base, new).comparison
    finally:
        shutil.rmtree(folder)


def row(cell: Cell, found: list[Comparison]) -> str:
    """How often each answer was given, and what was undecided or missing."""
    passed = [each.passes for each in found]
    broken = [any(change.passes is False for change in each.gated) for each in found]
    slower = [any(change.verdict == "slower" for change in each.gated) for each in found]
    held = [holds(cell, each) for each in found]
    told = Counter(change.figure for each in found for change in each.undecided)
    told.update(problem.partition(":")[0][:60] for each in found for problem in each.problems)
    told.update("drift named" for each in found if any("drift" in note for note in each.notes))
    shares = " ".join(f"{sum(each) / len(found):7.0%}" for each in (held, passed, broken, slower))
    return f"{cell.name:40} {cell.wanted:>10} {cell.least:7.0%} {shares}  {dict(told)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("cells", nargs="*")
    arguments = parser.parse_args()
    print(f"{'cell':40} {'wanted':>10} {'least':>7} {'held':>7} {'exit 0':>7} {'broken':>7} {'slower':>7}  told")
    for cell in CELLS:
        if not arguments.cells or any(each in cell.name for each in arguments.cells):
            print(row(cell, [judged(cell, trial) for trial in range(arguments.trials)]), flush=True)


if __name__ == "__main__":
    main()
