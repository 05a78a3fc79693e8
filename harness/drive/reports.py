"""Writes a run's summary and reports, in its folder or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from harness.measure.run import Run
from harness.measure.run_folder import write_atomically
from harness.measure.server import read_server
from harness.redaction import redact
from harness.report.document import Document
from harness.report.formats import FORMATS, Format
from harness.report.run import run_document
from harness.stats.money import NOTHING_ASKED, MoneyQuestion
from harness.stats.summary import Summary, summarise

DEFAULT_FORMATS = ("html", "markdown", "json")


def summary_of(run: Run, asked: MoneyQuestion = NOTHING_ASKED) -> Summary:
    """What a run amounts to."""
    return summarise(run.records, run.manifest, run.facts, read_server(run.folder, run.manifest.complete), asked)


def write_reports(
    document: Document, formats: Sequence[Format], folder: Path, named: Callable[[Format], str] = lambda form: form.file
) -> list[Path]:
    """One file per format, each replaced in one step; the paths written. named: what the file of a format is called."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for each in sorted(formats, key=lambda form: form.name != "json"):  # the small and most needed first: space may end
        paths.append(write_text(folder / named(each), each.render(document)))
    return paths


def write_text(path: Path, text: str) -> Path:
    """In one step and without secrets; the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, redact(text).encode("utf-8", "backslashreplace"))
    return path


def write_charts(document: Document, folder: Path) -> list[Path]:
    """Each chart as SVG and as PNG, named after it; the paths written."""
    from harness.report.drawing import WIDE, png, svg  # a second to load, which only those wait for who draw

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for chart in document.charts():
        for ending, content in (("svg", svg(chart, WIDE).encode()), ("png", png(chart))):
            paths.append(folder / f"{chart.name}.{ending}")
            write_atomically(paths[-1], content)
    return paths


def finish(run: Run, with_reports: bool = True) -> Summary:
    """At the end of a load: summary.json, and unless told otherwise the reports for people, in the run's folder."""
    summary = summary_of(run)
    names = DEFAULT_FORMATS if with_reports else ("json",)
    write_reports(run_document(summary), [each for each in FORMATS if each.name in names], run.folder.path)
    return summary
