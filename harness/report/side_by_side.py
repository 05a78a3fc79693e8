"""Several reports on one page: runs, probes and capacity searches, of other GPUs, models, engines or histories."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.report.document import NOTHING, Axis, Block, Chart, Document, Notice, Paragraph, Section, Sheet, Table
from harness.report.money_words import usd
from harness.report.words import listed
from harness.units import format_count, format_duration, format_number, format_percent

_NAMED_BY = ("GPU", "Model", "Engine", "Asked")
MOST_LINES = 8  # of one chart, as there are colours: more lines become a second one


def side_by_side(documents: Sequence[Document]) -> Document:
    """One document of at least two. Emulated ones are named so in the title, as everywhere."""
    names = labels(documents)
    emulated = [name for name, each in zip(names, documents, strict=True) if each.title.startswith("Emulated")]
    mark = (
        ""
        if not emulated
        else "Emulated: "
        if len(emulated) == len(names)
        else f"Partly emulated ({listed(emulated)}): "
    )
    answers = Table(
        ("What", "Verdict", "Answer"),
        tuple(
            (name, each.verdict.word if each.verdict else NOTHING, each.answer)
            for name, each in zip(names, documents, strict=True)
        ),
    )
    sections = [
        Section("Answers", (answers,), brief=(answers,)),
        _cards(names, documents),
        *_charts(names, documents),
        *(_of_one(name, each) for name, each in zip(names, documents, strict=True)),
    ]
    return Document(
        title=f"{mark}{listed(names)} side by side",
        about=", ".join(each.name for each in documents),
        answer=_answer(names, documents),
        sections=tuple(sections),
        data={"reports": [dict(each.data) for each in documents]},
        notices=tuple(_notices(names, documents)),
        sheet=_sheet(documents),
        kind="side by side",
    )


def labels(documents: Sequence[Document]) -> list[str]:
    """A name for each: by what they differ in, else by their folder."""
    cards = [dict(each.card) for each in documents]
    chosen: list[str] = []
    for key in _NAMED_BY:
        told = {card.get(key) for card in cards}
        if len(told) > 1 and not told & {None, "not known"}:
            chosen.append(key)
        names = [" ".join(card.get(each, "") for each in chosen).strip() for card in cards]
        if len(set(names)) == len(names):
            return names
    folders = [each.name for each in documents]
    alone = len(set(folders)) == len(folders)
    return folders if alone else [f"{number}: {name}" for number, name in enumerate(folders, 1)]


def _answer(names: Sequence[str], documents: Sequence[Document]) -> str:
    """What each holds, in one sentence."""
    said = []
    for name, each in zip(names, documents, strict=True):
        card = dict(each.card)
        held = card.get("Best estimate") or card.get("Holds up to") or card.get("Largest history")
        said.append(f"{name}: {held or each.answer}")
    return f"{'; '.join(said)}.{_cheapest(names, documents)}"


# Of `cost`: what is compared, in words, and where it is. The first that two of them have.
_COSTS = (
    ("A month of GPUs for {users} users", ("fleet", "per_month")),
    ("A million generated tokens", ("per_million_output_tokens",)),
)


def _cheapest(names: Sequence[str], documents: Sequence[Document]) -> str:
    """A sentence, cheapest first; nothing where the cost of fewer than two is known. What their capacities' intervals
    leave open is not told apart: the cost goes with one over the load.
    """
    for words, keys in _COSTS:
        known = [
            (cost, name, _range(each.data))
            for name, each in zip(names, documents, strict=True)
            if (cost := _cost(each.data, keys)) is not None
        ]
        if len(known) < 2:
            continue
        known.sort()
        (cost, _, (_, high)), (next_cost, _, (low, _)) = known[:2]
        listed_costs = ", ".join(f"{name} {usd(each)}" for each, name, _ in known)
        sure = "" if cost * high < next_cost * low else " (the first two are not told apart: their intervals overlap)"
        users = next((found for each in documents if (found := _cost(each.data, ("fleet", "users"))) is not None), 0.0)
        return f" {words.format(users=format_count(users))} costs least on {known[0][1]}: {listed_costs}{sure}."
    return ""


def _cost(data: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    found: Any = data.get("cost")
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, int | float) else None


def _range(data: Mapping[str, Any]) -> tuple[float, float]:
    """The lowest and the highest cost that a search leaves open, over the cost at its estimate; of a run, which has no
    such interval, 1.
    """
    answer = data.get("answer")
    if not isinstance(answer, Mapping) or not answer.get("best"):
        return 1.0, 1.0
    best, holds, breaks = (answer.get(key) for key in ("best", "holds", "breaks"))
    return best / breaks if breaks else 0.0, best / holds if holds else math.inf


def _notices(names: Sequence[str], documents: Sequence[Document]) -> list[Notice]:
    return [
        replace(notice, text=f"{name}: {notice.text}")
        for name, each in zip(names, documents, strict=True)
        for notice in each.notices
        if notice.kind == "bad"
    ]


def _cards(names: Sequence[str], documents: Sequence[Document]) -> Section:
    """A row for each figure that any of them has, a column for each of them."""
    cards = [dict(each.card) for each in documents]
    keys = dict.fromkeys(key for card in cards for key in card)
    rows = tuple((key, *(card.get(key, NOTHING) for card in cards)) for key in keys)
    table = Table(("Figure", *names), rows)
    return Section("Side by side", (table,))


def _charts(names: Sequence[str], documents: Sequence[Document]) -> list[Section]:
    """Charts of one name and one kind of axes are drawn as one. Of those with several lines each kind of line makes a
    chart, so that like is beside like; not of the details, as each report has many lines there.
    """
    found: dict[tuple[str, str, str, str], list[tuple[str, Chart]]] = {}
    for name, each in zip(names, documents, strict=True):
        for section in each.sections:
            for chart in section.charts():
                alone = len(chart.series) == 1
                if chart.wide or (section.detail and not alone):
                    continue
                for number, line in enumerate(chart.series):
                    kind = "" if alone else line.name
                    part = chart if alone else _of_line(chart, number)
                    found.setdefault((chart.name, chart.x.title, chart.y.title, kind), []).append((name, part))
    merged = [chart for group in found.values() if len(group) > 1 for chart in _merged(group)]
    return [Section("Curves", tuple(merged))] if merged else []


def _of_line(chart: Chart, number: int) -> Chart:
    """One line of several as a chart of its own."""
    line = chart.series[number]
    known = [point for point in line.points if math.isfinite(point[1])]
    words = "nothing known"
    if known:
        ends = [f"{_value(chart.y, y)} at {x:,.4g}" for x, y in (known[0], known[-1])]
        words = f"{' to '.join(ends)} {chart.x.title[:1].lower()}{chart.x.title[1:]}"
    others = [_plain(each.name) for each in chart.series if _plain(line.name) != _plain(each.name)]
    marks = tuple(
        mark
        for mark in chart.marks
        if _plain(mark.name) in _plain(line.name) or not any(_plain(mark.name) in other for other in others)
    )  # a bound on another figure would only make room for itself
    title = f"{chart.title}: {line.name}"
    return replace(
        chart, name=f"{chart.name}-{number + 1}", title=title, series=(line,), marks=marks, words=f"{words}."
    )


def _plain(name: str) -> str:
    """`ttft_p95` as a line is named after it, `TTFT p95`."""
    return name.lower().replace("_", " ")


def _value(axis: Axis, value: float) -> str:
    shown = {"s": format_duration, "share": format_percent}.get(axis.unit, format_number)
    return shown(value)


def _merged(group: Sequence[tuple[str, Chart]]) -> list[Chart]:
    """One chart, or several of MOST_LINES each, so that no line is left out."""
    first = group[0][1]
    parts = [group[start : start + MOST_LINES] for start in range(0, len(group), MOST_LINES)]
    common = tuple(mark for mark in first.marks if all(mark in chart.marks for _, chart in group))
    return [
        replace(
            first,
            name=first.name if number == 1 else f"{first.name}-part-{number}",
            title=first.title if len(parts) == 1 else f"{first.title} ({number} of {len(parts)})",
            series=tuple(replace(chart.series[0], name=name) for name, chart in part),
            marks=common,
            words=" ".join(f"{name}: {chart.words}" for name, chart in part),
        )
        for number, part in enumerate(parts, 1)
    ]


def _of_one(name: str, document: Document) -> Section:
    """What decides of each, without its charts and details, which its own report has."""
    blocks: list[Block] = [Paragraph(document.title), Paragraph(document.answer)]
    for section in document.sections:
        if not section.detail:
            blocks += [
                replace(block, title=block.title or section.heading) if isinstance(block, Table) else block
                for block in section.blocks
                if not isinstance(block, Chart | Paragraph)
            ]
    return Section(name, tuple(blocks), detail=True)


def _sheet(documents: Sequence[Document]) -> Sheet:
    """All rows beneath one another, with the columns that any of them has."""
    columns = tuple(dict.fromkeys(column for each in documents for column in each.sheet.columns))
    rows = []
    for each in documents:
        for row in each.sheet.rows:
            told = dict(zip(each.sheet.columns, row, strict=True))
            rows.append((each.kind, each.name, *(told.get(column) for column in columns)))
    return Sheet(("report", "name", *columns), tuple(rows))
