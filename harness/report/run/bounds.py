"""Each bound of the SLO beside what was measured, at the load that the answer speaks of and at the next."""

from __future__ import annotations

import math

from harness.report.document import NOTHING, Section, Table
from harness.report.words import load, with_interval
from harness.stats.level_stats import LevelStats
from harness.stats.slo import BoundResult
from harness.stats.summary import Summary
from harness.units import format_duration, format_percent

_COLUMNS = ("Load", "Bound", "Limit", "Measured", "Margin", "Within the limit", "Needed", "Decision")
_WORDS = {"holds": "holds", "breaks": "broken", "undecided": "not decided"}


def section(summary: Summary) -> Section | None:
    """None without an SLO."""
    capacity = summary.capacity
    levels = [each for each in (capacity.highest, capacity.above) if each is not None] or list(summary.levels[:1])
    rows = tuple(_row(level, result) for level in levels for result in level.attainment.bounds)
    return Section("SLO", (Table(_COLUMNS, rows, frozenset((2, 3, 4, 5, 6))),)) if rows else None


def _row(level: LevelStats, result: BoundResult) -> tuple[str, ...]:
    bound = result.bound
    figure = level.figures.get(bound.metric)
    measured = format_duration(result.found) if math.isfinite(result.found) else NOTHING
    if figure is not None and bound.statistic in figure.ci95 and math.isfinite(result.found):
        measured = with_interval(figure, bound.statistic) if result.found == figure.value(bound.statistic) else measured
    share = next((each for each in level.shares if each.bound == bound), None)
    within, needed, decision = (
        NOTHING,
        NOTHING,
        {True: "holds", False: "broken", None: "cannot be judged"}[result.holds],
    )
    if share is not None and not math.isnan(share.share):
        low, high = share.interval
        within = f"{format_percent(share.share)} ({format_percent(low)} to {format_percent(high)})"
        needed, decision = format_percent(share.needed), _WORDS[share.decision]
    return (load(level), bound.name, format_duration(bound.limit), measured, _margin(result), within, needed, decision)


def _margin(result: BoundResult) -> str:
    """How far what was measured is below the limit, in parts of it; `over` where it is above."""
    if result.found == math.inf:
        return "too many failed"
    if not math.isfinite(result.found):
        return NOTHING
    left = 1 - result.found / result.bound.limit
    return f"{format_percent(left)} left" if left >= 0 else f"{format_percent(-left)} over"
