"""Every level of the search."""

from __future__ import annotations

from dataclasses import replace

from harness.report.capacity.subject import SearchReport
from harness.report.capacity_text import CAME, chance_came, level_table
from harness.report.document import Paragraph, Section
from harness.units import format_count


def section(searched: SearchReport) -> Section | None:
    """A table for each history."""
    report = searched.report
    tables = [
        replace(
            level_table(each, report.unit),
            title="" if each.history is None else f"{format_count(each.history)} tokens of history",
        )
        for each in report.histories
        if each.search.told
    ]
    if not tables:
        return None
    came = (Paragraph(CAME, soft=True),) if chance_came(report) else ()
    return Section("Levels", (*tables, *came), detail=True)
