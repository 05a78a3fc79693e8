"""How often a change for good is found, by chance and where one is: `python -m tests.stats.change_cells`.

Series of made-up runs whose figures scatter by 1 % (standard deviation). Memory: correlation of a run with the one
before, as where a machine is warmer on some nights. A change is found where a division lies within one point of it.
"""

from __future__ import annotations

import argparse

import numpy as np

from harness.stats.change_points import divisions

SCATTER = 0.01


def made_up(seed: int, count: int, memory: float = 0.0, step: float = 0.0) -> list[float]:
    """step: share by which the second half is higher."""
    random = np.random.default_rng(seed)
    values = random.normal(0, SCATTER, count)
    for at in range(1, count):
        values[at] = memory * values[at - 1] + np.sqrt(1 - memory**2) * values[at]
    return [float(value) for value in values + step * (np.arange(count) >= count // 2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--series", type=int, default=500)
    series = parser.parse_args().series
    print("points  memory  step  divided  found at its place")
    cells = [(count, memory, 0.0) for count in (8, 12, 20, 30, 100) for memory in (0.0, 0.3, 0.6)]
    cells += [(count, 0.0, step) for count in (8, 12, 30) for step in (0.01, 0.02, 0.03, 0.05)]
    cells += [(count, memory, 0.05) for count in (8, 12, 30) for memory in (0.3, 0.6)]
    for count, memory, step in cells:
        found = [[each.at for each in divisions(made_up(seed, count, memory, step))] for seed in range(series)]
        there = sum(any(abs(at - count // 2) <= 1 for at in each) for each in found)
        divided = sum(map(bool, found))
        place = f"{there / series:.1%}" if step else "-"
        print(f"{count:6}  {memory:6}  {step:4.0%}  {divided / series:7.1%}  {place}", flush=True)


if __name__ == "__main__":
    main()
