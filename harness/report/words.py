"""Figures of a level as texts, with units and, where there is no figure, the reason."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from harness.measure.run_folder import Manifest
from harness.report.document import NOTHING
from harness.stats.figure import Figure
from harness.stats.level_stats import LevelStats
from harness.units import format_count, format_duration, format_number, format_percent


def load(level: LevelStats) -> str:
    """`4 users`, `2.5 requests/s`, `all levels`."""
    if level.users is not None:
        return "1 user" if level.users == 1 else f"{format_count(level.users)} users"
    if level.offered_rate is not None:
        what = "requests" if level.conversations is None else "conversations"
        return f"{format_number(level.offered_rate)} {what}/s"
    return "all levels"


def gpus(manifest: Manifest) -> str:
    """`L4`, `2 x H100`; empty where it is not known."""
    return f"{manifest.gpus} x {manifest.gpu}" if manifest.gpu and manifest.gpus > 1 else manifest.gpu or ""


def loads(levels: Sequence[LevelStats]) -> str:
    """`8 users`, `2, 8 and 16 users`, `1 to 64 users`; of unlike kinds how many there are."""
    texts = list(dict.fromkeys(load(level) for level in levels))
    units = {text.partition(" ")[2].removesuffix("s") for text in texts}
    if len(texts) == 1 or len(units) > 1:
        return texts[0] if len(texts) == 1 else plural(len(texts), "level")
    numbers, unit = [text.partition(" ")[0] for text in texts], texts[-1].partition(" ")[2]
    return f"{listed(numbers) if len(numbers) <= 4 else f'{numbers[0]} to {numbers[-1]}'} {unit}"


def moment(utc: str) -> str:
    """`2026-05-04 12:00 UTC`, to the minute."""
    return f"{utc[:10]} {utc[11:16]} UTC" if len(utc) >= 16 and utc[10] == "T" else utc


def rate(level: LevelStats, tokens: float) -> str:
    """Tokens per second; `not told` where the server told no counts."""
    return "not told" if math.isnan(tokens) and level.seconds else format_number(tokens)


def value(figure: Figure, statistic: str) -> str:
    """A duration; where there is none, why, in a word."""
    return figure.absent.word if figure.absent is not None else format_duration(figure.value(statistic))


def with_interval(figure: Figure, statistic: str) -> str:
    """`812 ms (790–840)`: the quantile and its 95 % interval, `or more` where the data gives it no upper end."""
    if figure.n == 0:
        return NOTHING if figure.absent is None else figure.absent.word
    return f"{format_duration(figure.value(statistic))} ({interval(figure, statistic)})"


def interval(figure: Figure, statistic: str) -> str:
    """`790–840`: its ends, with their units unless all have that of the figure itself."""
    found, (low, high) = figure.value(statistic), figure.ci95[statistic]
    ends = [format_duration(end) for end in (low, high) if not math.isinf(end)]
    units = {text.partition(" ")[2] for text in [format_duration(found), *ends]}
    if len(units) == 1 and " " not in next(iter(units)):  # `3 min 20 s` has two
        ends = [text.partition(" ")[0] for text in ends]
    return f"{ends[0]} or more" if math.isinf(high) else "–".join(ends)


def shares(level: LevelStats) -> str:
    """`96.8 % within ttft_p95 (92.1 % to 99.0 %, 95.0 % needed)` of every bound that is measured and not decided."""
    open_ones = [each for each in level.shares if each.decision == "undecided" and not math.isnan(each.share)]
    return ", ".join(
        f"{format_percent(each.share)} within {each.bound.name} ({format_percent(each.interval[0])} to "
        f"{format_percent(each.interval[1])}, {format_percent(each.needed)} needed)"
        for each in open_ones
    )


def why_not(level: LevelStats) -> str:
    """Which bounds broke, or why the level is invalid."""
    broken = [each for each in level.attainment.bounds if each.holds is False]
    measured = [f"{each.bound.name} was {format_duration(each.found)}" for each in broken if each.found < float("inf")]
    lost = [each.bound.name for each in broken if each.found == float("inf")]
    if lost:
        measured.append(f"too many requests failed for {' and '.join(lost)} to hold")
    if measured:
        return ", ".join(measured)
    return "; ".join(reason.found for reason in level.reasons) or unjudged(level)


def unjudged(level: LevelStats) -> str:
    """Which bounds cannot be judged, and why; empty where all can."""
    causes: dict[str, list[str]] = {}
    for each in level.attainment.bounds:
        if each.cause is not None:
            causes.setdefault(each.cause.text, []).append(each.bound.name)
    return "; ".join(f"{text} ({', '.join(names)})" for text, names in causes.items())


def listed(words: Iterable[str]) -> str:
    """`a, b and c`."""
    parts = list(words)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def plural(count: float, word: str) -> str:
    """`1 level`, `3 levels`."""
    return f"{format_count(count)} {word}{'' if count == 1 else 's'}"
