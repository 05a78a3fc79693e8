"""The charts of the HTML report as Vega-Lite documents: a few hundred points each, already aggregated in stats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from harness.report.content import load
from harness.stats.figure import or_none
from harness.stats.section import Section
from harness.stats.summary import Summary
from harness.units import format_duration

Spec = dict[str, Any]
Row = dict[str, Any]
HEIGHT = 220
FLOOR_MS = 0.01  # glued events have gaps of about nothing, which a logarithmic axis cannot show
LOG_FROM = 30.0  # largest over smallest value from which on a linear scale hides the small ones


@dataclass(frozen=True)
class Chart:
    """name: the element's id. heading, text: what it shows and how to read it."""

    name: str
    heading: str
    text: str
    specs: tuple[Spec, ...]


def charts(summary: Summary) -> list[Chart]:
    """All charts that this run has data for, in reading order."""
    levels = [section for section in summary.levels if section.figures["e2e"].n]
    if not levels:
        return []
    found = []
    if len(levels) > 1 and all(section.load is not None for section in levels):
        found.append(_capacity(summary, levels))
    found.append(_over_time(levels))
    found.append(_distributions(levels))
    return [chart for chart in found if chart.specs]


def _capacity(summary: Summary, levels: Sequence[Section]) -> Chart:
    unit = "Users" if levels[0].users is not None else "Offered requests per second"
    bounds = {each.metric: each for each in summary.total.attainment.slo.bounds}
    specs = []
    for metric in ("ttft", "itl"):
        statistic = bounds[metric].statistic if metric in bounds else "p95"
        limit = bounds[metric].limit if metric in bounds else None
        known = [each for each in levels if each.figures[metric].n]  # answers of one token have no gap
        if known:
            specs.append(_curve_by_load(known, metric, statistic, unit, limit))
    told = [each for each in levels if math.isfinite(each.throughput.output_tokens)]
    if told:
        specs.append(_throughput_by_load(told, unit))
    text = (
        "One point per level, hollow where its figures do not stand. Bars are 95 % intervals, the dashed line is the "
        "SLO's bound."
    )
    return Chart("capacity", "Capacity", text, tuple(specs))


def _curve_by_load(levels: Sequence[Section], metric: str, statistic: str, unit: str, limit: float | None) -> Spec:
    rows: list[Row] = []
    for section in levels:
        figure = section.figures[metric]
        low, high = figure.ci95.get(statistic, (figure.value(statistic),) * 2)
        rows.append({
            "load": section.load, "value": _ms(figure.value(statistic)), "low": _ms(low),
            "high": _ms(high if math.isfinite(high) else 10 * figure.max),  # out of the picture
            "to": format_duration(high) if math.isfinite(high) else "no upper end",
            "level": load(section), "stands": section.valid,
        })  # fmt: skip
    label = f"{levels[0].figures[metric].metric.label} {statistic} (ms)"
    # An interval without an upper end may run out of the picture; it must not flatten everything else.
    top = 1.5 * max([row["value"] for row in rows] + ([] if limit is None else [_ms(limit)]))
    scale = alt.Scale(domainMin=0, domainMax=min(top, max(top / 1.4, *(row["high"] for row in rows))), clamp=False)
    x = alt.X("load:Q", title=unit)
    y = alt.Y("value:Q", title=label, scale=scale)
    tooltip = [
        alt.Tooltip("level:N", title="Load"),
        alt.Tooltip("value:Q", title=label, format=".3~s"),
        alt.Tooltip("low:Q", title="95 % from", format=".3~s"),
        alt.Tooltip("to:N", title="to"),
    ]
    base = alt.Chart(_data(rows))
    layers: list[alt.Chart] = [
        base.mark_line(interpolate="linear", strokeWidth=2).encode(x, y),
        base.mark_rule(strokeWidth=2, opacity=0.45, clip=True).encode(
            x, alt.Y("low:Q", scale=scale, title=label), alt.Y2("high:Q")
        ),
        *(
            base.transform_filter(f"datum.stands == {str(stands).lower()}")
            .mark_point(size=70, filled=stands, opacity=1, strokeWidth=2)
            .encode(x, y, tooltip=tooltip)
            for stands in (True, False)
            if any(row["stands"] is stands for row in rows)  # Vega complains of a layer without data
        ),
    ]
    if limit is not None:
        layers.append(_bound(limit))
    return _finished(alt.layer(*layers))


