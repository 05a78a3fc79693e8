"""The history card: what the service does at each history and load, and what a longer history costs."""

from __future__ import annotations

from harness.report.capacity.subject import SearchReport
from harness.report.capacity_text import history_line, load_of, surface_table
from harness.report.document import Axis, Block, Chart, Paragraph, Section, Series
from harness.stats.capacity_report import unit_words
from harness.units import format_count


def section(searched: SearchReport) -> Section | None:
    """None where no figures were kept."""
    report = searched.report
    table = surface_table(report)
    if table is None:
        return None
    blocks: list[Block] = [table]
    if any(row[1].startswith("~") for row in table.rows):
        blocks.append(Paragraph("~: interpolated between levels that were measured.", soft=True))
    if report.history_cost is not None:
        blocks += [Paragraph(history_line(report.history_cost, report.unit)), _chart(searched)]
    return Section("History card", tuple(blocks))


def _chart(searched: SearchReport) -> Chart:
    report = searched.report
    known = [(each.history, each.answer) for each in report.histories if each.history is not None]
    points, intervals, said = [], [], []
    for history, found in known:
        if found.best is not None:
            points.append((float(history), found.best))
            intervals.append((float(history), found.holds, found.breaks if found.breaks is not None else found.best))
            said.append(f"{format_count(history)} tokens {load_of(found.best, report.unit)}")
    unit = unit_words(report.unit)
    return Chart(
        name="capacity-by-history",
        title="Capacity by history",
        words=f"{'; '.join(said)}.",
        x=Axis("Tokens of history", low=0.0),
        y=Axis(unit.capitalize(), low=0.0),
        series=(Series(unit, tuple(points), tuple(intervals)),),
    )
