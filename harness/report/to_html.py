"""The report as one HTML file that needs nothing else: styles, scripts and data are inside."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import altair as alt
import jinja2
import vl_convert

from harness.report import content
from harness.report.charts import charts
from harness.stats.summary import Summary


def to_html(summary: Summary) -> str:
    """For people, in a browser; opens offline, in light and dark."""
    shown = charts(summary)
    specs = {f"{chart.name}-{place}": spec for chart in shown for place, spec in enumerate(chart.specs)}
    return _template().render(
        summary=summary,
        content=content,
        charts=shown,
        specs=_inert(json.dumps(specs, allow_nan=False)),
        library=_library() if shown else "",
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.from_string(files("harness.report").joinpath("report.html.j2").read_text(encoding="utf-8"))


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from the package that carries them."""
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    script: Any = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    return _inert_script(script)


def _inert(text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return text.replace("<", "\\u003c")


def _inert_script(text: str) -> str:
    return text.replace("</script", "<\\/script")
