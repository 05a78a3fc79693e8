"""`harness baseline`: stores the repeats that later runs are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.drive import baselines
from harness.drive.baseline_store import store_at
from harness.drive.baselines import Baseline
from harness.errors import UsageError
from harness.report.document import Table
from harness.report.to_text import aligned
from harness.stats.comparable import in_words
from harness.units import format_percent


@dataclass(frozen=True)
class BaselineList:
    """What is stored, one row each."""

    found: tuple[Baseline, ...]

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(each) for each in self.found]

    def as_text(self) -> str:
        if not self.found:
            return "no baseline yet: `harness bench MODEL --repeat 5`, then `harness baseline save NAME FOLDER`"
        rows = [
            (each.name, str(each.key.get("model")), str(each.key.get("engine")), str(each.key.get("gpu") or "–"),
             str(len(each.saved[-1].runs)), each.saved[-1].at, each.saved[-1].reason or "")
            for each in self.found
        ]  # fmt: skip
        return "\n".join(aligned(Table(("Name", "Model", "Engine", "GPU", "Runs", "Saved", "Reason"), tuple(rows))))


@dataclass(frozen=True)
class BaselineShown:
    """One of them, whole. then: what is left to do, if anything."""

    baseline: Baseline
    then: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self.baseline)

    def as_text(self) -> str:
        one = self.baseline
        lines = [f"{one.name}: {len(one.saved[-1].runs)} runs, saved {one.saved[-1].at}"]
        lines += [f"  {name}: {in_words(value)}" for name, value in one.key.items() if value not in (None, {})]
        lines.append("Its runs differ by (standard deviation):")
        rows = tuple((load, figure, format_percent(share)) for load, figure, share in one.spreads)
        lines += aligned(Table(("Load", "Figure", "Spread"), rows, frozenset([2])))
        lines += [f"replaced {each.at}: {each.reason}" for each in one.saved[1:]]
        return "\n".join([*lines, *([self.then] if self.then else [])])


def save(name: str, runs: Sequence[Path], store: str | None = None, *, records: bool = False) -> BaselineShown:
    """Keep these repeats under a new name: their figures, and their records where asked for. Raises UsageError."""
    return BaselineShown(*baselines.save(name, runs, store_at(store), records=records))


def promote(
    name: str, runs: Sequence[Path], reason: str, store: str | None = None, *, records: bool = False
) -> BaselineShown:
    """Keep these in place of those that are there, and why. Raises UsageError."""
    if not reason.strip():
        raise UsageError(
            "says nothing", where="--reason", advice="Say why what is slower is accepted, or what changed."
        )
    return BaselineShown(*baselines.save(name, runs, store_at(store), reason=reason, replace=True, records=records))


def listed(store: str | None = None) -> BaselineList:
    """All of a store."""
    return BaselineList(tuple(baselines.every(store_at(store))))


def show(name: str, store: str | None = None) -> BaselineShown:
    """Raises UsageError where there is none."""
    return BaselineShown(baselines.load(name, store_at(store)))
