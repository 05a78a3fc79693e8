"""How sure the limits are: the checks of the proof, and advice."""

from __future__ import annotations

from harness.probe.file import ProbeFile
from harness.report.document import Block, Bullets, Section, Table
from harness.report.words import plural


def section(found: ProbeFile) -> Section | None:
    """Check by check."""
    rows = tuple(
        (each.name, "held" if each.held else "did not hold" if each.ran else "did not run", each.why or "")
        for each in found.checks
    )
    blocks: list[Block] = [Table(("Check", "Result", "Why"), rows)] if rows else []
    said = f"The service was started {plural(found.starts, 'time')}."
    blocks.append(Bullets((said, *found.advice)))
    return Section("How sure, and what to know", tuple(blocks))
