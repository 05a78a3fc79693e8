"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.report.document import (
    Bullets,
    Chart,
    Code,
    Document,
    Facts,
    Notice,
    Paragraph,
    Section,
    Table,
    reason_table,
)
from harness.text import markdown, visible


def to_markdown(document: Document) -> str:
    """For people, in a terminal, a pull request or a wiki."""
    parts = [f"# {markdown(document.title)}", _answer(document)]
    parts += [part for notice in document.notices for part in _notice(notice)]
    parts += [part for section in document.sections for part in _section(section)]
    return "\n\n".join(parts) + "\n"


def _answer(document: Document) -> str:
    verdict = f"Verdict: **{document.verdict.word}**. " if document.verdict else ""
    return f"{verdict}{markdown(document.answer)}"


def _section(section: Section) -> list[str]:
    parts = [part for block in section.blocks for part in _BLOCKS[type(block)](block)]
    return [f"## {markdown(section.heading)}", *parts] if parts else []


def _notice(notice: Notice) -> list[str]:
    text = markdown(notice.text)
    parts = [f"> **{text}**" if notice.kind == "bad" else f"> {text}"]
    return [*parts, table(reason_table(notice.reasons))] if notice.reasons else parts


def table(content: Table) -> str:
    """A pipe table; figures are set flush right."""
    rules = ["---:" if place in content.numbers else "---" for place in range(len(content.columns))]
    rows = [[markdown(cell) for cell in row] for row in (content.columns, *content.rows)]
    return "\n".join(_row(cells) for cells in (rows[0], rules, *rows[1:]))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(content: Table) -> list[str]:
    return [*([f"### {markdown(content.title)}"] if content.title else []), table(content)]


def _code(block: Code) -> list[str]:
    lines = [visible(line) for line in block.text.splitlines()]
    return ["\n".join(f"    {line}" for line in lines)]  # indented: nothing in it can end it


_BLOCKS: dict[type, Callable[[Any], list[str]]] = {
    Paragraph: lambda block: [markdown(block.text)],
    Bullets: lambda block: ["\n".join(f"- {markdown(line)}" for line in block.lines)],
    Table: _table,
    Facts: lambda block: [table(Table(("What", "Value"), block.pairs))],
    Code: _code,
    Chart: lambda block: [f"{markdown(block.title)}: {markdown(block.words)}"],
    Notice: _notice,
}
