"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report import content
from harness.report.content import Table
from harness.stats.summary import Summary


def to_markdown(summary: Summary) -> str:
    """For people, in a terminal, a pull request or a wiki."""
    parts = [f"# {content.title(summary)}", f"Verdict: **{content.verdict(summary)}**. {content.answer(summary)}"]
    for notice in content.notices(summary):
        parts.append(f"> **{notice.text}**" if notice.kind == "bad" else f"> {notice.text}")
        if notice.reasons:
            parts.append(table(content.reason_table(notice.reasons, summary)))
    if summary.levels:
        parts += ["## Levels", table(content.level_table(summary))]
    for section in summary.levels:
        parts += [f"## Metrics at {content.load(section)}", table(content.metric_table(section))]
    parts += ["## Requests", table(content.request_table(summary))]
    if (engine := content.engine_table(summary)) is not None:
        parts += ["## The engine meanwhile", table(engine)]
    parts += ["## Method", "\n".join(f"- {line}" for line in content.method(summary))]
    rows = tuple(content.facts(summary))
    parts += ["## Run", table(Table(("What", "Value"), rows))]
    return "\n\n".join(parts) + "\n"


def table(content: Table) -> str:
    """A pipe table; figures are set flush right."""
    rules = ["---:" if place in content.numbers else "---" for place in range(len(content.columns))]
    return "\n".join(_row(cells) for cells in (content.columns, rules, *content.rows))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
