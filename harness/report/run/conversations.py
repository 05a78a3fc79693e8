"""How conversations ended, and how TTFT grew with them."""

from __future__ import annotations

from harness.report.document import Section, Table
from harness.report.words import load
from harness.stats.conversations import ENDS, TtftOf
from harness.stats.summary import Summary
from harness.units import format_count, format_duration


def section(summary: Summary) -> Section | None:
    """None where requests stood alone."""
    levels = [(load(each), each.conversations) for each in summary.levels if each.conversations is not None]
    if not levels:
        return None
    columns = ("Load", "Conversations", "Carried to their end", "History no longer fitted", "Failed", "Cut by the end")
    rows = tuple(
        (name, format_count(told.begun), *(format_count(told.ended[end]) for end in ENDS)) for name, told in levels
    )
    tables = [Table(columns, rows, frozenset(range(1, 6)))]
    for what, of in (("Turn", "by_turn"), ("History, tokens", "by_history")):
        grown = tuple(
            (name, _span(each), format_count(each.n), format_duration(each.p50), format_duration(each.p95))
            for name, told in levels
            for each in getattr(told, of)
        )
        if grown:
            tables.append(Table(("Load", what, "Requests", "TTFT p50", "TTFT p95"), grown, frozenset(range(1, 5))))
    return Section("Conversations", tuple(tables), detail=True)


def _span(each: TtftOf) -> str:
    return format_count(each.low) if each.low == each.high else f"{format_count(each.low)}–{format_count(each.high)}"
