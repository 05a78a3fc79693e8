"""A history in the formats of other tools.

- Bencher Metric Format: {benchmark: {measure: {value, lower_value, upper_value}}}, of the newest point
  (https://bencher.dev/docs/reference/bencher-metric-format).
- github-action-benchmark's `customSmallerIsBetter` and `customBiggerIsBetter`: [{name, unit, value, extra}], of the
  newest point (https://github.com/benchmark-action/github-action-benchmark).
- OpenMetrics text with moments, of all points: `promtool tsdb create-blocks-from openmetrics` reads it
  (https://prometheus.io/docs/specs/om/open_metrics_spec).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from harness.stats.good_share import GOOD_SHARE
from harness.stats.history import History, Series, Trend
from harness.stats.run_figure import THROUGHPUT

_UNITS = {THROUGHPUT: "tokens/s", GOOD_SHARE: "share"}
_METRIC_UNITS = {THROUGHPUT: "", GOOD_SHARE: "ratio"}  # of OpenMetrics; of all others seconds
MEASURE_LONGEST = 64  # characters of the name of a measure at Bencher


def to_bencher(history: History) -> str:
    """Durations in seconds."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for series, trend, value in _newest(history):
        found.setdefault(_name(series, trend), {})[trend.figure[:MEASURE_LONGEST]] = {"value": value}
    return _json(found)


def to_smaller_is_better(history: History) -> str:
    """Durations."""
    return _custom(history, smaller=True)


def to_bigger_is_better(history: History) -> str:
    """Throughput, and the share of good answers."""
    return _custom(history, smaller=False)


def _custom(history: History, *, smaller: bool) -> str:
    return _json(
        [
            {
                "name": f"{_name(series, trend)}, {trend.figure}",
                "unit": _UNITS.get(trend.figure, "s"),
                "value": value,
                "extra": "\n".join(f"{name}: {version}" for name, version in _versions(series).items()),
            }
            for series, trend, value in _newest(history)
            if trend.smaller_is_better is smaller
        ]
    )


def to_openmetrics(history: History) -> str:
    """One gauge per figure, with the key as labels. Lines of a gauge are together, moments of a series in order."""
    trends = [(series, trend) for series in history.series for trend in series.trends]
    lines = []
    for figure in dict.fromkeys(trend.figure for _, trend in trends):
        unit = _METRIC_UNITS.get(figure, "seconds")
        name = f"harness_{figure}{unit and f'_{unit}'}"
        lines.append(f"# TYPE {name} gauge")
        lines += [f"# UNIT {name} {unit}"] if unit else []
        lines.append(f"# HELP {name} {figure} of runs with harness, one value per run or group of repeats.")
        for series, trend in trends:
            if trend.figure == figure:
                lines += _samples(name, series, trend)
    return "\n".join([*lines, "# EOF", ""])


def _samples(name: str, series: Series, trend: Trend) -> Iterator[str]:
    """A moment may come once in a series; of several that began in one second, each has its own fraction."""
    labels = {"series": _title(series), "load": trend.load, "emulated": str(series.points[0].emulated).lower()}
    before = None
    for point, value in zip(series.points, trend.values, strict=True):
        moment = datetime.fromisoformat(point.at.replace("Z", "+00:00")).timestamp()
        if value is not None and moment != before:
            told = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            yield f"{name}{{{told}}} {value!r} {moment:.6f}"
            before = moment


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _newest(history: History) -> Iterator[tuple[Series, Trend, float]]:
    """Of each series' last point what it has."""
    for series in history.series:
        for trend in series.trends:
            value = trend.values[-1]
            if value is not None:
                yield series, trend, value


def _versions(series: Series) -> Mapping[str, str]:
    last = series.points[-1].service
    return {name: str(last[name]) for name in ("engine", "image_digest", "commit") if last.get(name)}


def _name(series: Series, trend: Trend) -> str:
    """The same tomorrow, whatever other series there will be."""
    return f"{_title(series)}, {trend.load}"


def _title(series: Series) -> str:
    return f"{series.title(())} #{series.id}"


def _json(document: object) -> str:
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


EXPORTS: Mapping[str, tuple[tuple[str, Callable[[History], str]], ...]] = {
    "bencher": (("history.bencher.json", to_bencher),),
    "github-action-benchmark": (
        ("history.smaller-is-better.json", to_smaller_is_better),
        ("history.bigger-is-better.json", to_bigger_is_better),
    ),
    "openmetrics": (("history.openmetrics.txt", to_openmetrics),),
}
