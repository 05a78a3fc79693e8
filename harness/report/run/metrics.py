"""Every metric with its quantiles and how sure they are."""

from __future__ import annotations

from harness.report.document import Section, Table
from harness.report.words import load, value, with_interval
from harness.stats.level_stats import LevelStats
from harness.stats.summary import Summary
from harness.units import format_count


def section(summary: Summary) -> Section | None:
    """One table per level."""
    if not summary.levels:
        return None
    return Section("Metrics", tuple(_table(level) for level in summary.levels), detail=True)


def _table(level: LevelStats) -> Table:
    columns = ("Metric", "Samples", "Left out", "Mean", "p50", "p90", "p95", "p99", "Max")
    rows = []
    for figure in level.figures.values():
        quantiles = [
            with_interval(figure, name) if name in figure.ci95 else value(figure, name) for name in figure.quantiles
        ]
        counts = (format_count(figure.n), format_count(figure.left_out))
        rows.append((figure.metric.label, *counts, value(figure, "mean"), *quantiles, value(figure, "max")))
    return Table(columns, tuple(rows), frozenset(range(1, 9)), title=load(level))
