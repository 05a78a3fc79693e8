"""`harness bench`: load a service, one level after another, and say what it serves within the SLO."""

from __future__ import annotations

from collections.abc import Callable

from harness.drive.bench_plan import BenchPlan
from harness.drive.bench_result import BenchResult
from harness.drive.bench_run import PlannedRun
from harness.drive.series import run_series
from harness.serve.target import Target


def bench(target: Target, plan: BenchPlan, progress: Callable[[str], None]) -> BenchResult:
    """One run. Raises HarnessErrors; what was recorded until then stays on disk."""
    (result,) = run_series([PlannedRun(target, plan)], progress)
    return result
