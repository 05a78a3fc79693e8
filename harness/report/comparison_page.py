"""A comparison as a Document: the page of `harness compare --html`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.report.comparison import HOW, WORDS, accepted_lines, change_table, gate_sentence
from harness.report.document import (
    Axis,
    Block,
    Bullets,
    Chart,
    Document,
    Mark,
    Notice,
    Paragraph,
    Section,
    Series,
    Sheet,
    Verdict,
)
from harness.stats.comparison import Change, Comparison
from harness.units import format_number


def comparison_document(comparison: Comparison) -> Document:
    """What a comparison's page says."""
    emulated = "Emulated runs: " if comparison.emulated else ""
    between = f"{_of_all(comparison.new)} against {_of_all(comparison.base)}"
    passes = comparison.passes
    return Document(
        title=f"{emulated}NEW is {WORDS[comparison.verdict]} BASE: {between}",
        about=f"{len(comparison.base)} runs of BASE, {len(comparison.new)} of NEW",
        answer=gate_sentence(comparison),
        sections=tuple(
            section for section in (_figures(comparison), _to_know(comparison), _runs(comparison)) if section
        ),
        data=comparison.as_dict(),
        verdict=Verdict("gate holds", "good") if passes else Verdict("gate does not hold", "bad"),
        notices=tuple(Notice("bad", f"Not comparable: {problem}.") for problem in comparison.problems),
        sheet=_sheet(comparison),
        kind="comparison",
    )


def _of_all(names: tuple[str, ...]) -> str:
    """The folder that holds all of the runs, where there are several in one; else the first of them."""
    if not names:
        return "nothing"
    folders = {name.rpartition("/")[0] for name in names}
    if len(names) > 1 and len(folders) == 1 and "" not in folders:
        return folders.pop()
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _figures(comparison: Comparison) -> Section | None:
    if not comparison.changes:
        return None
    chart = _chart(comparison.changes)
    drawn: tuple[Block, ...] = () if chart is None else (Paragraph(_DRAWN, soft=True), chart)
    return Section("Figures", (*drawn, change_table(comparison), Paragraph(HOW, soft=True)))


def _chart(changes: Sequence[Change]) -> Chart | None:
    """The ratio of each figure with its interval and its limit; None where NEW never answered."""
    known = [each for each in changes if all(map(math.isfinite, (each.ratio, *each.ci95)))]
    if not known:
        return None
    lines = []
    for verdict in dict.fromkeys(each.verdict for each in known):
        rows = [(place, each) for place, each in enumerate(known) if each.verdict == verdict]
        lines.append(
            Series(
                verdict,
                tuple((each.ratio, float(place)) for place, each in rows),
                tuple((float(place), *each.ci95) for place, each in rows),
                marks="points",
            )
        )
    limits = [(each.limit_ratio, float(place)) for place, each in enumerate(known) if math.isfinite(each.limit_ratio)]
    lines.append(Series("limit", tuple(limits), hollow=frozenset(range(len(limits))), marks="points"))
    ends = [1.0, *(x for each in known for x in each.ci95), *(x for x, _ in limits)]
    room = 0.05 * (max(ends) - min(ends))
    return Chart(
        name="ratios",
        title="Each figure of NEW over that of BASE",
        words="; ".join(map(_said, known)) + ".",
        x=Axis("NEW over BASE", low=min(ends) - room, high=max(ends) + room),
        y=Axis("", names=tuple(f"{each.figure}\nat {each.load}" for each in known)),
        series=tuple(lines),
        marks=(Mark("x", 1.0, "as BASE"),),
        wide=True,
    )


def _said(change: Change) -> str:
    low, high = map(format_number, change.ci95)
    return (
        f"{change.figure} at {change.load}: {format_number(change.ratio)} times BASE ({low} to {high}), "
        f"{change.verdict}"
    )


_DRAWN = "Bars are 95 % intervals of the ratio; a hollow point is the limit of that figure."


def _to_know(comparison: Comparison) -> Section | None:
    blocks: list[Block] = []
    for heading, lines in (
        ("Accepted for a while:", accepted_lines(comparison)),
        ("Left out, as neither side has them:", comparison.left_out),
        ("To know when reading:", comparison.notes),
        ("What else differs:", comparison.differences),
    ):
        if lines:
            blocks += [Paragraph(heading), Bullets(tuple(lines))]
    return Section("To know", tuple(blocks)) if blocks else None


def _runs(comparison: Comparison) -> Section:
    lines = (*(f"BASE: {name}" for name in comparison.base), *(f"NEW: {name}" for name in comparison.new))
    return Section("Runs", (Bullets(lines),), detail=True)


def _sheet(comparison: Comparison) -> Sheet:
    """One row per figure and level; durations in seconds."""
    columns = ("load", "figure", "base", "new", "ratio", "low", "high", "verdict", "passes")
    rows = tuple(
        (each.load, each.figure, each.base, each.new, each.ratio, *each.ci95, each.verdict, each.passes)
        for each in comparison.changes
    )
    return Sheet(columns, rows)
