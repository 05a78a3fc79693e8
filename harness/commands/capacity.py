"""`harness capacity`: searches the highest load that holds the SLO, level by level against the live service."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.drive.bench_plan import AskedUsers, BenchPlan, Loads
from harness.drive.bench_result import BenchResult
from harness.drive.bench_run import PlannedRun
from harness.drive.capacity_book import CapacityBook
from harness.drive.capacity_plan import CapacityOptions, CapacityPlan, make_plan
from harness.drive.series import run_series
from harness.errors import Interrupted, ServiceError
from harness.load.run_recorder import RunRecorder
from harness.load.runner import CUT_OFF
from harness.measure.arrivals import POISSON
from harness.measure.journal import JournalReader
from harness.measure.run_folder import Level
from harness.report.capacity_text import level_line, load_of, to_text
from harness.serve.target import Say, Target
from harness.stats.absence import as_asked
from harness.stats.capacity_report import CapacityReport
from harness.stats.capacity_search import Ask, CapacitySearch
from harness.stats.outcome import Outcome, outcome_of
from harness.stats.people import Flow, flow_of
from harness.stats.surface import Figures, figures_of
from harness.stats.window import steady_window
from harness.workload.lengths import Fixed
from harness.workload.pauses import NO_PAUSE


@dataclass(frozen=True)
class CapacityResult:
    report: CapacityReport
    folder: Path
    unmet: str | None

    def as_json(self) -> dict[str, Any]:
        return {**self.report.as_dict(), "path": str(self.folder)}

    def as_text(self) -> str:
        return f"{to_text(self.report)}\nlevels and their runs: {self.folder}"


def capacity(target: Target, options: CapacityOptions, progress: Say) -> CapacityResult:
    """Search for each history in turn. Raises HarnessErrors; every level that ended is in capacity.json by then.

    A search that the service put an end to has no answer: what it found so far would pass for one.
    """
    plan = make_plan(target, options)
    book = CapacityBook.open(plan, options, progress)
    try:
        for result in run_series(_turns(target, plan, options.asked, book, progress), progress):
            _require_whole(result, book)
    except ServiceError:
        book.leave_out_outage()
        book.discard_if_empty()
        raise
    except Interrupted as told:
        raise Interrupted(where=str(book.folder), advice=_go_on(book)) from told
    book.write()  # what options say of people may be new, though no level is
    report = book.report()
    nothing = all(each.search.answer().holds == 0 for each in report.histories)
    unmet = f"no load was found that holds the SLO ({plan.slo})" if nothing else None
    return CapacityResult(report, book.folder, unmet)


def _require_whole(result: BenchResult, book: CapacityBook) -> None:
    """Raises Interrupted and ServiceError where the run of a history was cut off."""
    if result.interrupted:
        raise Interrupted
    cut_off = CUT_OFF.get(next((each.ended_by or "" for each in reversed(result.summary.manifest.levels)), ""))
    if cut_off is not None:
        raise ServiceError(f"the search was ended: {cut_off}", where=str(book.folder), advice=_go_on(book))


def _go_on(book: CapacityBook) -> str:
    return f"The same command with `--resume --output {book.folder}` goes on without repeating a level that ended."


def _turns(
    target: Target, plan: CapacityPlan, asked: BenchPlan, book: CapacityBook, progress: Say
) -> Iterator[PlannedRun]:
    """A run for each history whose search is not done."""
    for place, history in enumerate(plan.histories):
        if book.searches[place].ask() is not None:
            book.begin_at_what_is_known(place)
            own = _bench_plan(plan, asked, history, book.next_run(place))
            yield PlannedRun(target, own, levels=partial(_levels, plan, book, place, progress))


def _bench_plan(plan: CapacityPlan, asked: BenchPlan, history: int | None, folder: Path) -> BenchPlan:
    first, length = plan.goal.start, plan.goal.level
    rate = plan.unit == "rate"
    of = asked.asked
    if isinstance(of, AskedUsers) and history is not None:
        of = dataclasses.replace(of, input_tokens=Fixed(history))
    return dataclasses.replace(
        asked,
        asked=of,
        loads=Loads(rates=(first,), duration=length) if rate else Loads(users=(int(first),), duration=length),
        # Only users pause; of chats and rates a pause says how many people are behind them.
        think_time={"users": asked.think_time, "chats": NO_PAUSE, "rate": None}[plan.unit],
        output=folder,
    )


def _levels(
    plan: CapacityPlan, book: CapacityBook, place: int, progress: Say, recorder: RunRecorder
) -> Iterator[Level]:
    """The levels that the search asks for. One that was cut off is never told: a search that goes on repeats it."""
    search, number = book.searches[place], 0
    book.learn_habits(recorder.manifest.workload)
    reader = JournalReader(recorder.folder.path)
    while (ask := search.ask()) is not None:
        progress(_announced(book, ask, search))
        began = time.monotonic()
        yield _level(plan, ask, number)
        outcome, flow, figures = _judged(plan, recorder, reader, ask, time.monotonic() - began)
        search.tell(outcome)
        book.keep(place, flow, figures)
        progress(level_line(outcome, book.unit))
        number += 1


def _level(plan: CapacityPlan, ask: Ask, number: int) -> Level:
    if plan.unit == "rate":
        return Level(number, rate=ask.load, arrival=POISSON, duration=ask.seconds)
    return Level(number, users=int(ask.load), duration=ask.seconds)


def _judged(
    plan: CapacityPlan, recorder: RunRecorder, reader: JournalReader, ask: Ask, seconds: float
) -> tuple[Outcome, Flow, Figures]:
    """What the level that ended last wrote amounts to."""
    level = recorder.manifest.levels[-1]
    everything = as_asked(reader.read().records, recorder.manifest)
    records = everything.select(everything.level == level.level)
    outcome = outcome_of(level, records, plan.slo, seconds=seconds, approach=ask.approach, brief=ask.brief)
    flow = flow_of(outcome.offered, records, steady_window(level, records))
    samples = recorder.sampled(level.started_at or 0.0)
    places = recorder.manifest.limits.get("max_batch_size")
    return outcome, flow, figures_of(level, records, outcome, flow, samples, places)


def _announced(book: CapacityBook, ask: Ask, search: CapacitySearch) -> str:
    left = max(0.0, book.plan.goal.budget - search.spent)
    why = "to find where the limit lies" if ask.brief else "beside the limit"
    load = load_of(ask.load, book.unit)
    return f"level {len(search.told) + 1}: {load} for {ask.seconds:.0f} s, {why}; {left:.0f} s of the budget left"
