"""Reads the points of a history: from run folders, folders of repeats, and all versions of the baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.drive.baseline_store import FILE
from harness.drive.baselines import Baseline
from harness.errors import UsageError
from harness.measure.run import read_runs
from harness.measure.run_folder import repeats_in
from harness.stats.comparable import fit_runs, not_the_same_question, not_the_same_service
from harness.stats.history import History, Point, history, point_of
from harness.stats.run_figures import recorded

DEFAULT_FOLDER = Path("reports")
DEEPEST = 3  # folders below the one that was named: `ab` keeps its repeats two below `reports`


def read_history(
    folders: Sequence[Path], kept: Sequence[Baseline], progress: Callable[[str], None], name: str | None = None
) -> History:
    """The points of all runs beneath the folders, and of all times that the baselines were saved. name: only series
    that this baseline has a point in. What cannot be a point is named with the reason, and ends nothing.
    """
    points = [each for one in kept for each in _saved(one)]
    left_out = []
    places = list(dict.fromkeys(place for folder in folders for place in _places(folder, DEEPEST)))
    progress(f"reading {len(places)} runs and folders of repeats")
    for place in places:
        try:
            points.append(_point(place))
        except UsageError as error:
            left_out.append(str(error) if str(place) in str(error) else f"{place}: {error}")
    found = history(points, left_out)
    if name is None:
        return found
    keys = [point.key for one in kept if one.name == name for point in _saved(one)]
    return History(tuple(each for each in found.series if each.key in keys), found.left_out)


def _saved(baseline: Baseline) -> Iterator[Point]:
    return (each.point for each in baseline.saved if each.point is not None)


def _places(folder: Path, deep: int) -> Iterator[Path]:
    """Each single run, and each folder of repeats."""
    if not folder.is_dir() or folder.name.startswith(".") or (folder / FILE).exists():
        return
    if (folder / "manifest.json").exists() or repeats_in(folder) != [folder]:
        yield folder
    elif deep:
        for each in sorted(folder.iterdir()):
            yield from _places(each, deep - 1)


def _point(place: Path) -> Point:
    """Raises UsageError for runs that are damaged, incomplete, invalid, or no repeats of one thing."""
    runs = recorded(read_runs([place]))
    problems = [*not_the_same_question(runs), *not_the_same_service(runs, runs[:1], ())]
    kept, unfit, _ = fit_runs(runs, str(place))
    if problems or unfit:
        raise UsageError((problems or unfit)[0], where=str(place))
    return point_of(kept, str(place))
