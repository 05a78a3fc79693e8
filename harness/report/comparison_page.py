"""A comparison as a Document: the page of `harness compare --html`."""

from __future__ import annotations

from harness.report.comparison import HOW, WORDS, accepted_lines, change_table, gate_sentence
from harness.report.document import Block, Bullets, Document, Notice, Paragraph, Section, Sheet, Verdict
from harness.stats.comparison import Comparison


def comparison_document(comparison: Comparison) -> Document:
    """What a comparison's page says."""
    emulated = "Emulated runs: " if comparison.emulated else ""
    between = f"{_first(comparison.new)} against {_first(comparison.base)}"
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


def _first(names: tuple[str, ...]) -> str:
    """The first of the runs, which stands for all."""
    return names[0] if names else "nothing"


def _figures(comparison: Comparison) -> Section | None:
    if not comparison.changes:
        return None
    return Section("Figures", (change_table(comparison), Paragraph(HOW, soft=True)))


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
