"""How many chats of each history fit, and how fast they are."""

from __future__ import annotations

from harness.probe.file import ProbeFile
from harness.report.document import Paragraph, Section, Table
from harness.units import format_count, format_duration

_COLUMNS = ("History", "Answer", "Chats that fit", "TTFT p95", "ITL p95", "Meets SLO")


def section(found: ProbeFile) -> Section | None:
    """None where nothing is known to fit."""
    if not found.capacity:
        return None
    rows = tuple(
        (
            format_count(cell.history_tokens),
            format_count(cell.answer_tokens),
            format_count(cell.chats_fit),
            format_duration(cell.ttft_p95),
            format_duration(cell.itl_p95),
            {True: "yes", False: "no", None: "not measured"}[cell.meets_slo],
        )
        for cell in found.capacity
    )
    how = "By memory, before the concurrency limit caps it. Latencies where that many chats of a history were measured."
    return Section(
        "Chats of each history that fit", (Table(_COLUMNS, rows, frozenset(range(5))), Paragraph(how, soft=True))
    )
