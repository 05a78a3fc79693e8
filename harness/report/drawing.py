"""Charts as pictures: a Chart becomes a Vega-Lite document, which vl-convert draws as SVG or PNG without a browser."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import vl_convert

from harness.report.document import Axis, Chart, Series

Spec = dict[str, Any]

NARROW, WIDE = 360, 940  # width of a picture in pixels: of one on a phone, and of one over the whole page
HEIGHT, STRIP = 240, 150  # of a chart, and of one beneath others
ROW, AROUND = 34, 100  # of a name of the y axis, and of what is above and below all of them
LOG_FROM = 30.0  # largest over smallest value from which on a linear scale hides the small ones
SECONDS_FROM = 2.0  # seconds from which on an axis is in seconds, not milliseconds
_PER_LETTER, _PER_KEY = 7, 40  # pixels of a name in the legend, and of the sign before it
_PER_TICK = 70  # pixels that the label of a tick may take

# What each colour is for. The page sets them anew for dark screens (report.html.j2), a file has those of paper.
COLOURS = {
    "ink": "#3a424a",
    "grid": "#e4e8eb",
    "band": "#888888",
    "series-1": "#1f5fbf",
    "series-2": "#c2560a",
    "series-3": "#17734a",
    "series-4": "#b3261e",
    "series-5": "#7b4bb8",
    "series-6": "#0b7f86",
    "series-7": "#8a6d00",
    "series-8": "#59636e",
}
_SERIES = [colour for name, colour in COLOURS.items() if name.startswith("series")]
_DASHES = [[1, 0], [7, 3], [2, 2], [9, 3, 2, 3]]  # so that lines are told apart without colour


def svg(chart: Chart, width: int) -> str:
    """The picture as one SVG element with the colours of paper. width: in pixels."""
    picture = str(vl_convert.vegalite_to_svg(vega_lite(chart, width)))
    # Vega goes on counting its clips from one picture to the next: the same chart is to be the same text.
    numbers = {name: str(place) for place, name in enumerate(dict.fromkeys(_CLIP.findall(picture)))}
    return _CLIP.sub(lambda found: f"clip{numbers[found[0]]}", picture)


_CLIP = re.compile(r"(?<=[\"#])clip\d+(?=[\")])")


def png(chart: Chart) -> bytes:
    """The picture on a white ground, for slides; two pixels of it are one of the page."""
    spec = {**vega_lite(chart, WIDE if chart.wide else 640), "background": "white"}
    return bytes(vl_convert.vegalite_to_png(spec, scale=2))


def vega_lite(chart: Chart, width: int) -> Spec:
    """The chart as a Vega-Lite document."""
    x = _Scale(chart.x, [at for series in chart.series for at, _ in series.points], width)
    height = AROUND + ROW * len(chart.y.names) if chart.y.names else STRIP if chart.wide else HEIGHT
    tall = [] if chart.y.names else [*_values(chart.series), *(mark.value for mark in chart.marks if mark.axis == "y")]
    y = _Scale(chart.y, tall, height * 1.6)
    layers = [*_bands(chart, x), *_lines(chart, x, y), *_marks(chart, x, y)]
    return {
        "width": width,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "layer": layers,
        "config": _config(),
    }


class _Scale:
    """An axis with the unit, the ends and the ticks that suit its values. space: pixels for the labels."""

    def __init__(self, axis: Axis, values: Iterable[float], space: float) -> None:
        known = [value for value in values if math.isfinite(value)]
        above = [value for value in known if value > 0]
        self.log = axis.log
        if axis.log is None:
            self.log = bool(above) and max(above) / min(above) > LOG_FROM
        self.factor, unit = 1.0, ""
        if axis.unit == "s":
            in_seconds = bool(known) and max(known) >= SECONDS_FROM
            self.factor, unit = (1.0, " (s)") if in_seconds else (1e3, " (ms)")
        self.title = f"{axis.title}{unit}"
        self.format = "%" if axis.unit == "share" else ",~f"
        low, high = axis.low, axis.high
        if self.log:
            self.floor = low or (min(above) if above else 1.0)
            low, high = self.floor, high or (max(above) if above else 10.0)
        self.low, self.high, self.space, self.names = low, high, space, axis.names

    def value(self, value: float) -> float | None:
        """In the axis' unit; None breaks a line."""
        if not math.isfinite(value) or (self.log and value < self.floor):
            return None if not math.isfinite(value) else self.floor * self.factor
        return float(f"{value * self.factor:.6g}")

    def encoding(self, field: str, **axis: Any) -> Spec:
        """Of a field of the data."""
        if self.names:
            return self._named(field, axis)
        scale: Spec = {"zero": self.low is None and not self.log, "nice": self.high is None}
        if self.log:
            ticks = self._ticks()
            scale = {"type": "log", "nice": False, "domain": [ticks[0], ticks[-1]]}
            axis = {**axis, "values": self._labelled(ticks)}
        else:
            ends = {"domainMin": self.low, "domainMax": self.high}
            scale |= {name: end * self.factor for name, end in ends.items() if end is not None}
            axis = {**axis, "tickCount": max(3, int(self.space / _PER_TICK))}
        return {
            "field": field,
            "type": "quantitative",
            "title": self.title,
            "scale": scale,
            "axis": {"format": self.format, **axis},
        }

    def _named(self, field: str, axis: Spec) -> Spec:
        """A name at each whole number, the first one at the top."""
        ends = [-0.5, len(self.names)]  # half a row more for the name of a mark
        lines = [name.split("\n") for name in self.names]
        own = {"values": list(range(len(self.names))), "labelExpr": f"{json.dumps(lines)}[datum.value]"}
        widest = max(len(line) for name in lines for line in name)
        return {
            "field": field,
            "type": "quantitative",
            "title": None,
            "scale": {"domain": ends, "reverse": True, "nice": False, "zero": False},
            "axis": {
                **axis,
                **own,
                "labelLimit": 0,
                "labelOverlap": False,
                "ticks": False,
                "minExtent": _PER_LETTER * widest,
            },
        }

    def _ticks(self) -> list[float]:
        """1, 2 and 5 times powers of ten, from the last one below all values to the first one above."""
        assert self.low is not None
        assert self.high is not None
        low, high = self.low * self.factor, max(self.high, self.low * 1.01) * self.factor
        powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        every = [float(f"{step}e{power}") for power in powers for step in (1, 2, 5)]
        first = max(tick for tick in every if tick <= low * (1 + 1e-9))
        last = min(tick for tick in every if tick >= high * (1 - 1e-9))
        return [tick for tick in every if first <= tick <= last]

    def _labelled(self, ticks: list[float]) -> list[float]:
        """As many of them as there is room for: all, or the powers of ten, or every N-th of these."""
        most = max(2, int(self.space / _PER_TICK * 1.3))
        if len(ticks) <= most:
            return ticks
        powers = [tick for tick in ticks if f"{tick:e}".startswith("1.000000e")]
        return powers[:: -(-len(powers) // most)] or ticks[:: -(-len(ticks) // most)]


def _values(series: Sequence[Series]) -> list[float]:
    return [y for each in series for _, y in each.points] + [
        end for each in series for _, low, high in each.intervals for end in (low, high)
    ]


def _layer(rows: list[Spec], mark: Spec, encoding: Spec) -> list[Spec]:
    """None without data, of which Vega complains."""
    return [{"data": {"values": rows}, "mark": mark, "encoding": encoding}] if rows else []


def _bands(chart: Chart, x: _Scale) -> list[Spec]:
    rows = [{"from": x.value(low), "to": x.value(high)} for low, high in chart.bands]
    encoding = {"x": x.encoding("from"), "x2": {"field": "to"}}
    return _layer(rows, {"type": "rect", "color": COLOURS["band"], "opacity": 0.14}, encoding)


def _lines(chart: Chart, x: _Scale, y: _Scale) -> list[Spec]:
    names = [series.name for series in chart.series]
    columns = max(1, x.space // (_PER_LETTER * max(map(len, names)) + _PER_KEY))
    key = {"symbolType": "stroke", "columns": columns, "symbolOpacity": 1} if len(names) > 1 else None

    def of_series(values: Sequence[Any]) -> Spec:
        chosen = [values[place % len(values)] for place in range(len(names))]
        return {
            "field": "series",
            "type": "nominal",
            "title": None,
            "legend": key,
            "scale": {"domain": names, "range": chosen},
        }

    place = {"x": x.encoding("x"), "y": y.encoding("y", minExtent=44), "color": of_series(_SERIES)}
    other = {"x2": {"field": "high"}} if y.names else {"y2": {"field": "high"}}
    rows = [row for series in chart.series if series.marks != "points" for row in _rows(series, x, y)]
    bars = [row for series in chart.series for row in _bars(series, x, y)]
    lines = {**place, "detail": {"field": "part"}, "strokeDash": of_series(_DASHES)}
    return [
        *_layer(rows, {"type": "line", "strokeWidth": 2, "clip": True}, lines),
        *_layer(bars, {"type": "rule", "strokeWidth": 2, "opacity": 0.45, "clip": True}, {**place, **other}),
        *_points(chart, place, x, y),
    ]


def _rows(series: Series, x: _Scale, y: _Scale) -> list[Spec]:
    """part: a stretch without a break, so that no line is drawn over what was not measured."""
    rows, part = [], 0
    for at, found in series.points:
        value = y.value(found)
        if value is None or x.value(at) is None:
            part += 1
        else:
            rows.append({"x": x.value(at), "y": value, "series": series.name, "part": f"{series.name} {part}"})
    return rows


def _bars(series: Series, x: _Scale, y: _Scale) -> list[Spec]:
    if y.names:
        return [
            {"y": at, "x": x.value(low), "high": x.value(high), "series": series.name}
            for at, low, high in series.intervals
        ]
    return [
        {"x": x.value(at), "y": y.value(low), "high": y.value(high), "series": series.name}
        for at, low, high in series.intervals
    ]


def _points(chart: Chart, place: Spec, x: _Scale, y: _Scale) -> list[Spec]:
    """Marks of single values; also of those that are alone in a line, which would not be seen otherwise."""
    layers = []
    for hollow in (False, True):
        rows = [
            {"x": x.value(at), "y": y.value(found), "series": series.name}
            for series in chart.series
            if series.marks != "line"
            for number, (at, found) in enumerate(series.points)
            if (number in series.hollow) is hollow and math.isfinite(found)
        ]
        layers += _layer(
            rows, {"type": "point", "size": 70, "filled": not hollow, "opacity": 1, "strokeWidth": 2}, place
        )
    alone = [row for series in chart.series if series.marks == "line" for row in _alone(_rows(series, x, y))]
    return [*layers, *_layer(alone, {"type": "point", "size": 16, "filled": True, "opacity": 1}, place)]


def _alone(rows: list[Spec]) -> list[Spec]:
    parts = [row["part"] for row in rows]
    return [row for row in rows if parts.count(row["part"]) == 1]


def _marks(chart: Chart, x: _Scale, y: _Scale) -> list[Spec]:
    layers: list[Spec] = []
    ink = COLOURS["ink"]
    upright = [mark for mark in chart.marks if mark.axis == "x"]
    for mark in chart.marks:
        # Of upright ones one name above the other, as their lines may be close.
        down = 10 if mark.axis == "y" else -6 - 13 * upright.index(mark)
        scale, other, end = (x, "y", "height") if mark.axis == "x" else (y, "x", 4)
        rows = [{"at": scale.value(mark.value), "name": mark.name}]
        place: Spec = {mark.axis: scale.encoding("at")}
        layers += _layer(rows, {"type": "rule", "strokeDash": [5, 4], "opacity": 0.7, "color": ink}, place)
        text = {"type": "text", "align": "left", "dx": 3, "dy": down, "color": ink, "fontSize": 11}
        layers += _layer(rows, text, {**place, other: {"value": end}, "text": {"field": "name"}})
    return layers


def _config() -> Spec:
    ink, grid = COLOURS["ink"], COLOURS["grid"]
    return {
        "background": "transparent",
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": {
            "labelColor": ink, "titleColor": ink, "gridColor": grid, "domainColor": grid, "tickColor": grid,
            "titleFontWeight": 500, "labelFontSize": 11, "titleFontSize": 12, "labelOverlap": True,
        },
        "legend": {"labelColor": ink, "orient": "top", "padding": 0, "offset": 6, "labelFontSize": 11},
    }  # fmt: skip


def narrowed(chart: Chart) -> Chart:
    """The same for a phone: one chart of its own, not a strip."""
    return replace(chart, wide=False)
