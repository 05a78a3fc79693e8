"""Capacity: the highest load that holds the SLO, read off measured levels, or searched for by ask and tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from harness.stats.section import Section


@dataclass(frozen=True)
class Capacity:
    """unit: `users` or `requests per second`; None where nothing can be said.

    highest: the highest level that stands and holds the SLO, with none below it that breaks it; a lower level that
    holds but does not stand says nothing against it. above: the next level; None where none was tried.
    """

    unit: str | None
    highest: Section | None
    above: Section | None

    def as_dict(self) -> dict[str, Any] | None:
        if self.unit is None:
            return None
        return {
            "unit": self.unit,
            "highest_that_holds": self.highest.load if self.highest else None,
            "next_that_does_not": self.above.load if self.above else None,
        }


def find_capacity(levels: Sequence[Section]) -> Capacity:
    """From the levels of one run, in any order."""
    loads = [level for level in levels if level.load is not None and level.attainment.holds is not None]
    if not loads:
        return Capacity(None, None, None)
    unit = "users" if loads[0].users is not None else "requests per second"
    ascending = sorted(loads, key=lambda each: each.load or 0.0)
    below = list(takewhile(lambda each: each.attainment.holds, ascending))
    highest = next((each for each in reversed(below) if each.valid), None)
    above = ascending[ascending.index(highest) + 1 :] if highest else ascending
    return Capacity(unit, highest, above[0] if above else None)


class CapacitySearch:
    """Which load to try next, from how those before fared; starts nothing.

    Doubles from `start` until a load does not hold (halves until one does), then cuts the gap by its geometric middle
    until it is within `precision`, a share of the load.
    """

    def __init__(self, start: float, precision: float = 0.1, whole: bool = False, most: float = 1e6) -> None:
        self._holding, self._failing = 0.0, float("inf")
        self._start, self._precision, self._whole, self._most = start, precision, whole, most

    @property
    def bracket(self) -> tuple[float, float]:
        """The highest load known to hold (0: none) and the lowest known not to (infinite: none)."""
        return self._holding, self._failing

    def next_load(self) -> float | None:
        """What to measure next; None when it is known well enough."""
        holding, failing = self._holding, self._failing
        if failing == float("inf"):
            load = self._start if holding == 0 else holding * 2
            return None if load > self._most else self._rounded(load)
        if failing - holding <= max(self._precision * failing, 1.0 if self._whole else 0.0):
            return None
        if holding == 0 and failing <= self._start / 1024:
            return None
        load = self._rounded((holding * failing) ** 0.5 if holding else failing / 2)
        return load if holding < load < failing else None

    def tell(self, load: float, holds: bool) -> None:
        """How a load fared. A load that holds above one that did not raises no hope: the lower one stays the bound."""
        if holds:
            self._holding = max(self._holding, load) if load < self._failing else self._holding
        else:
            self._failing = min(self._failing, load)
            self._holding = 0.0 if self._holding >= self._failing else self._holding

    def _rounded(self, load: float) -> float:
        return float(max(1, round(load))) if self._whole else load
