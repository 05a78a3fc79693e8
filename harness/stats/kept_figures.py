"""The figures of a run without its records: all that a comparison reads, some kilobytes for each run.

Made once from the records, by the same code that a comparison uses, so that it finds the same with either. What a later
release computes in another way differs by its version, which is part of a baseline's key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UsageError
from harness.input_files import as_type
from harness.measure.records import Floats
from harness.measure.run_folder import Manifest
from harness.stats.good_share import STUCK, usual
from harness.stats.metrics import METRICS
from harness.stats.run_figure import THROUGHPUT, LevelFigures, Measured, Part
from harness.stats.run_figures import Flaws, RecordedRun
from harness.stats.slo import QUANTILES

SCHEMA = 1
EVERY = (*(f"{metric.name}_{statistic}" for metric in METRICS for statistic in QUANTILES), THROUGHPUT)


@dataclass(frozen=True)
class KeptLevel:
    """A LevelFigures. not_good: requests due that were not answered or were stuck. usual: of end-to-end over all runs
    that were kept together (good_share.usual), seconds. per_event: tokens; None where it is not told. values: [value,
    within] of each figure of EVERY that there is, value None where it is infinite. carried: figures with enough
    requests. absent: why others have no sample.
    """

    level: int
    load: str
    due: int
    not_good: int
    usual: float
    per_event: float | None
    values: dict[str, tuple[float | None, float]]
    carried: frozenset[str]
    absent: dict[str, str]

    def measured(self, figure: str) -> Measured | None:
        if figure not in self.values:
            return None
        value, within = self.values[figure]
        return Measured(math.inf if value is None else value, within)

    def carries(self, figure: str) -> bool:
        return figure in self.carried

    def why_absent(self, figure: str) -> str | None:
        return self.absent.get(figure)

    def tokens_per_event(self) -> float:
        return math.nan if self.per_event is None else self.per_event

    @property
    def answers(self) -> Floats:
        return np.empty(0)

    def bad(self, stuck: float) -> int:
        return self.not_good


@dataclass(frozen=True)
class _File:
    moments: str
    levels: list[KeptLevel]
    schema: int = SCHEMA


@dataclass(frozen=True)
class KeptRun:
    """A RunFigures. It was fit when it was kept."""

    path: Path
    manifest: Manifest
    moments: str
    levels: Mapping[int, LevelFigures]
    flaws: Flaws = ()


def kept_figures(runs: Sequence[RecordedRun]) -> list[dict[str, Any]]:
    """A document for each run, as kept_run reads it. The runs are one side of a comparison, and fit."""
    together: dict[int, float] = {}
    for number in {number for run in runs for number in run.levels}:
        together[number] = usual([run.levels[number] for run in runs if number in run.levels])
    return [
        {
            "schema": SCHEMA,
            "moments": run.moments,
            "levels": [_kept(number, part, together[number]) for number, part in run.levels.items()],
        }
        for run in runs
    ]


def _kept(number: int, part: Part, usual: float) -> dict[str, Any]:
    found = {name: each for name, each in part.measured_together(EVERY).items() if each is not None}
    absent = {name: part.why_absent(name) for name in EVERY if name not in found}
    per_event = part.tokens_per_event()
    level = KeptLevel(
        level=number,
        load=part.load,
        due=part.due,
        not_good=part.bad(STUCK * usual),
        usual=usual,
        per_event=None if math.isnan(per_event) else per_event,
        values={name: (None if math.isinf(each.value) else each.value, each.within) for name, each in found.items()},
        carried=frozenset(name for name in found if name != THROUGHPUT and part.carries(name)),
        absent={name: cause for name, cause in absent.items() if cause is not None},
    )
    return {**asdict(level), "carried": sorted(level.carried)}


def kept_run(path: Path, manifest: Manifest, document: dict[str, Any], where: Path) -> KeptRun:
    """path: of the run's folder. where: the file that the document is from. Raises UsageError for one that is damaged
    or of another version.
    """
    if document.get("schema") != SCHEMA:
        raise UsageError("figures of another version of harness", where=str(where), advice="Save the baseline again.")
    found = as_type(_File, document, where)
    for level in found.levels:
        numbers = [level.usual, *(each for pair in level.values.values() for each in pair if each is not None)]
        values = [value for value, _ in level.values.values() if value is not None]
        if not all(map(math.isfinite, numbers)) or min(numbers) < 0 or min(values, default=1.0) <= 0:
            raise UsageError("a figure is not a positive number", where=str(where), advice="Save the baseline again.")
        if not 0 <= level.not_good <= level.due:
            raise UsageError(f"not_good: {level.not_good} of {level.due} due", where=str(where))
    return KeptRun(path, manifest, found.moments, {level.level: level for level in found.levels})
