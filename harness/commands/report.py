"""Make reports again from run folders that are there already, also from one that was killed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.measure.run import Run, read_run
from harness.measure.run_folder import RunFolder, write_atomically
from harness.measure.server import read_server
from harness.redaction import redact
from harness.report.document import Document
from harness.report.formats import FORMATS, Format, find_format
from harness.report.run import run_document
from harness.stats.summary import Summary, summarise

DEFAULT_FORMATS = ("html", "markdown", "json")


def report(runs: Sequence[Path], formats: Sequence[str] | None = None, output: Path | None = None) -> list[Path]:
    """Write reports of all runs; the paths written.

    formats: names of report.FORMATS; None writes HTML, Markdown and summary.json. output: a folder for all of them, a
    subfolder per run where there are several; None writes into each run's own folder. Raises UsageError for a folder
    that is no run.
    """
    chosen = [find_format(name) for each in formats or DEFAULT_FORMATS for name in each.split(",")]
    folders = [RunFolder.open(Path(path)) for path in runs]
    paths: list[Path] = []
    for folder in folders:
        where = folder.path if output is None else output / folder.run_id if len(folders) > 1 else output
        paths += write_reports(run_document(summary_of(read_run(folder))), chosen, where)
    return paths


def summary_of(run: Run) -> Summary:
    """What a run amounts to."""
    return summarise(run.records, run.manifest, run.facts, read_server(run.folder, run.manifest.complete))


def write_reports(document: Document, formats: Sequence[Format], folder: Path) -> list[Path]:
    """One file per format, each replaced in one step; the paths written."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for each in sorted(formats, key=lambda form: form.name != "json"):  # the small and most needed first: space may end
        path = folder / each.file
        write_atomically(path, redact(each.render(document)).encode("utf-8", "backslashreplace"))
        paths.append(path)
    return paths


def finish(run: Run, with_reports: bool = True) -> Summary:
    """At the end of a load: summary.json, and unless told otherwise the reports for people, in the run's folder."""
    summary = summary_of(run)
    names = DEFAULT_FORMATS if with_reports else ("json",)
    write_reports(run_document(summary), [each for each in FORMATS if each.name in names], run.folder.path)
    return summary
