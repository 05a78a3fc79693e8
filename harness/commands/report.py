"""Make reports again from run folders that are there already, also from one that was killed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.drive.reports import DEFAULT_FORMATS, summary_of, write_reports
from harness.measure.run import read_run
from harness.measure.run_folder import RunFolder
from harness.report.formats import find_format
from harness.report.run import run_document
from harness.stats.money import NOTHING_ASKED, MoneyQuestion


def report(
    runs: Sequence[Path],
    formats: Sequence[str] | None = None,
    output: Path | None = None,
    asked: MoneyQuestion = NOTHING_ASKED,
) -> list[Path]:
    """Write reports of all runs; the paths written.

    formats: names of report.FORMATS; None writes HTML, Markdown and summary.json. output: a folder for all of them, a
    subfolder per run where there are several; None writes into each run's own folder. asked: what is to be known of
    money and size. Raises UsageError for a folder that is no run.
    """
    chosen = [find_format(name) for each in formats or DEFAULT_FORMATS for name in each.split(",")]
    folders = [RunFolder.open(Path(path)) for path in runs]
    paths: list[Path] = []
    for folder in folders:
        where = folder.path if output is None else output / folder.run_id if len(folders) > 1 else output
        paths += write_reports(run_document(summary_of(read_run(folder), asked)), chosen, where)
    return paths
