"""Where the time goes, per level: parts of TTFT that add up, with the unexplained rest."""

from __future__ import annotations

from harness.report.document import NOTHING, Paragraph, Section, Table
from harness.report.words import load
from harness.stats.level_stats import LevelStats
from harness.stats.summary import Summary
from harness.stats.time_parts import TimeParts
from harness.units import format_count, format_duration, format_number, format_percent

_PARTS = ("Client", "Network and router", "Queue", "Prefill", "Rest")
_COLUMNS = ("Load", "TTFT, mean", *_PARTS, "End-to-end, mean", "Generation", "Batch fill", "From cache", "Put back")


def section(summary: Summary) -> Section | None:
    """None where no engine tells anything of it."""
    levels = [(each, each.time_parts) for each in summary.levels if each.time_parts is not None]
    if not any(parts.tells for _, parts in levels):
        return None
    fill = summary.manifest.limits.get("max_batch_size") or summary.manifest.limits.get("max_concurrent_requests")
    rows = tuple(_row(level, parts, fill) for level, parts in levels)
    how = Paragraph(
        "Means per request over each whole level. Client: from due to sent. Network and router: from sent to the head "
        "of the answer. Queue and prefill: by the engine's own counters before and after the level. Rest: what of TTFT "
        "neither explains; below zero, parts overlap. Batch fill: requests running on average, of those that it takes.",
        soft=True,
    )
    others = [
        Paragraph(
            f"At {load(level)} the engine counted {format_count(parts.counted or 0)} requests, and {parts.requests} of "
            "ours completed: its means are of others too."
        )
        for level, parts in levels
        if parts.with_others
    ]
    return Section("Where the time goes", (Table(_COLUMNS, rows, frozenset(range(1, 12))), how, *others), detail=True)


def _row(level: LevelStats, parts: TimeParts, fill: float | None) -> tuple[str, ...]:
    told = level.server
    running = NOTHING if told.running_mean is None else format_number(told.running_mean)
    if told.running_mean is not None and fill:
        running += f" of {format_count(fill)}"
    return (
        load(level),
        _time(parts.ttft),
        *(_time(each) for each in (parts.client, parts.network_and_router, parts.queue, parts.prefill, parts.rest)),
        _time(parts.total),
        _time(parts.generation if parts.generation is not None else parts.computing),
        running,
        NOTHING if told.cache_share is None else format_percent(told.cache_share),
        NOTHING if told.preempted is None else format_count(told.preempted),
    )


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "not told"
    return format_duration(seconds) if seconds >= 0 else f"−{format_duration(-seconds)}"
