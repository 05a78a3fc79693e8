"""GPUs and the client's machine over one level, and the energy per token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.measure.records import Floats
from harness.measure.server import Series, ServerSamples
from harness.stats.window import Window


@dataclass(frozen=True)
class TelemetryFigure:
    """One figure of one thing over the windows: its mean and most. of: its labels, such as `gpu=0`; empty for one
    alone. points: moments (seconds of the run) and values over the whole level, thinned for a chart.
    """

    name: str
    of: str
    mean: float
    most: float
    points: tuple[tuple[float, float], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "of": self.of, "mean": self.mean, "max": self.most}


@dataclass(frozen=True)
class Telemetry:
    """Over the windows of a level, None and empty where nothing was read. unmeasured: why, by sampler.

    power: mean of all GPUs that serve together, watts; power_most: the most at one reading. energy: joules that they
    took. per_token: joules per generated token. busy: mean share of the time in which a kernel ran. slowed: share of
    the readings at which a GPU ran slower than it could, by its own word (power cap, heat, power brake).
    """

    readings: tuple[TelemetryFigure, ...] = ()
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    power: float | None = None
    power_most: float | None = None
    energy: float | None = None
    per_token: float | None = None
    busy: float | None = None
    slowed: float | None = None

    def mean(self, name: str) -> float | None:
        """Over all things that have this figure; None without one."""
        found = [each.mean for each in self.readings if each.name == name]
        return sum(found) / len(found) if found else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "gpu": {
                "power_watts_mean": self.power,
                "power_watts_max": self.power_most,
                "energy_joules": self.energy,
                "joules_per_output_token": self.per_token,
                "busy_ratio_mean": self.busy,
                "slowed_ratio": self.slowed,
            },
            "readings": [each.as_dict() for each in self.readings],
            "not_measured": dict(self.unmeasured),
        }


NOTHING_READ = Telemetry()
_COUNTER = "_total"
MOST_POINTS = 240


def telemetry(
    samples: ServerSamples, windows: tuple[Window, ...], tokens: float, span: tuple[float, float] | None = None
) -> Telemetry:
    """tokens: generated in the windows; NaN where they are not told. span: of the level, whose points are kept."""
    readings = tuple(
        reading
        for key, series in samples.series.items()
        if _telemetric(key) and (reading := _reading(key, series, windows, span)) is not None
    )
    power = _together(samples.each("gpu_power_watts"), windows)
    energy = _energy(samples, windows)
    per_token = energy / tokens if energy is not None and tokens > 0 else None
    draft = Telemetry(readings, samples.unmeasured)
    return Telemetry(
        readings,
        samples.unmeasured,
        power=float(power.mean()) if len(power) else None,
        power_most=float(power.max()) if len(power) else None,
        energy=energy,
        per_token=per_token,
        busy=draft.mean("gpu_busy_ratio"),
        slowed=draft.mean("gpu_slowed_ratio"),
    )


def _telemetric(key: str) -> bool:
    """Whether a series is of a thing beside the engine: by its unit, which the engine's shared names do not have."""
    name = key.partition("{")[0]
    return name.endswith(("_ratio", "_watts", "_bytes", "_hertz")) and not name.endswith(_COUNTER)


def _reading(
    key: str, series: Series, windows: tuple[Window, ...], span: tuple[float, float] | None
) -> TelemetryFigure | None:
    values = _inside(series, windows)[1]
    if not len(values):
        return None
    name, _, labels = key.partition("{")
    points = () if span is None else _points(series, *span)
    return TelemetryFigure(name, labels.removesuffix("}"), float(values.mean()), float(values.max()), points)


def _points(series: Series, start: float, end: float) -> tuple[tuple[float, float], ...]:
    """At most MOST_POINTS readings between two moments: of more, the means of neighbours."""
    chosen = (series[0] >= start) & (series[0] <= end)
    moments, values = series[0][chosen], series[1][chosen]
    every = -(-len(values) // MOST_POINTS) or 1
    edges = np.arange(0, len(values), every)
    if every > 1:
        counts = np.diff([*edges, len(values)])
        moments, values = np.add.reduceat(moments, edges) / counts, np.add.reduceat(values, edges) / counts
    return tuple(zip(moments.tolist(), values.tolist()))


def _inside(series: Series, windows: tuple[Window, ...]) -> Series:
    moments, values = series
    chosen = np.logical_or.reduce([each.holds(moments) for each in windows]) if windows else moments < 0
    return moments[chosen], values[chosen]


def _together(each: list[Series], windows: tuple[Window, ...]) -> Floats:
    """The sum over several GPUs at each reading; they are read at one moment."""
    inside = [_inside(series, windows) for series in each]
    length = min((len(values) for _, values in inside), default=0)
    return np.sum([values[:length] for _, values in inside], axis=0) if length else np.empty(0)


def _energy(samples: ServerSamples, windows: tuple[Window, ...]) -> float | None:
    """Joules in the windows: by the GPUs' own counters where all have one, else by their power over time."""
    power, counters = samples.each("gpu_power_watts"), samples.each("gpu_energy_joules_total")
    every, of = (counters, counted) if counters and len(counters) >= len(power) else (power, integrated)
    found = [of(series, each.start, each.end) for series in every for each in windows]
    return None if not found or None in found else sum(each for each in found if each is not None)


def counted(series: Series, start: float, end: float) -> float | None:
    """By how much a counter grew between two moments, linear between its readings; None where they lie outside."""
    return _between(series, start, end, lambda moments, values: float(values[-1] - values[0]))


def integrated(series: Series, start: float, end: float) -> float | None:
    """The integral of a gauge between two moments by the trapezoidal rule; None where they lie outside its readings."""

    def area(moments: Floats, values: Floats) -> float:
        return float(((values[1:] + values[:-1]) / 2 * np.diff(moments)).sum())

    return _between(series, start, end, area)


_EDGE = 2.0  # seconds by which the readings may begin late or end early: two of them


def _between(series: Series, start: float, end: float, of: Callable[[Floats, Floats], float]) -> float | None:
    moments, values = series
    if len(moments) < 2 or end <= start or moments[0] > start + _EDGE or moments[-1] < end - _EDGE:
        return None
    start, end = max(start, float(moments[0])), min(end, float(moments[-1]))
    middle = (moments > start) & (moments < end)
    at = np.concatenate([[start], moments[middle], [end]])
    return of(at, np.interp(at, moments, values))
