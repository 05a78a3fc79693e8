"""`harness history`: figures of many runs over time, on one page and in formats for other tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.drive import baselines
from harness.drive.baseline_store import store_at
from harness.drive.history import DEFAULT_FOLDER, read_history
from harness.drive.reports import write_text
from harness.errors import UsageError
from harness.report.formats import FORMATS
from harness.report.history import history_document
from harness.report.history_exports import EXPORTS
from harness.report.to_text import to_text
from harness.stats.history import History

DEFAULT_FORMATS = ("html", "markdown")


@dataclass(frozen=True)
class HistoryResult:
    """paths: what was written."""

    history: History
    paths: tuple[Path, ...]

    def as_json(self) -> dict[str, Any]:
        return {**self.history.as_dict(), "paths": [str(path) for path in self.paths]}

    def as_text(self) -> str:
        return "\n".join([to_text(history_document(self.history)), "", *map(str, self.paths)])


def history(
    name: str | None,
    folders: Sequence[Path],
    progress: Callable[[str], None],
    *,
    formats: Sequence[str] | None = None,
    output: Path | None = None,
    store: str | None = None,
) -> HistoryResult:
    """Write the pages of all runs beneath the folders. name: only what this baseline is of. formats: of FORMATS and
    EXPORTS. output: the folder of what is written. Raises UsageError.
    """
    chosen = [each.strip() for text in formats or DEFAULT_FORMATS for each in text.split(",")]
    known = {form.name: form for form in FORMATS if form.name != "text"}
    for each in chosen:
        if each not in known and each not in EXPORTS:
            raise UsageError(f"unknown format {each!r}", advice=f"Known: {', '.join([*known, *EXPORTS])}.")
    places = list(folders) or [DEFAULT_FOLDER]
    for place in places:
        if folders and not place.is_dir():
            raise UsageError("no such folder", where=str(place))
    place_of_baselines = store_at(store)
    kept = baselines.every(place_of_baselines)
    if name is not None:
        baselines.load(name, place_of_baselines)
    found = read_history(places, kept, progress, name)
    document, folder = history_document(found), output or DEFAULT_FOLDER / "history"
    paths = []
    for each in dict.fromkeys(chosen):
        texts = (
            [(f"history.{known[each].file.rpartition('.')[2]}", known[each].render(document))]
            if each in known
            else [(file, export(found)) for file, export in EXPORTS[each]]
        )
        paths += [write_text(folder / file, text) for file, text in texts]
    return HistoryResult(found, tuple(paths))
