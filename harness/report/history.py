"""A history as a document: what changed for good and since when, a chart per figure, and what each point is of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.report.document import (
    NOTHING,
    Axis,
    Block,
    Bullets,
    Chart,
    Document,
    Mark,
    Paragraph,
    Section,
    Sheet,
    Table,
)
from harness.report.document import Series as Line
from harness.stats.change_points import FEWEST, LEVEL
from harness.stats.good_share import GOOD_SHARE
from harness.stats.history import VERSIONS, History, Series, Shift, Trend
from harness.stats.run_figure import THROUGHPUT
from harness.units import format_count, format_duration, format_number, format_percent

_COLUMNS = ("Load", "Figure", "Points", "First", "Newest", "Changed for good")
_TOO_FEW = "too few points"
_HOW = (
    "One point per run, or per group of repeats (geometric mean). Changed for good: the series divides there better "
    f"than {100 * (1 - LEVEL):g} % of its own shuffles do (E-divisive), which are made so that a night resembles the "
    "one before; a single odd point is not a change. Of figures that never changed, one in a hundred shows a change by "
    "chance, and up to one in twenty where each night is much like the last. "
    f"Fewer than {FEWEST} points are too few to tell. Runs of another "
    "model, card, engine or question are a series of their own; releases, images and commits may change along one, "
    "and are named where they do."
)


def history_document(history: History) -> Document:
    """Of any number of series; one without points says so."""
    points = sum(len(series.points) for series in history.series)
    moments = sorted(point.at for series in history.series for point in series.points)
    span = f", {_day(moments[0])} to {_day(moments[-1])}" if moments else ""
    many = f"{format_count(len(history.series))} series" if len(history.series) != 1 else "one series"
    sections = [_section(number, series, history) for number, series in enumerate(history.series)]
    if history.left_out:
        said = Bullets(history.left_out)
        sections.append(Section("Left out", (said,), (Paragraph(f"left out: {len(history.left_out)}, see --json"),)))
    return Document(
        title=_title(history),
        about=f"{points} points of {many}{span}",
        answer=answer(history),
        sections=tuple(sections),
        data=history.as_dict(),
        sheet=_sheet(history),
    )


def answer(history: History) -> str:
    """Every change for good, newest first, with what was new at that point."""
    if not history.series:
        return "No run to show."
    found = [
        (series.points[at].at, _at_once(series, at, history))
        for series in history.series
        for at in sorted({shift.at for trend in series.trends for shift in trend.shifts})
    ]
    blind = [series for series in history.series if not any(trend.can_tell for trend in series.trends)]
    unknown = f"Too few points to tell in {len(blind)} of {len(history.series)} series: {FEWEST} are needed."
    if found:
        said = "Changed for good: " + "; ".join(text for _, text in sorted(found, reverse=True)) + "."
    elif len(blind) == len(history.series):
        return f"Too few points to tell whether a figure changed for good: {FEWEST} are needed."
    else:
        said = "No figure changed for good."
    return f"{said} {unknown}" if blind else said


def _at_once(series: Series, at: int, history: History) -> str:
    """All that changed at one point: `demo on L4, tgi, chat, at 15 of 24, 2026-03-02 (engine ...): ttft_p50 ...`."""
    news = f" ({', '.join(series.news(at))})" if series.news(at) else ""
    shifts = [
        f"{trend.figure} at {trend.load} {_percent(shift)} ({_word(trend, shift)})"
        for trend in series.trends
        for shift in trend.shifts
        if shift.at == at
    ]
    place = f"{at + 1} of {len(series.points)}, {_day(series.points[at].at)}"
    return f"{series.title(history.series)}, at {place}{news}: {', '.join(shifts)}"


def _title(history: History) -> str:
    emulated = [series.points[0].emulated for series in history.series]
    word = "Emulated runs" if emulated and all(emulated) else "Runs, some of them emulated" if any(emulated) else "Runs"
    return f"{word} over time"


def _section(number: int, series: Series, history: History) -> Section:
    title = series.title(history.series)
    table = Table(_COLUMNS, tuple(_row(series, trend) for trend in series.trends), frozenset(range(2, 5)))
    figures = dict.fromkeys(trend.figure for trend in series.trends) if len(series.points) > 1 else {}
    charts = [_chart(number, series, figure) for figure in figures]
    blocks: tuple[Block, ...] = (table, Paragraph(_HOW, soft=True), *charts, _points(series))
    return Section(title, blocks, (replace(table, title=title),))


def _row(series: Series, trend: Trend) -> tuple[str, ...]:
    known = [value for value in trend.values if value is not None]
    changes = ", ".join(_change(series, trend, shift) for shift in trend.shifts)
    changes = changes or (NOTHING if trend.can_tell else _TOO_FEW)
    return (
        trend.load,
        trend.figure,
        format_count(len(known)),
        _value(trend, known[0]),
        _value(trend, known[-1]),
        changes,
    )


def _change(series: Series, trend: Trend, shift: Shift) -> str:
    """`+12.0 % (worse) at 14, 2026-03-02`."""
    return f"{_percent(shift)} ({_word(trend, shift)}) at {shift.at + 1}, {_day(series.points[shift.at].at)}"


def _word(trend: Trend, shift: Shift) -> str:
    return "worse" if trend.is_worse(shift) else "better"


def _percent(shift: Shift) -> str:
    return f"{'+' if shift.ratio > 1 else '−'}{format_percent(abs(shift.ratio - 1))}"


def _chart(number: int, series: Series, figure: str) -> Chart:
    trends = [trend for trend in series.trends if trend.figure == figure]
    lines = tuple(
        Line(trend.load, tuple((place + 1.0, math.nan if value is None else value)
                               for place, value in enumerate(trend.values)))
        for trend in trends
    )  # fmt: skip
    marks = tuple(Mark("x", shift.at + 0.5) for trend in trends for shift in trend.shifts)
    said = "; ".join(f"{trend.load} {_change(series, trend, shift)}" for trend in trends for shift in trend.shifts)
    high = max(value for trend in trends for value in trend.values if value is not None)
    return Chart(
        name=f"history-{number}-{figure.replace('_', '-')}",
        title=f"{figure} over {len(series.points)} points",
        words=f"{figure}, oldest first. {_words(said, trends)}.",
        x=Axis("Point, oldest first", low=1.0, high=float(len(series.points))),
        y=_axis(figure, 1.15 * high),
        series=lines,
        marks=marks,
        wide=True,
    )


def _words(said: str, trends: Sequence[Trend]) -> str:
    """What a chart shows, for who cannot see it. said: all changes."""
    if said:
        return f"Changed for good: {said}"
    return "No change for good" if all(trend.can_tell for trend in trends) else _TOO_FEW.capitalize()


def _axis(figure: str, high: float) -> Axis:
    """From 0, so that a per cent looks like one."""
    if figure == THROUGHPUT:
        return Axis("Output tokens/s", low=0.0, high=high)
    if figure == GOOD_SHARE:
        return Axis("Good answers", "share", low=0.0, high=1.0)
    return Axis(figure, "s", log=False, low=0.0, high=high)


def _points(series: Series) -> Table:
    rows = tuple(
        (str(at + 1), point.at[:16].replace("T", " "), point.name, str(len(point.starts)),
         str(point.service.get("engine") or NOTHING), str(point.service.get("commit") or NOTHING),
         ", ".join(series.news(at)) or NOTHING)
        for at, point in enumerate(series.points)
    )  # fmt: skip
    columns = ("Point", "Began (UTC)", "From", "Runs", "Engine", "Commit", "New at this point")
    return Table(columns, rows, frozenset([0, 3]), "Points")


def _value(trend: Trend, value: float) -> str:
    if trend.figure == GOOD_SHARE:
        return format_percent(value)
    return f"{format_number(value)}/s" if trend.figure == THROUGHPUT else format_duration(value)


def _day(moment: str) -> str:
    return moment[:10]


def _sheet(history: History) -> Sheet:
    """One row per point and figure."""
    columns = (
        "series",
        "emulated",
        "point",
        "at",
        "from",
        "runs",
        *VERSIONS,
        "load",
        "figure",
        "value",
        "change_point",
    )
    return Sheet(columns, tuple(row for series in history.series for row in _cells(series, history.series)))


def _cells(series: Series, among: Sequence[Series]) -> Iterator[tuple[object, ...]]:
    title = series.title(among)
    for at, point in enumerate(series.points):
        versions = [point.service.get(name) for name in VERSIONS]
        for trend in series.trends:
            changed = any(shift.at == at for shift in trend.shifts)
            yield (
                title, str(point.emulated).lower(), at + 1, point.at, point.name, len(point.starts), *versions,
                trend.load, trend.figure, trend.values[at], str(changed).lower(),
            )  # fmt: skip
