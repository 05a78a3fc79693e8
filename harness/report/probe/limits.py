"""Every limit, its source, and the boundary that was found."""

from __future__ import annotations

from harness.probe.file import ProbeFile
from harness.report.document import NOTHING, Section, Table
from harness.units import format_count


def section(found: ProbeFile) -> Section | None:
    """largest that held, smallest that failed."""
    rows = []
    for name, value in found.limits.items():
        bracket = found.boundary.get(name) or {}
        held, failed = bracket.get("largest_ok"), bracket.get("smallest_failed")
        source = str(found.source.get(name, NOTHING))
        rows.append((name, _number(value), source, _number(held), _number(failed), str(bracket.get("failure") or "")))
    columns = ("Limit", "Value", "From", "Largest that held", "Smallest that failed", "How it failed")
    return Section("Limits", (Table(columns, tuple(rows), frozenset((1, 3, 4))),), detail=True) if rows else None


def _number(value: object) -> str:
    return format_count(value) if isinstance(value, int | float) and not isinstance(value, bool) else NOTHING
