"""The report as one HTML file that needs nothing else: styles, scripts and data are inside."""

from __future__ import annotations

import base64
import hashlib
import json
import re
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
    page = _template().render(
        policy=_POLICY,
        summary=summary,
        content=content,
        charts=shown,
        specs=_inert(json.dumps(specs, allow_nan=False)),
        library=_library() if shown else "",
    )
    return page.replace(_POLICY, _policy(page), 1)


_POLICY = "script-src of this page"  # its place, until the scripts are known


def _policy(page: str) -> str:
    """Nothing is fetched, and no script runs but those that stand here: a name or a message that became markup in spite
    of escaping would still do nothing. Vega draws with style attributes, hence `unsafe-inline` for styles.
    """
    hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in _SCRIPT.findall(page)]
    scripts = " ".join(f"'sha256-{each}'" for each in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


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
