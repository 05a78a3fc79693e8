"""The share within the SLO, and latency, against the load: where it breaks, and where to run."""

from __future__ import annotations

import math

from harness.report.capacity.subject import SearchReport
from harness.report.capacity_text import load_of
from harness.report.document import Axis, Chart, Mark, Paragraph, Section, Series
from harness.stats.capacity_report import HistoryCapacity, unit_words
from harness.units import format_count, format_duration, format_percent


def section(searched: SearchReport) -> Section | None:
    """A point per level; None where nothing was measured."""
    charts = [_share(searched), _latency(searched)]
    shown = tuple(chart for chart in charts if chart is not None)
    if not shown:
        return None
    lines = "The dashed lines are the share that is needed, and the limits of the SLO."
    if len(searched.report.histories) == 1:
        lines = (
            "The dashed lines are the share that is needed, and the loads that are sure to hold (run here), estimated "
            "as the limit (knee), and sure to break."
        )
    how = f"Every level that was measured. {lines}"
    return Section("Curve, knee and where to run", (Paragraph(how, soft=True), *shown))


def _name(each: HistoryCapacity) -> str:
    return "as asked" if each.history is None else f"{format_count(each.history)} tokens"


def _share(searched: SearchReport) -> Chart | None:
    series, said, needed = [], [], set()
    for each in searched.report.histories:
        told = ((outcome.offered, outcome.attainment) for outcome in each.search.counted)
        known = sorted(((load, share) for load, share in told if share is not None), key=lambda pair: pair[0])
        if not known:
            continue
        needed |= {share.needed for _, share in known}
        points = tuple((load, share.share) for load, share in known)
        intervals = tuple((load, *share.interval) for load, share in known)
        series.append(Series(_name(each), points, intervals, marks="points"))
        shares = {load: share for load, share in known}
        said.append(
            f"{_name(each)}: "
            + ", ".join(
                f"{load_of(load, searched.report.unit)} {format_percent(share.share)}" for load, share in shares.items()
            )
        )
    if not series:
        return None
    return Chart(
        name="share-by-load",
        title="Share within the bound that breaks first",
        words="; ".join(said) + ".",
        x=Axis(unit_words(searched.report.unit).capitalize(), low=0.0),
        y=Axis("Share within the bound", "share", high=1.0),
        series=tuple(series),
        marks=(*(Mark("y", each, "needed") for each in sorted(needed)), *_loads(searched)),
    )


def _loads(searched: SearchReport) -> list[Mark]:
    """Of a single history."""
    if len(searched.report.histories) > 1:
        return []
    found = searched.report.first.answer
    marks = [("run here", found.holds or None), ("knee", found.best), ("breaks", found.breaks)]
    return [Mark("x", load, name) for name, load in marks if load is not None]


def _latency(searched: SearchReport) -> Chart | None:
    series, said = [], []
    for each in searched.report.histories:
        for label, of in (("TTFT p95", "ttft_p95"), ("ITL p95", "itl_p95")):
            found = {
                outcome.offered: getattr(figures, of)
                for outcome, _, figures in each.counted
                if math.isfinite(getattr(figures, of))
            }
            if found:
                points = tuple(sorted(found.items()))
                name = label if len(searched.report.histories) == 1 else f"{label}, {_name(each)}"
                series.append(Series(name, points))
                first, last = points[0], points[-1]
                said.append(
                    f"{name} from {format_duration(first[1])} at {load_of(first[0], searched.report.unit)} to "
                    f"{format_duration(last[1])} at {load_of(last[0], searched.report.unit)}"
                )
    if not series:
        return None
    bounds = [each for each in searched.report.slo.bounds if each.metric in ("ttft", "itl")]
    return Chart(
        name="latency-by-load",
        title="TTFT and ITL by load",
        words="; ".join(said) + ".",
        x=Axis(unit_words(searched.report.unit).capitalize(), low=0.0),
        y=Axis("Latency", "s", log=None),
        series=tuple(series),
        marks=tuple(Mark("y", each.limit, each.name) for each in bounds),
    )
