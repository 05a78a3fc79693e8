"""The plan and the outcome of each level."""

from __future__ import annotations

from harness.report.document import NOTHING, Block, Paragraph, Section, Table
from harness.report.words import load, rate, unjudged, value, with_interval
from harness.stats.level_stats import LevelStats
from harness.stats.summary import Summary
from harness.units import format_count, format_number, format_percent

_COLUMNS = (
    "Load", "SLO", "Within SLO", "TTFT p50", "TTFT p95", "ITL p50", "ITL p95", "End-to-end p95", "Output tokens/s",
    "Requests/s", "Requests", "Failed", "Verdict",
)  # fmt: skip
_BRIEF = (
    "Load", "Requests", "Failed", "TTFT p50", "TTFT p95", "ITL p50", "ITL p95", "Output tokens/s", "SLO", "Verdict",
)  # fmt: skip


def section(summary: Summary) -> Section | None:
    """One row per level."""
    table = Table(_COLUMNS, tuple(_row(level) for level in summary.levels), frozenset(range(2, 12)))
    brief = (_brief(table, summary),)
    if not summary.levels:
        return Section("", (), brief)
    text = "In brackets: 95 % interval."
    if summary.total.attainment.slo.bounds:
        text += " Within SLO: share of all requests due, failed and dropped ones included, that met every bound."
    blocks: tuple[Block, ...] = (table, Paragraph(text, soft=True))
    return Section("Levels", blocks, brief)


def _brief(table: Table, summary: Summary) -> Table:
    """What fits a terminal: without the intervals, and with the rules that a level breaks."""
    places = [table.columns.index(name) for name in _BRIEF[:-1]]
    rows = tuple(
        (*(row[place].partition(" (")[0] for place in places), _verdict(level))
        for row, level in zip(table.rows, summary.levels, strict=True)
    )
    return Table(_BRIEF, rows, frozenset(range(1, 8)))


def _verdict(level: LevelStats) -> str:
    return "valid" if level.valid else "invalid: " + ", ".join(dict.fromkeys(each.rule for each in level.reasons))


def _row(level: LevelStats) -> tuple[str, ...]:
    figures = level.figures
    return (
        load(level),
        _slo_word(level),
        _within_slo(level),
        value(figures["ttft"], "p50"),
        with_interval(figures["ttft"], "p95"),
        value(figures["itl"], "p50"),
        with_interval(figures["itl"], "p95"),
        with_interval(figures["e2e"], "p95"),
        rate(level, level.throughput.output_tokens),
        format_number(level.throughput.requests),
        format_count(level.requests.sent + level.requests.dropped),
        format_count(level.requests.failed + level.requests.dropped),
        "valid" if level.valid else "invalid",
    )


def _within_slo(level: LevelStats) -> str:
    if not level.attainment.bounds:
        return NOTHING
    return format_percent(level.attainment.fraction) if level.attainment.judged else "cannot be judged"


def _slo_word(level: LevelStats) -> str:
    if level.attainment.holds is None:
        return "cannot be judged" if unjudged(level) else NOTHING
    return {"holds": "holds", "breaks": "broken", "undecided": "not decided"}[level.decision]
