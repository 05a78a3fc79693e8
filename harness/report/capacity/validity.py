"""What the answer is based on, and how sure it is."""

from __future__ import annotations

from harness.report.capacity.subject import SearchReport
from harness.report.capacity_text import people_lines
from harness.report.document import Bullets, Section
from harness.report.words import plural
from harness.units import format_count, format_duration, format_percent


def section(searched: SearchReport) -> Section | None:
    """For each history its levels and notes; then what was assumed of people."""
    report = searched.report
    lines = []
    for each in report.histories:
        name = "" if each.history is None else f"{format_count(each.history)} tokens of history: "
        told = each.search.told
        drifting, full = sum(one.drifts for one in told), sum(one.saturated for one in told)
        lines.append(
            f"{name}{plural(len(told), 'level')} in {format_duration(each.search.spent)}: {drifting} drifted, {full} "
            f"over-saturated. The interval promises {format_percent(each.answer.confidence)} confidence."
        )
        lines += [f"{name}{note}" for note in each.answer.notes]
    flow = report.first.at_capacity
    if flow is not None:
        lines += people_lines(report, flow)
    lines.append("The answer holds for what was asked: the same prompts, histories and answers, on this one service.")
    return Section("How sure, and what is assumed", (Bullets(tuple(lines)),))
