"""Stored repeats to compare with: `reports/baselines/NAME/` holds the runs, and baseline.json what they are of.

A baseline holds for one question put to one service: model, engine, image, GPU, workload and load. What differs is
named, and compared only where it was allowed.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.input_files import as_type, read_json_object
from harness.measure.run import Run, read_runs
from harness.measure.run_folder import RunFolder, utc_text, write_atomically
from harness.stats.comparable import fit_runs, not_the_same_question, question_of, service_of
from harness.stats.spread import spreads_of

SCHEMA = 1
DEFAULT_FOLDER = Path("reports") / "baselines"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
LEAST = 3  # runs: of fewer nobody can tell how much they differ
_KEPT = ("manifest", "records", "client", "summary")


@dataclass(frozen=True)
class Saved:
    """One time that the baseline was saved. at: UTC. runs: their ids. reason: why it replaced the one before."""

    at: str
    runs: list[str]
    reason: str | None = None


@dataclass(frozen=True)
class Baseline:
    """What baseline.json says. key: what must be the same. spreads: [load, figure, share] between the runs."""

    name: str
    key: dict[str, Any]
    spreads: list[tuple[str, str, float]]
    saved: list[Saved]
    schema: int = SCHEMA


def save(
    name: str, paths: Sequence[Path], folder: Path, *, reason: str | None = None, replace: bool = False
) -> Baseline:
    """Keep these runs under the name. replace: in place of those that are there. Raises UsageError for runs that could
    not be compared with: fewer than three, incomplete, invalid, or of different questions.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"expected letters, digits, '.', '_' and '-', found {name!r}", where="NAME")
    place = folder / name
    before = load(name, folder) if place.exists() else None
    if before is not None and not replace:
        advice = f"`harness baseline promote {name} RUN...` replaces it."
        raise UsageError("there is such a baseline already", where=str(place), advice=advice)
    if before is None and replace:
        raise UsageError(
            "no such baseline", where=str(place), advice=f"`harness baseline save {name} RUN...` makes it."
        )
    runs = read_runs(paths)
    _require_fit(runs)
    now = Saved(utc_text(datetime.now(timezone.utc)), [run.manifest.run_id for run in runs], reason)
    found = Baseline(
        name,
        _key(runs[0]),
        [(load, figure, math.expm1(each.deviation)) for (load, figure), each in spreads_of(runs).items()],
        [*(before.saved if before else []), now],
    )
    fresh = folder / f".{name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    for number, run in enumerate(runs):
        target = RunFolder(fresh / f"repeat-{number:02}")
        target.path.mkdir(parents=True)
        for each in _KEPT:
            if (source := getattr(run.folder, each)).exists():
                shutil.copyfile(source, getattr(target, each))
    write_atomically(fresh / "baseline.json", json.dumps(asdict(found), indent=1).encode())
    old = folder / f".{name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():  # whatever happens in between, one of the two stays
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)
    return found


def load(name: str, folder: Path) -> Baseline:
    """Raises UsageError where there is none, with the names that there are."""
    path = folder / name / "baseline.json"
    if not path.exists():
        known = ", ".join(each.name for each in every(folder)) or "none"
        raise UsageError(f"no baseline {name!r}", where=str(folder), advice=f"Known: {known}.")
    document = read_json_object(path)
    if document.get("schema") != SCHEMA:
        raise UsageError("is a baseline of another version of harness", where=str(path), advice="Save it again.")
    return as_type(Baseline, document, path)


def every(folder: Path) -> list[Baseline]:
    """All baselines of a folder, by name."""
    if not folder.is_dir():
        return []
    return [
        load(each.name, folder)
        for each in sorted(folder.iterdir())
        if NAME.fullmatch(each.name) and (each / "baseline.json").exists()
    ]


def runs_of(name: str, folder: Path) -> list[Run]:
    """What later runs are compared with. Raises UsageError where there is no such baseline."""
    load(name, folder)
    return read_runs([folder / name])


def _key(run: Run) -> dict[str, Any]:
    """The service and the question. Whether one is emulated and the other not is for `compare` to refuse, always."""
    return {**service_of(run), **{name: parts for name, parts in question_of(run).items() if name != "emulated"}}


def _require_fit(runs: Sequence[Run]) -> None:
    if len(runs) < LEAST:
        advice = "`harness bench --repeat 5` makes them."
        raise UsageError(f"a baseline needs at least {LEAST} runs, found {len(runs)}", advice=advice)
    if problems := not_the_same_question(runs):
        raise UsageError(problems[0], advice="A baseline holds repeats of one thing.")
    kept, problems, notes = fit_runs(runs, "the baseline")
    if problems or len(kept) < len(runs):
        raise UsageError((problems or notes)[0], advice="A baseline is made of valid runs.")
