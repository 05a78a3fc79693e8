"""`bench --repeat N`: the same run again and again, with seeds of its own each, in one folder that `compare` takes as
one side. `--aa` also stores how much the runs differed, so that a single run of this service can be judged later.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness.drive.aa import store
from harness.drive.bench_plan import BenchPlan
from harness.drive.bench_result import BenchResult
from harness.drive.bench_run import PlannedRun
from harness.drive.series import run_series
from harness.errors import UsageError
from harness.measure.run import read_run
from harness.measure.run_folder import RunFolder, run_name
from harness.report.document import Table
from harness.report.to_text import aligned
from harness.serve.target import Target
from harness.stats.effect import Spreads
from harness.stats.run_figures import recorded
from harness.stats.spread import spreads_of
from harness.units import format_percent


@dataclass(frozen=True)
class RepeatResult:
    """All repeats, in their order. spreads: between them, where there are at least two. stored: for single runs."""

    folder: Path
    results: tuple[BenchResult, ...]
    spreads: Spreads
    stored: bool

    @property
    def exit_code(self) -> int:
        return max(each.exit_code for each in self.results)

    @property
    def unmet(self) -> str | None:
        return next((f"{each.folder.path.name}: {each.unmet}" for each in self.results if each.unmet), None)

    @property
    def warning(self) -> str | None:
        return next((f"{each.folder.path.name}: {each.warning}" for each in self.results if each.warning), None)

    def as_json(self) -> dict[str, Any]:
        return {
            "path": str(self.folder),
            "repeats": [each.as_json() for each in self.results],
            "spread": [
                {"load": load, "figure": figure, "run_to_run_spread": math.expm1(each.deviation)}
                for (load, figure), each in self.spreads.items()
            ],
            "stored": self.stored,
        }

    def as_text(self) -> str:
        """How much the runs differ, after the figures of the last one."""
        lines = [self.results[-1].as_text(), ""]
        if self.spreads:
            emulated = " (emulated)" if any(each.summary.manifest.emulated for each in self.results) else ""
            rows = [(load, figure, format_percent(math.expm1(each.deviation)))
                    for (load, figure), each in self.spreads.items()]  # fmt: skip
            lines.append(f"{len(self.results)} repeats{emulated}; the runs differ by (standard deviation):")
            lines += aligned(Table(("Load", "Figure", "Spread"), tuple(rows), frozenset([2])))
        kept = " It is stored, and single runs of this service are judged by it." if self.stored else ""
        lines.append(f"repeats: {self.folder}, one side of `harness compare`.{kept}")
        return "\n".join(lines)


def repeat(
    target: Target, plan: BenchPlan, times: int, progress: Callable[[str], None], *, keep: bool = False
) -> RepeatResult:
    """Run it this many times. keep: store the spread. Raises HarnessErrors; the repeats before stay on disk."""
    if keep and times < 3:
        raise UsageError("--aa measures how much runs differ", advice="Give --repeat 5 or more.")
    folder = RunFolder.create(plan.output or _default_folder(target, plan)).path
    turns = (
        PlannedRun(
            target,
            dataclasses.replace(plan, output=folder / f"repeat-{number:02}", seed=plan.seed + number),
            f"repeat {number + 1} of {times}",
        )
        for number in range(times)
    )
    results = list(run_series(turns, progress))
    runs = [read_run(each.folder) for each in results]
    spreads = spreads_of(recorded(runs))
    stored = keep and len(runs) == times and all(each.summary.valid for each in results)
    if stored:
        store(runs[0], spreads)
    elif keep:
        progress("the spread is not stored: not every repeat is valid")
    return RepeatResult(folder, tuple(results), spreads, stored)


def _default_folder(target: Target, plan: BenchPlan) -> Path:
    name = target.model or "service"
    stem = run_name(datetime.now(timezone.utc), name.rpartition("/")[2], None, plan.workload_name)
    return Path("reports") / f"{stem}-repeats"