def _throughput_by_load(levels: Sequence[Section], unit: str) -> Spec:
    rows = [{"load": each.load, "value": each.throughput.output_tokens, "level": load(each)} for each in levels]
    base = alt.Chart(_data(rows)).encode(
        alt.X("load:Q", title=unit),
        alt.Y("value:Q", title="Output tokens per second"),
        tooltip=[alt.Tooltip("level:N", title="Load"), alt.Tooltip("value:Q", title="Tokens/s", format=",.0f")],
    )
    return _finished(alt.layer(base.mark_line(strokeWidth=2), base.mark_point(size=70, filled=True, opacity=1)))


def _over_time(levels: Sequence[Section]) -> Chart:
    points = [(section, point) for section in levels for point in section.timeline]
    rows: list[Row] = [
        {
            "at": point.at,
            "level": load(section),
            "ttft_p50": _ms(point.ttft_p50),
            "ttft_p95": _ms(point.ttft_p95),
            "itl_p50": _ms(point.itl_p50),
            "itl_p99": _ms(point.itl_p99),
            "tokens": or_none(point.output_tokens_per_second),
            "in_flight": point.in_flight,
        }
        for section, point in points
    ]
    domain = [min(row["at"] for row in rows), max(row["at"] for row in rows)]
    strips: tuple[tuple[dict[str, str], str, Any], ...] = (
        ({"ttft_p50": "p50", "ttft_p95": "p95"}, "TTFT (ms)", _scale),
        ({"itl_p50": "p50", "itl_p99": "p99"}, "ITL (ms)", _scale),
        ({"tokens": "output tokens/s"}, "Output tokens/s", None),
        ({"in_flight": "requests in flight"}, "Requests in flight", None),
    )
    shown = [each for each in strips if any(row[key] is not None for key in each[0] for row in rows)]
    specs = tuple(
        _lines(levels, rows, domain, series, label, scale, last=label == shown[-1][1]) for series, label, scale in shown
    )
    text = (
        "TTFT by the moment a request was due, ITL and tokens by the moment of the token. Shaded parts (warm-up, "
        "cool-down) are in no figure of this report."
    )
    return Chart("time", "Latency over time", text, specs)


def _lines(
    levels: Sequence[Section],
    rows: Sequence[Row],
    domain: list[float],
    series: dict[str, str],
    label: str,
    scale: Callable[[Iterable[float]], alt.Scale] | None = None,
    last: bool = False,
) -> Spec:
    """One strip of the timeline. last: the one with the title of the common axis."""
    long = [
        {
            "at": row["at"],
            "value": max(row[key], FLOOR_MS) if scale else row[key],
            "series": name,
            "level": row["level"],
        }
        for key, name in series.items()
        for row in rows
        if row[key] is not None
    ]
    title = "Seconds since the run's start" if last else None
    x = alt.X("at:Q", title=title, scale=alt.Scale(domain=domain, nice=False))
    colour = alt.Color(
        "series:N", title=None, sort=list(series.values()), legend=alt.Legend() if len(series) > 1 else None
    )
    line = alt.Chart(_data(long)).encode(
        x,
        alt.Y(
            "value:Q",
            title=label,
            axis=alt.Axis(minExtent=44),  # so that the strips' time axes stand above one another
            scale=scale(row["value"] for row in long) if scale else alt.Scale(zero=True),
        ),
        colour,
        detail="level:N",  # no line from one level to the next
        tooltip=[
            alt.Tooltip("level:N", title="Load"),
            alt.Tooltip("at:Q", title="At (s)", format=".1f"),
            alt.Tooltip("series:N", title="Line"),
            alt.Tooltip("value:Q", title=label, format=".3~s"),
        ],
    )
    return _finished(
        alt.layer(
            _outside_windows(levels, domain, title), line.mark_line(strokeWidth=1.6, point=alt.OverlayMarkDef(size=14))
        ),
        height=120,
    )


