"""One figure of two groups of runs: its ratio, resampled, and the noise between measurements of the same thing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.measure.records import COMPLETED, Floats, Records
from harness.measure.run import Run
from harness.stats.absence import as_asked
from harness.stats.interval import Z95, student
from harness.stats.metrics import BY_NAME, Values
from harness.stats.quantile import quantile, quantiles_of_sorted
from harness.stats.resample import block_counts, grid, quantiles_on_grid, resampled_counts
from harness.stats.slo import QUANTILES
from harness.stats.tokens import stamped
from harness.stats.window import Window, steady_window

DRAWS = 2000
SEED = 20240229
THROUGHPUT = "output_tokens_per_second"
SLICES = 20  # of a window, for the spread of throughput


@dataclass(frozen=True)
class Part:
    """One level of one run. completed: requests due in the window."""

    load: str
    window: Window
    records: Records
    completed: Records


def levels_of(run: Run) -> dict[int, Part]:
    parts = {}
    whole = as_asked(run.records, run.manifest)
    for level in run.manifest.levels:
        records = whole.select(whole.level == level.level).sorted()
        if len(records):
            window = steady_window(level, records)
            inside = window.holds(records.scheduled_at) & records.having(COMPLETED)
            load = f"{level.users} users" if level.users is not None else f"{level.rate:g}/s" if level.rate else "trace"
            parts[level.level] = Part(load, window, records, records.select(inside))
    return parts


@dataclass(frozen=True)
class Ratio:
    """One figure of both sides: seconds, or tokens per second. draws: resampled ratios new / base.

    noise_floor: share by which two measurements of the same thing differ.
    """

    base: float
    new: float
    draws: Floats
    noise_floor: float


def quantile_ratio(figure: str, base: list[Part], new: list[Part]) -> Ratio | str:
    name, _, statistic = figure.rpartition("_")
    level = QUANTILES[statistic]
    sides = [[BY_NAME[name].of(part.completed) for part in side] for side in (base, new)]
    if any(len(values.samples) == 0 for side in sides for values in side):
        return f"{figure} is missing"
    ordered = [np.sort(np.concatenate([values.samples for values in side])) for side in sides]
    exact = [float(quantiles_of_sorted(each, [level])[0]) for each in ordered]
    if min(exact) <= 0:
        return f"{figure} is 0, so no ratio can be given"
    points = grid(np.sort(np.concatenate(ordered)))
    random = np.random.default_rng(SEED)
    logs = []
    for side, value in zip(sides, exact, strict=True):
        counts = [block_counts(values, points) for values in side]
        drawn = quantiles_on_grid(resampled_counts(counts, DRAWS, random), points, level)
        whole = quantiles_on_grid(np.sum([each.sum(axis=0) for each in counts], axis=0)[None, :], points, level)[0]
        # Centred on the exact value: what the grid rounds away is the same in every draw.
        # Few blocks know their own spread badly: stretched as Student's distribution is against the normal one.
        stretch = student(sum(len(each) - 1 for each in counts)) / Z95
        logs.append(stretch * (np.log(np.maximum(drawn, 1e-9)) - math.log(max(whole, 1e-9))) + math.log(value))
    halves = [[_halves(values, level) for values in side] for side in sides]
    repeats = [[quantile(values.samples, level) for values in side] for side in sides]
    return Ratio(exact[0], exact[1], np.exp(logs[1] - logs[0]), _noise(repeats, halves))


def throughput_ratio(base: list[Part], new: list[Part]) -> Ratio | str:
    """Generated tokens per second of the window; its spread from slices of the window, drawn anew."""
    sides = [[_slices(part) for part in side] for side in (base, new)]
    if any(not rates.sum() > 0 for side in sides for rates in side):
        return f"{THROUGHPUT} is missing"
    random = np.random.default_rng(SEED)
    exact = [float(np.mean([rates.mean() for rates in side])) for side in sides]
    draws = []
    for side in sides:
        drawn_runs = random.integers(len(side), size=(DRAWS, len(side)))
        means = np.stack([_resampled_means(rates, random) for rates in side], axis=1)
        draws.append(np.take_along_axis(means, drawn_runs, axis=1).mean(axis=1))
    half = SLICES // 2
    halves = [[(float(rates[:half].mean()), float(rates[half:].mean())) for rates in side] for side in sides]
    repeats = [[float(rates.mean()) for rates in side] for side in sides]
    return Ratio(exact[0], exact[1], draws[1] / draws[0], _noise(repeats, halves))


def _slices(part: Part) -> Floats:
    """Tokens per second in each slice of the window."""
    edges = np.linspace(part.window.start, part.window.end, SLICES + 1)
    moments, tokens = stamped(part.records)
    counts = np.histogram(moments, edges, weights=tokens)[0]
    return counts / max(part.window.length / SLICES, 1e-9)


def _resampled_means(rates: Floats, random: np.random.Generator) -> Floats:
    means: Floats = rates[random.integers(len(rates), size=(DRAWS, len(rates)))].mean(axis=1)
    return np.maximum(means, 1e-9)


def _halves(values: Values, level: float) -> tuple[float, float]:
    """The quantile of the first and the second half of a run's requests."""
    middle = values.request[len(values.request) // 2]
    first = values.request < middle
    if not first.any():
        return math.nan, math.nan
    return quantile(values.samples[first], level), quantile(values.samples[~first], level)


def _noise(repeats: list[list[float]], halves: list[list[tuple[float, float]]]) -> float:
    """By what share two measurements of the same thing differ.

    With repeats: Student's 95 % bound of the difference of the groups' means, from the spread within them. Without: the
    root mean square, over all runs, of what the halves of a run tell of the difference of whole ones.
    """
    groups = [np.log(side) for side in repeats]
    freedom = sum(len(group) - 1 for group in groups)
    if freedom > 0:
        variance = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / freedom
        return math.expm1(student(freedom) * math.sqrt(variance * sum(1 / len(group) for group in groups)))
    gaps = [math.log(b / a) for side in halves for a, b in side if a > 0 and b > 0]
    # Var(half 1 - half 2) = 4 Var(whole), Var(new - base) = 2 Var(whole).
    return math.expm1(math.sqrt(sum(gap * gap for gap in gaps) / len(gaps) / 2)) if gaps else 0.0
