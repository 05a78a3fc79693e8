"""What happens beyond the capacity, at the level nearest to one and a half times it."""

from __future__ import annotations

from harness.report.capacity.subject import SearchReport
from harness.report.capacity_text import load_of
from harness.report.document import Bullets, Section
from harness.stats.capacity_report import HistoryCapacity
from harness.units import format_count, format_duration, format_number, format_percent

TIMES, LEAST, MOST = 1.5, 1.2, 2.2  # of the estimate: what is asked about, and what may answer


def section(searched: SearchReport) -> Section | None:
    """None where no limit was found."""
    lines = [_line(searched, each) for each in searched.report.histories if each.answer.best]
    return Section(f"Overload: at {TIMES:g} times", (Bullets(tuple(lines)),)) if lines else None


def _line(searched: SearchReport, each: HistoryCapacity) -> str:
    best = each.answer.best or 0.0
    where = "" if each.history is None else f"With {format_count(each.history)} tokens of history: "
    beyond = [
        (outcome, flow, figures)
        for outcome, flow, figures in each.counted
        if LEAST * best <= outcome.offered <= MOST * best
    ]
    if not beyond:
        return f"{where}not measured: no level lay between {LEAST:g} and {MOST:g} times the estimate."
    outcome, flow, figures = min(beyond, key=lambda found: abs(found[0].offered - TIMES * best))
    share = outcome.attainment
    parts = [
        f"{format_percent(share.share)} within {share.bound.name}" if share is not None else "nothing could be judged",
        f"TTFT p95 {format_duration(figures.ttft_p95)}",
        f"ITL p95 {format_duration(figures.itl_p95)}",
        f"{format_number(flow.output_tokens_per_second)} tokens/s",
    ]
    grew = ", and the queue grew to the end" if outcome.saturated else ""
    times = f"{outcome.offered / best:.2g} times the estimate"
    return f"{where}at {load_of(outcome.offered, searched.report.unit)} ({times}) {', '.join(parts)}{grew}."
