"""The outcome of every request that was due, and the service's messages about those that failed."""

from __future__ import annotations

from harness.report.document import Block, Paragraph, Section, Table
from harness.report.words import load
from harness.stats.level_stats import LevelStats
from harness.stats.summary import Summary
from harness.units import format_count


def section(summary: Summary) -> Section | None:
    """Counts per level and together; the service's own words where it had any."""
    columns = ("Load", "Due", "Completed", "Failed", "Dropped", "In flight at end", "Errors")
    levels = [*summary.levels, *([summary.total] if len(summary.levels) > 1 else [])]
    blocks: list[Block] = [Table(columns, tuple(_row(level) for level in levels), frozenset(range(1, 6)))]
    if (said := _messages(summary)) is not None:
        blocks.append(said)
    return Section("Requests", tuple(blocks), brief=_brief(summary), detail=True)


def _row(level: LevelStats) -> tuple[str, ...]:
    counts = level.requests
    kinds = ", ".join(f"{kind}: {format_count(count)}" for kind, count in level.errors.items())
    numbers = (counts.sent + counts.dropped, counts.completed, counts.failed, counts.dropped, counts.in_flight_at_end)
    return (load(level), *(format_count(number) for number in numbers), kinds or "none")


def _messages(summary: Summary) -> Table | None:
    messages = summary.total.messages
    if not messages:
        return None
    rows = tuple(
        (each.kind, "" if each.http_status is None else str(each.http_status), format_count(each.count), each.message)
        for each in messages
    )
    return Table(("Error", "HTTP", "Requests", "What the service said"), rows, frozenset((1, 2)))


def _brief(summary: Summary) -> tuple[Block, ...]:
    return tuple(
        Paragraph(
            f"The service said ({each.kind}{f', HTTP {each.http_status}' if each.http_status else ''}, {each.count} "
            f"times): {each.message}"
        )
        for each in summary.total.messages
    )
