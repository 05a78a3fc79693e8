"""Each bound of the SLO at the level nearest to the answer, with the margin that is left."""

from __future__ import annotations

from harness.report.capacity.subject import SearchReport
from harness.report.capacity_text import load_of
from harness.report.document import Paragraph, Section, Table
from harness.stats.outcome import Outcome
from harness.units import format_count, format_duration, format_percent

_WORDS = {"holds": "holds", "breaks": "breaks", "undecided": "not decided"}
_COLUMNS = ("History", "At", "Bound", "Limit", "Within the limit", "Needed", "Margin", "Decision")


def section(searched: SearchReport) -> Section | None:
    """Of each history; None where nothing was measured."""
    rows = []
    for each in searched.report.histories:
        outcome = _nearest(each.search.counted, each.answer.holds or each.answer.best or 0.0)
        for share in outcome.shares if outcome is not None else ():
            low, high = share.interval
            margin = (share.share - share.needed) * 100
            rows.append((
                "as asked" if each.history is None else format_count(each.history),
                load_of(outcome.offered, searched.report.unit) if outcome is not None else "",
                share.bound.name,
                format_duration(share.bound.limit),
                f"{format_percent(share.share)} ({format_percent(low)} to {format_percent(high)})",
                format_percent(share.needed),
                f"{margin:+.2g} points",
                _WORDS[share.decision],
            ))  # fmt: skip
    if not rows:
        return None
    how = "In brackets: 95 % interval of the share. Margin: how far the share is from the one that is needed."
    return Section(
        "SLO and margins", (Table(_COLUMNS, tuple(rows), frozenset((3, 4, 5, 6))), Paragraph(how, soft=True))
    )


def _nearest(told: list[Outcome], load: float) -> Outcome | None:
    """The level nearest to a load; of several there the one with most independent samples behind it."""
    known = [(abs(each.offered - load), -each.attainment.size, each) for each in told if each.attainment is not None]
    return min(known, key=lambda each: each[:2])[2] if known else None
