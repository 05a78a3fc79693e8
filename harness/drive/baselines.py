"""Stored repeats to compare with: a folder per baseline holds their figures, and baseline.json what they are of.

A baseline holds for one question put to one service: model, engine, image, GPU, workload and load. What differs is
named, and compared only where it was allowed.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness.drive.baseline_store import FILE, NAME, Store
from harness.errors import UsageError
from harness.input_files import as_type, read_json_object
from harness.measure.run import read_run, read_runs
from harness.measure.run_folder import RunFolder, read_manifest, repeats_in, utc_text, write_atomically
from harness.stats.comparable import fit_runs, not_the_same_question, not_the_same_service, question_of, service_of
from harness.stats.compare import the_same_run
from harness.stats.history import Point, mistake_of, point_of
from harness.stats.kept_figures import kept_figures, kept_run
from harness.stats.run_figures import RecordedRun, RunFigures, recorded
from harness.stats.spread import spreads_of

SCHEMA = 1
LEAST = 3  # runs: of fewer nobody can tell how much they differ
_SPREAD_MOST = 1e6
_KEPT = ("manifest", "summary")
_RECORDS = ("records", "client")


@dataclass(frozen=True)
class BaselineVersion:
    """One time that the baseline was saved. at: UTC. runs: their ids. reason: why it replaced the one before. point:
    its figures, which stay when the runs are replaced.
    """

    at: str
    runs: list[str]
    reason: str | None = None
    point: Point | None = None


@dataclass(frozen=True)
class Baseline:
    """What baseline.json says. key: what must be the same. spreads: [load, figure, share] between the runs."""

    name: str
    key: dict[str, Any]
    spreads: list[tuple[str, str, float]]
    saved: list[BaselineVersion]
    schema: int = SCHEMA


def save(
    name: str,
    paths: Sequence[Path],
    store: Store,
    *,
    reason: str | None = None,
    replace: bool = False,
    records: bool = False,
) -> tuple[Baseline, str | None]:
    """Keep these runs under the name; the baseline, and what is left to do, if anything. replace: in place of those
    that are there. records: keep the runs' records too, from which a report can be made again. Raises UsageError for
    runs that could not be compared with: fewer than three, incomplete, invalid, or of different questions.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"expected letters, digits, '.', '_' and '-', found {name!r}", where="NAME")
    place = store.folder(name)
    if place is not None and not replace:
        advice = f"`harness baseline promote {name} RUN...` replaces it."
        raise UsageError(f"there is a baseline {name!r} already", where=str(store), advice=advice)
    if place is None and replace:
        advice = f"`harness baseline save {name} RUN...` makes it."
        raise UsageError(f"no baseline {name!r}", where=str(store), advice=advice)
    before = load(name, store) if place is not None else None
    runs = recorded(read_runs(paths))
    _require_fit(runs)
    ids = [run.manifest.run_id for run in runs]
    now = BaselineVersion(utc_text(datetime.now(timezone.utc)), ids, reason, point_of(runs, f"baseline {name}"))
    found = Baseline(
        name,
        _key(runs[0]),
        [(load, figure, math.expm1(each.deviation)) for (load, figure), each in spreads_of(runs).items()],
        [*(before.saved if before else []), now],
    )
    with tempfile.TemporaryDirectory() as made:
        _write(found, runs, Path(made), records)
        return found, store.put(name, Path(made), place)


def _write(baseline: Baseline, runs: Sequence[RecordedRun], folder: Path, records: bool) -> None:
    figures = [None] * len(runs) if records else kept_figures(runs)
    for number, (run, document) in enumerate(zip(runs, figures, strict=True)):
        source, target = run.run.folder, RunFolder(folder / f"repeat-{number:02}")
        target.path.mkdir()
        for each in (*_KEPT, *(_RECORDS if records else ())):
            if getattr(source, each).exists():
                shutil.copyfile(getattr(source, each), getattr(target, each))
        if document is not None:
            write_atomically(target.figures, json.dumps(document, allow_nan=False).encode())
    write_atomically(folder / FILE, json.dumps(asdict(baseline), indent=1).encode())


def load(name: str, store: Store) -> Baseline:
    """Raises UsageError where there is none, with the names that there are."""
    path = _folder(name, store) / FILE
    document = read_json_object(path)
    if document.get("schema") != SCHEMA:
        raise UsageError("is a baseline of another version of harness", where=str(path), advice="Save it again.")
    found = as_type(Baseline, document, path)
    points = [each.point for each in found.saved if each.point is not None]
    wrong = "saved: nothing" if not found.saved else next(filter(None, map(mistake_of, points)), None)
    if wrong is None and not all(0 <= share <= _SPREAD_MOST for _, _, share in found.spreads):
        wrong = "spreads: a share is beyond all bounds"
    if wrong is not None:
        raise UsageError(f"not as expected: {wrong}", where=str(path), advice="Save it again.")
    return found


def _folder(name: str, store: Store) -> Path:
    place = store.folder(name)
    if place is None or not (place / FILE).exists():
        known = ", ".join(store.names()) or "none"
        raise UsageError(f"no baseline {name!r}", where=str(store), advice=f"Known: {known}.")
    return place


def every(store: Store) -> list[Baseline]:
    """All baselines, by name."""
    return [load(name, store) for name in store.names()]


def runs_of(name: str, store: Store) -> list[RunFigures]:
    """What later runs are compared with. Raises UsageError where there is no such baseline."""
    load(name, store)
    return [_figures_of(RunFolder.open(each)) for each in repeats_in(_folder(name, store))]


def _figures_of(folder: RunFolder) -> RunFigures:
    """From the records where they are kept: what reads them computes anew."""
    if folder.records.exists() or not folder.figures.exists():
        return RecordedRun(read_run(folder))
    return kept_run(folder.path, read_manifest(folder), read_json_object(folder.figures), folder.figures)


def _key(run: RecordedRun) -> dict[str, Any]:
    """The service and the question. Whether one is emulated and the other not is for `compare` to refuse, always."""
    asked = question_of(run.manifest)
    return {**service_of(run.manifest), **{name: parts for name, parts in asked.items() if name != "emulated"}}


def _require_fit(runs: Sequence[RecordedRun]) -> None:
    if len(runs) < LEAST:
        advice = "`harness bench --repeat 5` makes them."
        raise UsageError(f"a baseline needs at least {LEAST} runs, found {len(runs)}", advice=advice)
    if problems := the_same_run(runs):
        raise UsageError(problems[0], advice="Repeats are runs of their own.")
    if problems := [*not_the_same_question(runs), *not_the_same_service(runs, runs[:1], ())]:
        raise UsageError(problems[0], advice="A baseline holds repeats of one thing.")
    kept, problems, notes = fit_runs(runs, "the baseline")
    if problems or len(kept) < len(runs):
        raise UsageError((problems or notes)[0], advice="A baseline is made of valid runs.")
