"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report import content
from harness.report.content import Table
from harness.stats.summary import Summary
from harness.text import markdown


def to_markdown(summary: Summary) -> str:
    """For people, in a terminal, a pull request or a wiki."""
    answer = markdown(content.answer(summary))
    parts = [f"# {markdown(content.title(summary))}", f"Verdict: **{content.verdict(summary)}**. {answer}"]
    for notice in content.notices(summary):
        text = markdown(notice.text)
        parts.append(f"> **{text}**" if notice.kind == "bad" else f"> {text}")
        if notice.reasons:
            parts.append(table(content.reason_table(notice.reasons, summary)))
    if summary.levels:
        parts += ["## Levels", table(content.level_table(summary))]
    for section in summary.levels:
        parts += [f"## Metrics at {content.load(section)}", table(content.metric_table(section))]
    parts += ["## Requests", table(content.request_table(summary))]
    if (said := content.message_table(summary)) is not None:
        parts.append(table(said))
    if (ended := content.conversation_table(summary)) is not None:
        parts += ["## Conversations", table(ended), *map(table, content.growth_tables(summary))]
    if (engine := content.engine_table(summary)) is not None:
        parts += ["## The engine meanwhile", table(engine)]
    parts += ["## Method", "\n".join(f"- {markdown(line)}" for line in content.method(summary))]
    rows = tuple(content.facts(summary))
    parts += ["## Run", table(Table(("What", "Value"), rows))]
    return "\n\n".join(parts) + "\n"


def table(content: Table) -> str:
    """A pipe table; figures are set flush right."""
    rules = ["---:" if place in content.numbers else "---" for place in range(len(content.columns))]
    rows = [[markdown(cell) for cell in row] for row in (content.columns, *content.rows)]
    return "\n".join(_row(cells) for cells in (rows[0], rules, *rows[1:]))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
