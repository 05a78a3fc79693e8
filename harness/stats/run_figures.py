"""A run as a comparison sees it: its manifest, why it may not be judged, and the figures of its levels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from harness.measure.run import Run
from harness.measure.run_folder import Manifest
from harness.stats.level_stats import LevelStats
from harness.stats.run_figure import LevelFigures, Part, levels_of
from harness.stats.summary import Summary, summarise

Flaws = Sequence[tuple[str, frozenset[str]]]


class RunFigures(Protocol):
    """From its records (RecordedRun), or as a baseline keeps it (kept_figures.py)."""

    @property
    def path(self) -> Path: ...

    @property
    def manifest(self) -> Manifest: ...

    @property
    def moments(self) -> str | None:
        """A digest of when requests were due and tokens came, by which a run is known again; None without requests."""
        ...

    @property
    def flaws(self) -> Flaws:
        """Why it cannot be judged: each in words, with the rules behind it."""
        ...

    @property
    def levels(self) -> Mapping[int, LevelFigures]:
        """Each level that sent anything, by its number."""
        ...


class RecordedRun:
    """Each figure is computed when it is asked for first."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def path(self) -> Path:
        return self.run.folder.path

    @property
    def manifest(self) -> Manifest:
        return self.run.manifest

    @cached_property
    def moments(self) -> str | None:
        records = self.run.records
        if not len(records):
            return None
        return hashlib.sha256(records.token_at.tobytes() + records.scheduled_at.tobytes()).hexdigest()

    @cached_property
    def flaws(self) -> Flaws:
        return _flaws(summarise(self.run.records, self.run.manifest, self.run.facts))

    @cached_property
    def levels(self) -> Mapping[int, Part]:
        return levels_of(self.run)


def recorded(runs: Sequence[Run]) -> list[RecordedRun]:
    """Each of them."""
    return [RecordedRun(run) for run in runs]


def _flaws(summary: Summary) -> Flaws:
    """A level by its own validity: a sweep forgives one beyond what the server holds, a comparison does not."""
    if not summary.complete:
        return [("the run is incomplete", frozenset(["incomplete"]))]
    levels = [
        (f"level at {_at(level)} is invalid ({', '.join(rules)})", frozenset(rules))
        for level in summary.levels
        if (rules := list(dict.fromkeys(reason.rule for reason in level.reasons)))
    ]
    whole = list(dict.fromkeys(reason.rule for reason in summary.total.reasons))
    return levels or ([(f"the run is invalid ({', '.join(whole)})", frozenset(whole))] if whole else [])


def _at(level: LevelStats) -> str:
    if level.users is not None:
        return f"{level.users} users"
    return f"{level.offered_rate:g}/s" if level.offered_rate is not None else "the trace's rate"
