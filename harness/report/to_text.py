"""The report as a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.report.document import Block, Bullets, Chart, Code, Document, Facts, Notice, Paragraph, Table
from harness.text import one_line, visible


def to_text(document: Document) -> str:
    """Title, the tables that matter, the answer, every reason not to trust it, and what else is said in brief."""
    brief = [block for section in document.sections for block in section.brief]
    lines = [one_line(document.title), ""]
    for block in brief:
        if isinstance(block, Table):
            lines += [*_lines(block), ""]
    lines.append(one_line(document.answer))
    if document.verdict is not None:
        lines.append(f"Verdict: {document.verdict.word}")
    for notice in document.notices:
        if notice.kind == "bad":
            lines += _reasons(notice)
    for block in brief:
        if not isinstance(block, Table):
            lines += _lines(block)
    return "\n".join([*lines, *(f"Note: {one_line(remark)}" for remark in document.remarks)])


def aligned(table: Table) -> list[str]:
    """Columns of equal width, figures flush right."""
    rows = [tuple(one_line(cell) for cell in row) for row in (table.columns, *table.rows)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.columns))]
    return ["  ".join(_cell(row, place, widths, table) for place in range(len(widths))).rstrip() for row in rows]


def _cell(row: tuple[str, ...], place: int, widths: list[int], table: Table) -> str:
    return row[place].rjust(widths[place]) if place in table.numbers else row[place].ljust(widths[place])


def _lines(block: Block) -> list[str]:
    return _BLOCKS[type(block)](block)


def _reasons(notice: Notice) -> list[str]:
    return [one_line(f"  {each.found} (limit: {each.limit}). {each.advice}") for each in notice.reasons]


_BLOCKS: dict[type, Callable[[Any], list[str]]] = {
    Paragraph: lambda block: [one_line(block.text)],
    Bullets: lambda block: [f"- {one_line(line)}" for line in block.lines],
    Table: lambda block: [*([one_line(block.title)] if block.title else []), *aligned(block)],
    Facts: lambda block: aligned(Table(("", ""), block.pairs))[1:],
    Code: lambda block: [f"  {visible(line)}" for line in block.text.splitlines()],
    Chart: lambda block: [one_line(f"{block.title}: {block.words}")],
    Notice: lambda block: [one_line(block.text), *_reasons(block)],
}
