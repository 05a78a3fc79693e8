"""How latencies were distributed: the whole curve, not only its quantiles."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.document import Axis, Chart, Mark, Paragraph, Section, Series
from harness.report.words import load
from harness.stats.level_stats import LevelStats
from harness.stats.summary import Summary
from harness.units import format_duration, format_percent

BELOW_MEDIAN = 30.0  # times smaller than the smallest median: what is less is not drawn but said
_SAID = 6  # levels whose quantiles are put into words


def section(summary: Summary) -> Section | None:
    """None where no request was completed."""
    levels = [level for level in summary.levels if level.figures["e2e"].n]
    charts = [
        _chart([each for each in levels if each.figures[metric].n], metric)
        for metric in ("ttft", "itl")
        if any(each.figures[metric].n for each in levels)
    ]
    if not charts:
        return None
    how = Paragraph(
        "How much of all requests (TTFT) and of all gaps between tokens (ITL) was at most as slow as the value below.",
        soft=True,
    )
    return Section("Distribution of TTFT and ITL", (how, *charts), detail=True)


def _chart(levels: Sequence[LevelStats], metric: str) -> Chart:
    label = levels[0].figures[metric].metric.label
    bounds = [each for each in levels[0].attainment.slo.bounds if each.metric == metric]
    # Coalesced events are gaps of about nothing, which a logarithmic axis would show as decades of emptiness.
    low = min(level.figures[metric].quantiles["p50"] for level in levels) / BELOW_MEDIAN
    hidden = max(_share_below(level, metric, low) for level in levels)
    words = _said(levels, metric)
    if hidden:
        words += f" Up to {format_percent(hidden)} of a level is below {format_duration(low)} and not drawn."
    return Chart(
        name=f"{metric}-distribution",
        title=f"Distribution of {label}",
        words=words,
        x=Axis(label, "s", log=True, low=low if hidden else None),
        y=Axis("Share at or below", "share", low=0.0, high=1.0),
        series=tuple(
            Series(load(level), _points(level, metric, low if hidden else 0.0), marks="line") for level in levels
        ),
        marks=(
            *(Mark("x", each.limit, f"SLO {each.statistic}") for each in bounds),
            Mark("y", 0.5, "p50"),
            Mark("y", 0.95, "p95"),
        ),
    )


def _points(level: LevelStats, metric: str, low: float) -> tuple[tuple[float, float], ...]:
    curve = level.curves[metric]
    return tuple((value, share) for value, share in zip(curve.value, curve.share, strict=True) if value > low)


def _share_below(level: LevelStats, metric: str, low: float) -> float:
    """What of the distribution lies at or below `low`."""
    curve = level.curves[metric]
    return max((share for value, share in zip(curve.value, curve.share, strict=True) if value <= low), default=0.0)


def _said(levels: Sequence[LevelStats], metric: str) -> str:
    chosen = levels if len(levels) <= _SAID else [levels[0], levels[-1]]
    told = [(load(level), level.figures[metric].quantiles) for level in chosen]
    parts = [
        f"{name}: half within {format_duration(found['p50'])}, 95 % within {format_duration(found['p95'])}, "
        f"99 % within {format_duration(found['p99'])}"
        for name, found in told
    ]
    return f"{'; '.join(parts)}."
