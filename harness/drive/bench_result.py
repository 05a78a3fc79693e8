"""BenchResult: the summary of a recorded run, and the exit code that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.drive.bench_plan import BenchPlan
from harness.drive.reports import finish
from harness.engines.failure import Failure
from harness.errors import Interrupted, ServiceError
from harness.load import runner
from harness.load.plan import LoadOutcome
from harness.load.run_recorder import RunRecorder
from harness.measure.client import Floor
from harness.measure.run_folder import RunFolder
from harness.report.run import run_document
from harness.report.to_text import to_text
from harness.stats.summary import Summary


@dataclass(frozen=True)
class BenchResult:
    """A run that was recorded. unmet: the condition that was asked for and does not hold; exit_code: what follows.

    warning: what nobody asked about, and whoever reads the figures must know.
    """

    folder: RunFolder
    summary: Summary
    unmet: str | None
    exit_code: int

    @property
    def interrupted(self) -> bool:
        """By Ctrl-C, before its plan was done."""
        return self.exit_code == Interrupted.exit_code

    @property
    def warning(self) -> str | None:
        return None if self.unmet or self.summary.valid else _invalid(self.summary)

    def as_json(self) -> dict[str, Any]:
        return {**self.summary.as_dict(), "path": str(self.folder.path)}

    def as_text(self) -> str:
        report = self.folder.html if self.folder.html.exists() else self.folder.summary
        return f"{to_text(run_document(self.summary))}\nreport: {report}"


def conclude(
    recorder: RunRecorder,
    outcome: LoadOutcome,
    plan: BenchPlan,
    floor: Floor | None,
    death: Failure | None,
) -> BenchResult:
    """Records, summary, reports; then what the exit code says. death: why the engine ended, where its log says so."""
    run, folder = recorder.keep(floor, outcome.lost_processes), recorder.folder
    summary = finish(run, with_reports=plan.report)
    if outcome.interrupted:
        return BenchResult(folder, summary, "interrupted: the report holds what was recorded", Interrupted.exit_code)
    if summary.total.requests.completed == 0 and not _service_away(outcome, summary):
        raise ServiceError(f"no request was completed: {_why_none(summary)}", where=str(folder.path))
    if summary.total.requests.completed == 0:
        stalled = any(level.ended_by == "stalled" for level in outcome.levels)
        silent = f"nobody got a token for {runner.STALLED_AFTER:.0f} s" if stalled else "the service is away or died"
        away = any(level.ended_by == "service_gone" for level in outcome.levels) or set(summary.total.errors) == {
            "refused"
        }
        why = death.found if death else silent if stalled or away else _why_none(summary)
        advice = death.advice if death else "Its own log says why, as far as it knows."
        raise ServiceError(f"no request was completed: {why}", where=str(folder.path), advice=advice)
    unmet = _unmet(summary, plan)
    return BenchResult(folder, summary, unmet, 1 if unmet else 0)


def _why_none(summary: Summary) -> str:
    """The errors by kind, with the service's own words."""
    total = summary.total
    if not total.errors:
        return f"none of {total.requests.sent} was answered in time" if total.requests.sent else "none was due"
    kinds = ", ".join(f"{count} {kind}" for kind, count in total.errors.items())
    said = max(total.messages, key=lambda each: each.count, default=None)
    if said is None:
        return f"{kinds} of {total.requests.sent + total.requests.dropped}"
    status = f"HTTP {said.http_status}: " if said.http_status else ""
    return f"{kinds} of {total.requests.sent + total.requests.dropped}; the service says: {status}{said.message}"


def _service_away(outcome: LoadOutcome, summary: Summary) -> bool:
    if any(level.ended_by in ("service_gone", "stalled") for level in outcome.levels):
        return True
    return bool(summary.total.errors) and set(summary.total.errors) <= {"refused", "stream_broken", "timeout"}


def _unmet(summary: Summary, plan: BenchPlan) -> str | None:
    """The condition that was asked for and does not hold."""
    if (plan.require_valid or plan.slo is not None) and not summary.valid:
        return _invalid(summary)
    if plan.slo is not None and not summary.holds_on_lowest:
        return f"the SLO does not hold on the lowest level ({plan.slo})"
    return None


def _invalid(summary: Summary) -> str:
    rules = ", ".join(dict.fromkeys(reason.rule for reason in summary.total.reasons)) or "see the report"
    return f"the run is not valid ({rules})"
