"""Latency and throughput against the load: where the SLO's bound is crossed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.report.document import Axis, Chart, Mark, Paragraph, Section, Series
from harness.report.words import load, with_interval
from harness.stats.level_stats import LevelStats
from harness.stats.summary import Summary
from harness.units import format_duration, format_number


def section(summary: Summary) -> Section | None:
    """One point per level; None where there is but one."""
    levels = [level for level in summary.levels if level.figures["e2e"].n]
    if len(levels) < 2 or any(level.load is None for level in levels):
        return None
    ordered = sorted(levels, key=lambda level: level.load or 0.0)
    charts = [*_latencies(summary, ordered), *_throughput(ordered)]
    how = Paragraph(
        "One point per level, hollow where its figures are invalid. Bars are 95 % intervals, the dashed line is the "
        "SLO's bound.",
        soft=True,
    )
    return Section("Capacity", (how, *charts)) if charts else None


def _latencies(summary: Summary, levels: Sequence[LevelStats]) -> list[Chart]:
    bounds = {each.metric: each for each in summary.total.attainment.slo.bounds}
    charts = []
    for metric in ("ttft", "itl"):
        statistic = bounds[metric].statistic if metric in bounds else "p95"
        limit = bounds[metric].limit if metric in bounds else None
        known = [each for each in levels if each.figures[metric].n]  # answers of one token have no gap
        if known:
            charts.append(_latency(known, metric, statistic, limit))
    return charts


def _latency(levels: Sequence[LevelStats], metric: str, statistic: str, limit: float | None) -> Chart:
    figures = [level.figures[metric] for level in levels]
    loads = [level.load or 0.0 for level in levels]
    values = [figure.value(statistic) for figure in figures]
    top = 1.5 * max([*values, *([] if limit is None else [limit])])
    intervals = []
    for place, figure in enumerate(figures):
        low, high = figure.ci95.get(statistic, (values[place], values[place]))
        # One without an upper end runs out of the picture; it must not flatten everything else.
        intervals.append((loads[place], low, high if math.isfinite(high) else top))
    name = f"{figures[0].metric.label} {statistic}"
    series = Series(
        name,
        tuple(zip(loads, values, strict=True)),
        tuple(intervals),
        frozenset(place for place, level in enumerate(levels) if not level.valid),
    )
    said = "; ".join(
        f"{load(level)} {with_interval(figure, statistic)}" for level, figure in zip(levels, figures, strict=True)
    )
    bound = "" if limit is None else f" The SLO allows {format_duration(limit)}."
    return Chart(
        name=f"{metric}-by-load",
        title=f"{name} by load",
        words=f"{said}.{bound}",
        x=Axis(_unit(levels), low=0.0),
        y=Axis(name, "s", log=None),
        series=(series,),
        marks=() if limit is None else (Mark("y", limit, "SLO"),),
    )


def _throughput(levels: Sequence[LevelStats]) -> list[Chart]:
    told = [each for each in levels if math.isfinite(each.throughput.output_tokens)]
    if not told:
        return []
    points = tuple((each.load or 0.0, each.throughput.output_tokens) for each in told)
    said = "; ".join(f"{load(each)} {format_number(each.throughput.output_tokens)}" for each in told)
    chart = Chart(
        name="tokens-by-load",
        title="Output tokens per second by load",
        words=f"{said}.",
        x=Axis(_unit(levels), low=0.0),
        y=Axis("Output tokens per second", low=0.0),
        series=(Series("Output tokens per second", points),),
    )
    return [chart]


def _unit(levels: Sequence[LevelStats]) -> str:
    return "Users" if levels[0].users is not None else "Offered requests per second"
