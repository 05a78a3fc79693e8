"""Capacity by the levels of one run: the highest load that holds the SLO; capacity_search.py searches for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from harness.stats.level_stats import LevelStats


@dataclass(frozen=True)
class Capacity:
    """unit: `users` or `requests per second`; None where nothing can be said.

    highest: the highest valid level that holds the SLO, with none below it that breaks it; a lower level that
    holds but is invalid says nothing against it. above: the next level that was tried, which may be one that holds and
    is invalid; broken: the next that breaks the SLO. None where there is none.
    """

    unit: str | None
    highest: LevelStats | None
    above: LevelStats | None
    broken: LevelStats | None

    def as_dict(self) -> dict[str, Any] | None:
        if self.unit is None:
            return None
        return {
            "unit": self.unit,
            "highest_that_holds": self.highest.load if self.highest else None,
            "next_that_does_not": self.broken.load if self.broken else None,
        }


def find_capacity(levels: Sequence[LevelStats]) -> Capacity:
    """From the levels of one run, in any order."""
    loads = [level for level in levels if level.load is not None and level.attainment.holds is not None]
    if not loads:
        return Capacity(None, None, None, None)
    unit = "users" if loads[0].users is not None else "requests per second"
    ascending = sorted(loads, key=lambda each: each.load or 0.0)
    below = list(takewhile(lambda each: each.attainment.holds, ascending))
    highest = next((each for each in reversed(below) if each.valid), None)
    above = ascending[ascending.index(highest) + 1 :] if highest else ascending
    broken = next((each for each in above if not each.attainment.holds), None)
    return Capacity(unit, highest, above[0] if above else None, broken)
