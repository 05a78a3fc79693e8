"""Latency, throughput and requests in flight along the run, one time axis beneath the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from harness.report.document import Axis, Chart, Paragraph, Section, Series, Unit
from harness.report.words import load
from harness.stats.level_stats import LevelStats
from harness.stats.series import TimePoint
from harness.stats.summary import Summary
from harness.units import format_duration, format_number

_Value = Callable[[TimePoint], float]

STRIPS: tuple[tuple[str, str, Unit, tuple[tuple[str, _Value], ...]], ...] = (
    ("ttft", "TTFT", "s", (("p50", lambda each: each.ttft_p50), ("p95", lambda each: each.ttft_p95))),
    ("itl", "ITL", "s", (("p50", lambda each: each.itl_p50), ("p99", lambda each: each.itl_p99))),
    ("tokens", "Output tokens/s", "", (("output tokens/s", lambda each: each.output_tokens_per_second),)),
    ("in-flight", "Requests in flight", "", (("requests in flight", lambda each: float(each.in_flight)),)),
)


def section(summary: Summary) -> Section | None:
    """None where no request was completed."""
    levels = [level for level in summary.levels if level.figures["e2e"].n]
    if not levels:
        return None
    shown = [strip for strip in STRIPS if any(math.isfinite(y) for _, y in _points(levels, strip[3][0][1]))]
    charts = [_strip(levels, *strip) for strip in shown]
    how = Paragraph(
        "TTFT by the moment a request was due, ITL and tokens by the moment of the token. Shaded parts (warm-up, "
        "cool-down) are in no figure of this report. A line stops where nothing happened.",
        soft=True,
    )
    return Section("Latency over time", (how, *charts), detail=True)


def _points(levels: Sequence[LevelStats], value: _Value) -> list[tuple[float, float]]:
    """With a break between levels."""
    points: list[tuple[float, float]] = []
    for level in levels:
        points += [(each.at, value(each)) for each in level.timeline]
        points.append((points[-1][0] if points else 0.0, math.nan))
    return points[:-1]


def _strip(
    levels: Sequence[LevelStats], name: str, label: str, unit: Unit, lines: tuple[tuple[str, _Value], ...]
) -> Chart:
    series = tuple(Series(line, tuple(_points(levels, value)), marks="line") for line, value in lines)
    moments = [at for at, _ in series[0].points]
    begin, end = min(moments), max(moments)
    edges = [begin, *(edge for level in levels for edge in level.window), end]
    bands = [(low, high) for low, high in zip(edges[::2], edges[1::2], strict=True) if high > low]
    return Chart(
        name=f"{name}-over-time",
        title=f"{label} over time",
        words=_said(levels, lines[-1], unit),
        x=Axis("Seconds since the run's start", low=begin, high=end),
        y=Axis(label, unit, log=None if unit == "s" else False, low=None if unit == "s" else 0.0),
        series=series,
        bands=tuple(bands),
        wide=True,
    )


def _said(levels: Sequence[LevelStats], line: tuple[str, _Value], unit: Unit) -> str:
    """Lowest and highest value of a line, with the moment and the load of the latter."""
    name, value = line
    known = [(value(each), each.at, level) for level in levels for each in level.timeline if math.isfinite(value(each))]
    if not known:
        return "Nothing to show."
    low = min(each[0] for each in known)
    high, at, level = max(known, key=lambda each: each[0])
    show = format_duration if unit == "s" else format_number
    what = f"{name[:1].upper()}{name[1:]}" if unit == "s" else "It"
    if show(low) == show(high):
        return f"{what} was {show(high)} throughout."
    where = f"highest {format_number(at)} s into the run at {load(level)}"
    return f"{what} lay between {show(low)} and {show(high)}, {where}."
