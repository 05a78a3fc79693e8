"""Unusual results, noticed by rules, with evidence and what to try first."""

from __future__ import annotations

from harness.report.document import Paragraph, Section, Table
from harness.report.words import load
from harness.stats.readings import readings
from harness.stats.summary import Summary


def section(summary: Summary) -> Section | None:
    """None where no rule finds anything."""
    names = {level.level: load(level) for level in summary.levels}
    rows = tuple((names[each.level], each.found, each.because, each.advice) for each in readings(summary.levels))
    if not rows:
        return None
    how = Paragraph("By rules, at the lowest load that shows each: causes are likely, not proved.", soft=True)
    return Section("What stands out", (Table(("Load", "Found", "Likely because", "Try"), rows), how))
