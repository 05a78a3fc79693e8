"""`harness report`: makes the reports of folders that are there already: runs, killed ones too, searches and probes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from harness.drive.kinds import KINDS, kind_of
from harness.drive.reports import write_charts, write_reports
from harness.measure.run_folder import RunFolder, repeats_in
from harness.report.formats import Format, find_format
from harness.report.side_by_side import side_by_side
from harness.stats.money import NOTHING_ASKED, MoneyQuestion

SIDE_BY_SIDE = ("html", "markdown")


def report(
    folders: Sequence[Path],
    formats: Sequence[str] | None = None,
    output: Path | None = None,
    charts: Path | None = None,
    asked: MoneyQuestion = NOTHING_ASKED,
) -> list[Path]:
    """Write the report of one folder, or one report of several side by side; the paths written.

    formats: names of report.FORMATS; None: those of the kind. output: a folder for them; None writes into the folder
    itself, or for several into a new one under reports/. charts: a folder for each chart as SVG and PNG. asked: what is
    to be known of money and size. Raises UsageError for a folder that is none of drive.KINDS.
    """
    wanted = [find_format(name) for each in formats or () for name in each.split(",")]
    paths = [each for folder in folders for each in repeats_in(Path(folder))]
    kinds = [kind_of(path) for path in paths]
    documents = [kind.read(path, asked) for kind, path in zip(kinds, paths, strict=True)]
    if len(documents) == 1:
        document, kind = documents[0], kinds[0]
        chosen, where = wanted or _formats(kind.formats), output or paths[0]
    else:
        document, kind = side_by_side(documents), KINDS[0]
        chosen, where = wanted or _formats(SIDE_BY_SIDE), output or _new_folder()
    written = write_reports(document, chosen, where, kind.file)
    return written + (write_charts(document, charts) if charts is not None else [])


def _formats(names: Sequence[str]) -> list[Format]:
    return [find_format(name) for name in names]


def _new_folder() -> Path:
    """Under reports/, named by the second."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return RunFolder.create_beside(Path("reports") / f"{stamp}-side-by-side").path
