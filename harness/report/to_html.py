"""The report as one HTML file that needs nothing else: styles and pictures are inside, and it has no script at all."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

import jinja2
from markupsafe import Markup

from harness.report.document import Chart, Document, Table
from harness.report.drawing import COLOURS, NARROW, WIDE, narrowed, svg

MANY, SOME = 8, 3  # columns above which a table becomes a list of rows on a screen narrower than a desk's, and a phone


def to_html(document: Document) -> str:
    """For people, in a browser, on paper and on a phone; opens offline, in light and dark."""
    return _template().render(document=document, pictures=pictures, kind=_kind, colours=COLOURS)


def pictures(chart: Chart) -> Markup:
    """The chart as SVG; of a wide one a second picture for narrow screens."""
    if not chart.wide:
        return _inline(svg(chart, NARROW), chart.name, chart.name, "")
    return _inline(svg(chart, WIDE), chart.name, chart.name, "over-desk") + _inline(
        svg(narrowed(chart), NARROW), chart.name, f"{chart.name}-narrow", "over-phone"
    )


def _inline(picture: str, chart: str, name: str, shown: str) -> Markup:
    """With the colours of the page, ids of its own, and the width of its place."""
    for colour, value in COLOURS.items():
        picture = picture.replace(f'"{value}"', f'"var(--{colour})"')
    picture = _IDS.sub(rf"\g<1>{name}-", picture)
    size = _SIZE.search(picture)
    assert size is not None  # vl-convert writes it
    opening = f'<svg class="{shown}" viewBox="0 0 {size[1]} {size[2]}" role="img" aria-labelledby="{chart}-name">'
    return Markup(f"{opening}{picture[picture.index('>') + 1 :]}")


_SIZE = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
_IDS = re.compile(r'(\sid="|url\(#|href="#)')  # clips are numbered from 0 in every picture


def _kind(table: Table) -> str:
    """How wide it is."""
    count = len(table.columns)
    return "many" if count > MANY else "some" if count > SOME else "few"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.tests["block"] = lambda block, name: type(block).__name__ == name
    return environment.from_string(files("harness.report").joinpath("report.html.j2").read_text(encoding="utf-8"))
