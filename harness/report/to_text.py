"""The report as a few lines for the terminal."""

from __future__ import annotations

from harness.report import content
from harness.report.content import Table
from harness.stats.summary import Summary
from harness.text import one_line

_COLUMNS = (
    "Load",
    "Requests",
    "Failed",
    "TTFT p50",
    "TTFT p95",
    "ITL p50",
    "ITL p95",
    "Output tokens/s",
    "SLO",
    "Verdict",
)


def to_text(summary: Summary) -> str:
    """Title, levels, the answer, and every reason not to trust it."""
    whole = content.level_table(summary)
    chosen = [whole.columns.index(name) for name in _COLUMNS]
    rows = tuple(tuple(_plain(row[place]) for place in chosen) for row in whole.rows)
    lines = [one_line(content.title(summary)), "", *aligned(Table(_COLUMNS, rows, frozenset(range(1, 8)))), ""]
    lines.append(one_line(content.answer(summary)))
    lines.append(f"Verdict: {content.verdict(summary)}")
    for found, limit, advice, _ in content.reason_table(summary.total.reasons, summary).rows:
        lines.append(one_line(f"  {found} (limit: {limit}). {advice}"))
    for each in summary.total.messages:
        status = f", HTTP {each.http_status}" if each.http_status else ""
        lines.append(f"The service said ({each.kind}{status}, {each.count} times): {one_line(each.message)}")
    lines += [f"Note: {one_line(remark)}" for remark in content.remarks(summary)]
    return "\n".join(lines)


def aligned(table: Table) -> list[str]:
    """Columns of equal width, figures flush right."""
    rows = [tuple(one_line(cell) for cell in row) for row in (table.columns, *table.rows)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.columns))]
    return ["  ".join(_cell(row, place, widths, table) for place in range(len(widths))).rstrip() for row in rows]


def _cell(row: tuple[str, ...], place: int, widths: list[int], table: Table) -> str:
    return row[place].rjust(widths[place]) if place in table.numbers else row[place].ljust(widths[place])


def _plain(cell: str) -> str:
    """Without the interval, which is in the report."""
    return cell.partition(" (")[0]