def _outside_windows(levels: Sequence[Section], domain: list[float], title: str | None) -> alt.Chart:
    """What lies between the windows, as grey bands."""
    edges = [domain[0], *(edge for section in levels for edge in section.window), domain[1]]
    bands = [{"from": low, "to": high} for low, high in zip(edges[::2], edges[1::2], strict=True) if high > low]
    scale = alt.Scale(domain=domain, nice=False)
    return (
        alt.Chart(_data(bands))
        .mark_rect(opacity=0.14, color="#888")
        .encode(alt.X("from:Q", scale=scale, title=title), alt.X2("to:Q"))
    )


def _distributions(levels: Sequence[Section]) -> Chart:
    specs = tuple(
        _distribution(levels, metric) for metric in ("ttft", "itl") if any(each.figures[metric].n for each in levels)
    )
    text = (
        "How much of all requests (TTFT) and of all gaps between tokens (ITL) was at most as slow as the value below."
    )
    return Chart("distribution", "Distribution of TTFT and ITL", text, specs)


def _distribution(levels: Sequence[Section], metric: str) -> Spec:
    rows: list[Row] = []
    for section in levels:
        curve = section.curves[metric]
        pairs = zip(curve.value, curve.share, strict=True)
        rows += [
            {"value": max(_ms(value) or 0.0, FLOOR_MS), "share": share, "level": load(section)}
            for value, share in pairs
        ]
    label = f"{levels[0].figures[metric].metric.label} (ms)"
    order = [load(section) for section in levels]
    lines = (
        alt.Chart(_data(rows))
        .mark_line(strokeWidth=2, interpolate="linear")
        .encode(
            alt.X("value:Q", title=label, scale=alt.Scale(type="log", nice=False)),
            alt.Y("share:Q", title="Share at or below", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
            alt.Color("level:N", title=None, sort=order, legend=alt.Legend() if len(order) > 1 else None),
            tooltip=[
                alt.Tooltip("level:N", title="Load"),
                alt.Tooltip("share:Q", title="Share", format=".2%"),
                alt.Tooltip("value:Q", title=label, format=".3~s"),
            ],
        )
    )
    bounds = [each.limit for each in levels[0].attainment.slo.bounds if each.metric == metric]
    rules = [
        alt.Chart(_data([{"value": _ms(limit)}])).mark_rule(strokeDash=[5, 4], opacity=0.8).encode(alt.X("value:Q"))
        for limit in bounds
    ]
    marks = (
        alt.Chart(_data([{"share": share, "name": name} for name, share in (("p50", 0.5), ("p95", 0.95))]))
        .mark_rule(opacity=0.25)
        .encode(alt.Y("share:Q"))
    )
    return _finished(alt.layer(marks, lines, *rules))


def _bound(limit: float) -> alt.Chart:
    return alt.Chart(_data([{"bound": _ms(limit)}])).mark_rule(strokeDash=[5, 4], opacity=0.8).encode(alt.Y("bound:Q"))


def _finished(chart: alt.LayerChart | alt.FacetChart, height: int = HEIGHT) -> Spec:
    """As a plain document; theme and data names are left to the page."""
    document: Spec = chart.properties(width="container", height=height).to_dict()
    document.pop("config", None)
    return document


def _data(rows: Sequence[dict[str, Any]]) -> alt.Data:
    return alt.Data(values=list(rows))


def _scale(values: Iterable[float]) -> alt.Scale:
    """From zero, or logarithmic where one would hide the other."""
    known = [value for value in values if value > 0]
    if known and max(known) / min(known) > LOG_FROM:
        return alt.Scale(type="log", nice=False)
    return alt.Scale(zero=True)


def _ms(seconds: float) -> float | None:
    return None if not math.isfinite(seconds) else round(seconds * 1e3, 6)
