"""The GPUs that served and the client's machine: power, energy, use, and what slowed them, on the latencies' axis."""

from __future__ import annotations

import math

from harness.report.document import NOTHING, Axis, Chart, Paragraph, Section, Series, Table, Unit
from harness.report.words import load
from harness.stats.level_stats import LevelStats
from harness.stats.summary import Summary
from harness.stats.telemetry import TelemetryFigure
from harness.units import GIB, format_number, format_percent

# Drawn over time: name of the figure, title, unit of the axis.
STRIPS: tuple[tuple[str, str, Unit], ...] = (
    ("gpu_power_watts", "GPU power, W", ""),
    ("gpu_busy_ratio", "GPU busy", "share"),
    ("host_cpu_ratio", "Processors of the client's machine", "share"),
)
_NAMES = {"gpu": "The GPU", "host": "The client's machine"}


def section(summary: Summary) -> Section | None:
    """None where nothing was sampled."""
    levels = [each for each in summary.levels if each.telemetry.readings]
    why = [
        Paragraph(f"{_NAMES.get(name, name)} was not measured: {reason}.")
        for name, reason in summary.total.telemetry.unmeasured.items()
    ]
    if not levels and not why:
        return None
    table = (_table(levels),) if levels else ()
    charts = tuple(chart for strip in STRIPS if (chart := _strip(levels, *strip)) is not None)
    return Section("GPU and client's machine", (*why, *table, *charts), detail=True)


def _table(levels: list[LevelStats]) -> Table:
    columns = ("Mean (most) in the window", *(load(each) for each in levels))
    rows = [
        ("Power of all GPUs that serve", *(_pair(each.telemetry.power, each.telemetry.power_most) for each in levels)),
        ("Energy per output token", *(_joules(each.telemetry.per_token) for each in levels)),
    ]
    rows = [row for row in rows if any(cell != NOTHING for cell in row[1:])]
    named = dict.fromkeys((each.name, each.of) for level in levels for each in level.telemetry.readings)
    for name, of in named:
        found = [next((r for r in level.telemetry.readings if (r.name, r.of) == (name, of)), None) for level in levels]
        rows.append((_label(name, of), *(NOTHING if each is None else _value(each) for each in found)))
    return Table(columns, tuple(rows), frozenset(range(1, len(columns))))


def _pair(mean: float | None, most: float | None) -> str:
    return NOTHING if mean is None or most is None else f"{format_number(mean)} W ({format_number(most)})"


def _joules(value: float | None) -> str:
    return NOTHING if value is None else f"{format_number(value)} J"


def _label(name: str, of: str) -> str:
    """`gpu_slowed_by_heat_ratio{gpu=0,...}` -> `GPU 0 slowed by heat`; the unit is shown with the value."""
    words = name.rpartition("_")[0].split("_")
    labels = dict(part.partition("=")[::2] for part in of.split(",") if part)
    number = labels.get(words[0])
    words[0] = {"gpu": "GPU", "host": "Client:"}.get(words[0], words[0].capitalize())
    return " ".join([words[0], *([number] if number is not None else []), *words[1:]])


def _value(reading: TelemetryFigure) -> str:
    """By the unit that ends the name."""
    unit = reading.name.rpartition("_")[2]
    if unit == "ratio":
        return f"{format_percent(reading.mean)} ({format_percent(reading.most)})"
    scale, word = {"bytes": (GIB, "GiB"), "hertz": (1e6, "MHz"), "watts": (1.0, "W")}.get(unit, (1.0, unit))
    return f"{format_number(reading.mean / scale)} {word} ({format_number(reading.most / scale)})"


def _strip(levels: list[LevelStats], name: str, title: str, unit: Unit) -> Chart | None:
    """One line for each thing that has the figure, broken between levels."""
    things = dict.fromkeys(each.of for level in levels for each in level.telemetry.readings if each.name == name)
    lines = []
    for of in things:
        points: list[tuple[float, float]] = []
        for level in levels:
            own = [each.points for each in level.telemetry.readings if (each.name, each.of) == (name, of)]
            points += [point for some in own for point in some]
            points.append((points[-1][0] if points else 0.0, math.nan))
        lines.append(Series(of or title, tuple(points[:-1]), marks="line"))
    if not any(line.points for line in lines):
        return None
    along = [point.at for level in levels for point in level.timeline] or [x for line in lines for x, _ in line.points]
    said = [
        f"{load(level)}: mean {_value(each)}"
        for level in levels
        for each in level.telemetry.readings
        if each.name == name
    ]
    return Chart(
        name=f"{name.replace('_', '-')}-over-time",
        title=f"{title} over time",
        words=f"{title} over time, mean (most) in the window. {'; '.join(said)}.",
        x=Axis("Seconds since the run's start", low=min(along), high=max(along)),
        y=Axis(title, unit, low=0.0),
        series=tuple(lines),
        wide=True,
    )
