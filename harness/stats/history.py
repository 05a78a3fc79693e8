"""Figures of many runs over time: a series per key, a trend per figure, and where it changed for good."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.measure.run_folder import is_moment
from harness.stats.change_points import FEWEST, divisions
from harness.stats.comparable import SERVICE, in_words, question_of, service_of
from harness.stats.good_share import GOOD_SHARE, STUCK, Tally, tally
from harness.stats.run_figure import THROUGHPUT
from harness.stats.run_figures import RecordedRun
from harness.stats.spread import FIGURES

# What may change from point to point of one series, and is told where it does; all else of the key parts series.
LEAST_VALUE = 1e-6  # a share may be 0, of which there is no ratio
VERSIONS = ("engine", "image_digest", "revision", "driver", "harness_version", "commit")
LEAST, MOST = 1e-12, 1e12  # seconds or tokens per second of a point: ratios of them are numbers


@dataclass(frozen=True)
class Point:
    """Repeats that were made together, or a single run. name: where they are from. starts: when each began, UTC, by
    which the same runs are known again in another place.

    service: SERVICE, and the commit. question: what was asked. figures: [load, figure, geometric mean over the runs].
    tallies: of each load, for the share of good answers; none in what earlier releases kept.
    """

    name: str
    starts: tuple[str, ...]
    emulated: bool
    service: dict[str, Any]
    question: dict[str, dict[str, str]]
    figures: tuple[tuple[str, str, float], ...]
    tallies: tuple[Tally, ...] = ()

    @property
    def at(self) -> str:
        return min(self.starts)

    @property
    def key(self) -> dict[str, Any]:
        """What must be the same along a series. The engine counts by its name, its release may change."""
        kept = {name: value for name, value in self.service.items() if name not in VERSIONS}
        return {**kept, "engine": engine_name(self.service), **self.question}


@dataclass(frozen=True)
class Shift:
    """A change for good. at: index of its first point in the series. before, after: geometric means on both sides of
    it, up to the changes beside it. p: of such a division by chance.
    """

    at: int
    before: float
    after: float
    p: float

    @property
    def ratio(self) -> float:
        return self.after / self.before


@dataclass(frozen=True)
class Trend:
    """One figure of one load. values: one per point of the series, None where the point has none."""

    load: str
    figure: str
    values: tuple[float | None, ...]
    shifts: tuple[Shift, ...]

    @property
    def can_tell(self) -> bool:
        """Whether there are points enough that a change for good would be found, however large."""
        return sum(value is not None for value in self.values) >= FEWEST

    @property
    def smaller_is_better(self) -> bool:
        return self.figure not in (THROUGHPUT, GOOD_SHARE)

    def is_worse(self, shift: Shift) -> bool:
        return (shift.ratio > 1) == self.smaller_is_better


@dataclass(frozen=True)
class Series:
    """Points of one key, oldest first."""

    key: dict[str, Any]
    points: tuple[Point, ...]
    trends: tuple[Trend, ...]

    @property
    def id(self) -> str:
        """Of the key: short, and the same for the same key."""
        return hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:8]

    def title(self, among: Sequence[Series]) -> str:
        """Model, card, engine and what is asked; of series that share these also what else tells them apart."""
        others = [each.key for each in among if each is not self and _named(each.key) == _named(self.key)]
        parting = [name for name, value in self.key.items() if any(each.get(name) != value for each in others)]
        more = [f"{name} {in_words(self.key[name])}" for name in parting]
        return ", ".join([*_named(self.key), *more])

    def news(self, at: int) -> tuple[str, ...]:
        """What of the versions is another than at the point before, in words."""
        if at == 0:
            return ()
        before, after = self.points[at - 1].service, self.points[at].service
        return tuple(
            f"{name} {before.get(name) or 'unknown'} -> {after.get(name) or 'unknown'}"
            for name in VERSIONS
            if before.get(name) != after.get(name)
        )


@dataclass(frozen=True)
class History:
    """left_out: what was found and is not a point of a series, and why."""

    series: tuple[Series, ...]
    left_out: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"series": [_series_dict(each) for each in self.series], "left_out": list(self.left_out)}


def _named(key: Mapping[str, Any]) -> tuple[str, ...]:
    """The emulated ones say so."""
    card = f"{key['model']} on {key['gpus']} x {key['gpu']}" if key["gpus"] > 1 else f"{key['model']} on {key['gpu']}"
    emulated = "emulated " if in_words(key["emulated"]) == "true" else ""
    return f"{emulated}{card if key['gpu'] else key['model']}", key["engine"], key["workload"].get("name", "")


def engine_name(service: Mapping[str, Any]) -> str:
    return str(service.get("engine") or "").partition(" ")[0]


def point_of(runs: Sequence[RecordedRun], name: str) -> Point:
    """What runs of one question amount to. A figure that not all of them have is left out."""
    manifest = runs[0].manifest
    levels = [run.levels for run in runs]
    figures, tallies = [], []
    for number in sorted(set.intersection(*(set(each) for each in levels))):
        for figure in FIGURES:
            values = [each[number].value(figure) for each in levels]
            # Of what came in bursts half of the gaps may be 0, which has no ratio to anything.
            logs = [math.log(each) for each in values if each is not None and LEAST <= each <= MOST]
            if len(logs) == len(runs):
                figures.append((levels[0][number].load, figure, math.exp(float(np.mean(logs)))))
        tallies.append(tally([each[number] for each in levels]))
    return Point(
        name=name,
        starts=tuple(run.manifest.start for run in runs),
        emulated=manifest.emulated,
        service={**service_of(manifest), "commit": manifest.commit},
        question=question_of(manifest),
        figures=tuple(figures),
        tallies=tuple(each for each in tallies if each is not None),
    )


def mistake_of(point: Point) -> str | None:
    """What no point can have though its types are right, such as one that is in a file; None where it has none."""
    if not point.starts or not all(map(is_moment, point.starts)):
        return "starts: expected moments in UTC"
    if missing := [name for name in SERVICE if name not in point.service]:
        return f"service: {missing[0]} is missing"
    gpus = point.service["gpus"]
    if not isinstance(gpus, int) or not all(isinstance(point.service[name], str) for name in ("model", "engine")):
        return "service: expected model and engine as texts, and gpus as a whole number"
    if missing := [name for name in ("workload", "emulated") if name not in point.question]:
        return f"question: {missing[0]} is missing"
    if not all(LEAST <= value <= MOST for _, _, value in point.figures):
        return "figures: a value is beyond all bounds"
    for each in point.tallies:
        counts = [count for _, count in each.steps]
        if not 0 <= each.usual <= MOST or min(counts, default=0) < 0 or not 0 < sum(counts) <= each.due:
            return "tallies: a count or a duration is beyond all bounds"
    return None


def history(points: Iterable[Point], left_out: Sequence[str] = ()) -> History:
    """Points of one key are a series; what was found twice (kept as a baseline too) is one point, the first of them."""
    once: dict[tuple[str, ...], Point] = {}
    for point in points:
        once.setdefault(tuple(sorted(point.starts)), point)
    groups: dict[str, list[Point]] = {}
    for point in sorted(once.values(), key=lambda each: (each.at, each.name)):
        groups.setdefault(json.dumps(point.key, sort_keys=True), []).append(point)
    return History(tuple(_series(each) for each in groups.values()), tuple(left_out))


def _series(points: Sequence[Point]) -> Series:
    names = dict.fromkeys((load, figure) for point in points for load, figure, _ in point.figures)
    found = [{(load, figure): value for load, figure, value in point.figures} for point in points]
    shares = _good_shares(points)
    trends = [_trend(load, GOOD_SHARE, values) for load, values in shares.items()]
    trends += [_trend(load, figure, [each.get((load, figure)) for each in found]) for load, figure in names]
    return Series(points[0].key, tuple(points), tuple(trends))


def _good_shares(points: Sequence[Point]) -> dict[str, list[float | None]]:
    """By load, the share of good answers at each point. There is no BASE: an answer is stuck that took several times as
    long as is usual at the point at the series' lower quartile, so that also a change for the worse that lasts is seen.
    """
    found: dict[str, list[float | None]] = {}
    for load in dict.fromkeys(each.load for point in points for each in point.tallies):
        tallies = [next((each for each in point.tallies if each.load == load), None) for point in points]
        bound = STUCK * float(np.quantile([each.usual for each in tallies if each is not None], 0.25, method="lower"))
        found[load] = [None if each is None else each.share(bound) for each in tallies]
    return found


def _trend(load: str, figure: str, values: Sequence[float | None]) -> Trend:
    places = [place for place, value in enumerate(values) if value is not None]
    logs = [math.log(max(value, LEAST_VALUE)) for value in values if value is not None]
    found = divisions(logs)
    edges = [0, *(each.at for each in found), len(logs)]
    shifts = tuple(
        Shift(
            places[each.at],
            math.exp(float(np.mean(logs[edges[number] : each.at]))),
            math.exp(float(np.mean(logs[each.at : edges[number + 2]]))),
            each.p,
        )
        for number, each in enumerate(found)
    )
    return Trend(load, figure, tuple(values), shifts)


def _series_dict(series: Series) -> dict[str, Any]:
    points = [
        {
            "at": point.at,
            "name": point.name,
            "runs": len(point.starts),
            **{name: point.service.get(name) for name in VERSIONS},
            "changed": list(series.news(at)),
        }
        for at, point in enumerate(series.points)
    ]
    return {
        "id": series.id,
        "key": series.key,
        "emulated": series.points[0].emulated,
        "points": points,
        "figures": [_trend_dict(trend) for trend in series.trends],
    }


def _trend_dict(trend: Trend) -> dict[str, Any]:
    shifts = [
        {
            "at": shift.at,
            "before": shift.before,
            "after": shift.after,
            "ratio": shift.ratio,
            "p": shift.p,
            "worse": trend.is_worse(shift),
        }
        for shift in trend.shifts
    ]
    return {
        "load": trend.load,
        "figure": trend.figure,
        "values": list(trend.values),
        "enough_points": trend.can_tell,
        "change_points": shifts,
    }
