"""Counts the rows that are not sent unchanged, with the reason: nothing is dropped, altered or moved silently."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Fate = Literal["dropped", "altered", "moved"]
FATES: tuple[Fate, ...] = ("dropped", "altered", "moved")


@dataclass
class Tally:
    """Counts rows by their outcome and why. remarks: what else whoever runs it should know."""

    counts: Counter[tuple[Fate, str]] = field(default_factory=Counter)
    remarks: dict[str, None] = field(default_factory=dict)

    def drop(self, reason: str, rows: int = 1) -> None:
        self.counts["dropped", reason] += rows

    def alter(self, reason: str, rows: int = 1) -> None:
        self.counts["altered", reason] += rows

    def move(self, reason: str, rows: int = 1) -> None:
        self.counts["moved", reason] += rows

    def remark(self, text: str) -> None:
        """Said once, however often it is found."""
        self.remarks[text] = None

    def of(self, fate: Fate) -> int:
        """A row that is altered for two reasons counts for each."""
        return sum(count for (each, _), count in self.counts.items() if each == fate)

    def notes(self) -> tuple[str, ...]:
        """`3 rows dropped: they lie before the first row's moment`; remarks first."""
        return *self.remarks, *(
            f"{count:,} {'row' if count == 1 else 'rows'} {fate}: {reason}"
            for (fate, reason), count in sorted(self.counts.items(), key=lambda item: FATES.index(item[0][0]))
            if count
        )
