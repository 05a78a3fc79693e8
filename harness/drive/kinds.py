"""KINDS: the kinds of folders that a report can be made of, each recognised by a file in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.drive.capacity_book import FILE as CAPACITY
from harness.drive.reports import DEFAULT_FORMATS, summary_of, write_reports
from harness.errors import UsageError
from harness.input_files import read_json_object, require_finite
from harness.measure.run import read_run
from harness.measure.run_folder import Manifest, RunFolder, read_manifest
from harness.probe.file import NAME as PROBE
from harness.probe.file import read_probe
from harness.report.capacity import capacity_document
from harness.report.capacity.subject import SearchReport
from harness.report.document import Document
from harness.report.formats import Format, find_format
from harness.report.probe import probe_document
from harness.report.run import run_document
from harness.stats.capacity_file import capacity_from, require_sound
from harness.stats.money import NOTHING_ASKED, MoneyQuestion


@dataclass(frozen=True)
class FolderKind:
    """marked_by: the file that shows what a folder holds. read: its report, from the folder, with what is asked of
    money. stem: of the names of its reports. formats: those that are made unless others are asked for.
    """

    marked_by: str
    read: Callable[[Path, MoneyQuestion], Document]
    stem: str = "report"
    formats: tuple[str, ...] = ("html", "markdown")

    def file(self, form: Format) -> str:
        """The JSON form is the file that marks the folder, but of a run."""
        if form.name == "json" and self.marked_by != "manifest.json":
            return self.marked_by
        return form.file.replace("report", self.stem)


def _run(folder: Path, asked: MoneyQuestion) -> Document:
    return run_document(summary_of(read_run(RunFolder.open(folder)), asked))


def _capacity(folder: Path, asked: MoneyQuestion) -> Document:
    path = folder / CAPACITY
    document, manifest = read_json_object(path), _manifest(folder)
    require_finite(document, path)
    require_sound(document, path)
    try:
        report = capacity_from(document, manifest.gpus if manifest is not None else 1, asked)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, ZeroDivisionError) as error:
        found = f"cannot be read: {error!r}" if isinstance(error, KeyError) else f"cannot be read: {error}"
        raise UsageError(found, where=str(path), advice="Name a folder that `harness capacity` wrote.") from error
    return capacity_document(SearchReport(report, {**document, **report.as_dict()}, manifest, folder.resolve().name))


def _manifest(folder: Path) -> Manifest | None:
    """Of the run in the folder that began last."""
    runs = [each for each in sorted(folder.iterdir()) if (each / "manifest.json").is_file()]
    told = [read_manifest(RunFolder(each)) for each in runs]
    return max(told, key=lambda manifest: manifest.start, default=None)


def _probe(folder: Path, asked: MoneyQuestion) -> Document:
    return probe_document(read_probe(folder), folder.resolve().name)


# A new kind is a function that reads a folder, and one line here.
KINDS: tuple[FolderKind, ...] = (
    FolderKind("manifest.json", _run, formats=DEFAULT_FORMATS),
    FolderKind(CAPACITY, _capacity),
    FolderKind(PROBE, _probe, stem="probe", formats=("html",)),
)


def kind_of(folder: Path) -> FolderKind:
    """Raises UsageError for a folder that holds none of them."""
    advice = "Name a folder that `harness bench`, `capacity` or `probe` wrote."
    if not folder.is_dir():
        raise UsageError("no such run folder", where=str(folder), advice=advice)
    for kind in KINDS:
        if (folder / kind.marked_by).is_file():
            return kind
    found = " and no ".join(kind.marked_by for kind in KINDS)
    raise UsageError(f"holds no {found}", where=str(folder), advice=advice)


def write_page(folder: Path) -> list[Path]:
    """The reports that a kind has by default, made in the folder itself; the paths written."""
    kind = kind_of(folder)
    return write_reports(
        kind.read(folder, NOTHING_ASKED), [find_format(name) for name in kind.formats], folder, kind.file
    )
