"""How many users, and how sure: search the highest load whose SLO holds, level by level against the live service."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, Literal

from harness.catalog.slo import Slo
from harness.drive.bench_plan import AskedUsers, BenchPlan, Loads
from harness.drive.options import seconds
from harness.drive.series import Turn, take_turns
from harness.errors import Interrupted, UsageError
from harness.input_files import read_json_object
from harness.measure.arrivals import POISSON
from harness.measure.journal import read_journal
from harness.measure.run_folder import Level, RunFolder, read_manifest, run_name, write_atomically
from harness.report.capacity_text import level_line, to_text
from harness.serve.serving import resolve_model
from harness.serve.target import Say, Target
from harness.stats.absence import as_asked
from harness.stats.capacity_report import CapacityReport, HistoryCapacity
from harness.stats.capacity_search import Ask, CapacitySearch, Goal
from harness.stats.outcome import Outcome, outcome_of
from harness.stats.people import PROFILES, Flow, Habits, flow_of
from harness.stats.slo import QUANTILES
from harness.stats.window import steady_window
from harness.workload.lengths import Fixed, parse_lengths

Unit = Literal["users", "chats", "rate"]
FILE = "capacity.json"
SCHEMA = 1


@dataclass(frozen=True)
class CapacityOptions:
    """The options of `harness capacity`, as given. asked: what is asked, as of `bench`."""

    asked: BenchPlan
    unit: Unit = "users"
    history: str | None = None
    budget: str = "20m"
    level: str = "60s"
    start: float = 1.0
    most: float | None = None
    turns: float = 1.0
    sessions_per_hour: float = 1.0
    profile: str = "flat"
    resume: bool = False


@dataclass(frozen=True)
class CapacityPlan:
    """The same as values. histories: prompt lengths, None where the workload says. goal: of each of them."""

    unit: Unit
    histories: tuple[int | None, ...]
    goal: Goal
    slo: Slo
    habits: Habits
    price_per_hour: float | None
    model: str
    question: Mapping[str, Any] = field(default_factory=dict)


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
    """Search for each history in turn. Raises HarnessErrors; every level that ended is in capacity.json by then."""
    plan = make_plan(target, options)
    book = _Book.open(plan, options, progress)
    for result in take_turns(_turns(target, plan, options.asked, book, progress), progress):
        if result.interrupted:
            advice = f"`--resume --output {book.folder}` goes on without repeating a level that ended."
            raise Interrupted(where=str(book.folder), advice=advice)
    report = book.report()
    nothing = all(each.search.answer().holds == 0 for each in report.histories)
    unmet = f"no load was found that holds the SLO ({plan.slo})" if nothing else None
    return CapacityResult(report, book.folder, unmet)


def make_plan(target: Target, options: CapacityOptions) -> CapacityPlan:
    """What the options mean. Raises UsageError before anything is started."""
    asked = options.asked
    model = resolve_model(target) if target.model is not None else None
    slo = _slo(asked.slo, model.slo if model else Slo())
    assert isinstance(asked.asked, AskedUsers)
    if options.history is not None and asked.asked.input_tokens is not None:
        raise UsageError("--history and --input-tokens both say how long prompts are", advice="Give one of them.")
    histories = _histories(options.history)
    budget, level = seconds(options.budget, "--budget"), seconds(options.level, "--level")
    if budget < 2 * level * len(histories):
        found = f"--budget {options.budget} leaves less than two levels of {options.level} for each history"
        raise UsageError(found, advice="Raise --budget, or shorten --level.")
    whole = options.unit != "rate"
    if options.start <= 0 or (whole and options.start != int(options.start)):
        raise UsageError(f"expected a load to begin with, such as 4, found {options.start:g}", where="--start")
    goal = Goal(options.start, whole, budget / len(histories), level, most=options.most or (5000.0 if whole else 1e4))
    think = 0.0 if asked.think_time is None else asked.think_time.mean
    habits = Habits(
        think=think,
        turns=_positive(options.turns, "--turns"),
        sessions_per_hour=_positive(options.sessions_per_hour, "--sessions-per-hour"),
        day=_day(options.profile),
    )
    price = model.price_per_gpu_hour * model.gpus if model and model.price_per_gpu_hour is not None else None
    question = {
        "unit": options.unit, "slo": slo.as_dict(), "model": target.model, "url": target.url,
        "histories": list(histories), **asked.asked.as_options(), "think_time": think, "level": level, "api": asked.api,
        "stream": asked.stream,
    }  # fmt: skip
    name = model.name if model else (target.url or "").partition("://")[2].partition("/")[0].replace(":", "-")
    return CapacityPlan(options.unit, histories, goal, slo, habits, price, name, question)


def _slo(asked: Slo | None, of_the_entry: Slo) -> Slo:
    slo = asked or of_the_entry
    if not slo.bounds:
        raise UsageError("no SLO: capacity is the highest load that holds one", advice='Give --slo "ttft_p95=1s".')
    for bound in slo.bounds:
        if bound.statistic not in QUANTILES:
            found = f"{bound.name}: no number of requests shows that a {bound.statistic} holds"
            raise UsageError(found, where="--slo", advice="Bound a quantile: p50, p90, p95 or p99.")
    return slo


def _histories(text: str | None) -> tuple[int | None, ...]:
    if text is None:
        return (None,)
    found = []
    for part in text.split(","):
        length = parse_lengths(part)
        if length.longest is None or length.longest < 1 or not part.strip()[:1].isdigit():
            raise UsageError(f"expected tokens such as 2000 or 2k,8k, found {text!r}", where="--history")
        found.append(int(length.longest))
    return tuple(found)


def _positive(value: float, option: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"expected a number above zero, found {value:g}", where=option)
    return value


def _day(profile: str) -> Sequence[float]:
    """A profile of PROFILES by name, or the 24 numbers of a file."""
    if profile in PROFILES:
        return PROFILES[profile]
    path = Path(profile)
    if not path.is_file():
        known = f"Known: {', '.join(PROFILES)}."
        raise UsageError(f"no such profile or file: {profile!r}", where="--profile", advice=known)
    try:
        hours = [float(word) for word in path.read_text(encoding="utf-8").replace(",", " ").split()]
    except (ValueError, UnicodeDecodeError):
        hours = []
    if len(hours) != 24 or min(hours) < 0 or max(hours) <= 0 or not all(map(math.isfinite, hours)):
        raise UsageError("expected 24 numbers, the load of each hour from midnight", where=profile)
    return hours


def _turns(target: Target, plan: CapacityPlan, asked: BenchPlan, book: _Book, progress: Say) -> Iterator[Turn]:
    """A run for each history whose search is not done."""
    for place, history in enumerate(plan.histories):
        if book.searches[place].ask() is not None:
            own = _bench_plan(plan, asked, history, book.next_run(place))
            yield Turn(target, own, levels=partial(_levels, plan, book, place, progress))


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
        think_time=asked.think_time if plan.unit == "users" else None,
        output=folder,
    )


def _levels(plan: CapacityPlan, book: _Book, place: int, progress: Say, run: RunFolder) -> Iterator[Level]:
    """The levels that the search asks for. One that was cut off is never told: a search that goes on repeats it."""
    search, number = book.searches[place], 0
    while (ask := search.ask()) is not None:
        progress(_announced(plan, ask, search))
        began = time.monotonic()
        yield _level(plan, ask, number)
        outcome, flow = _judged(plan, run, ask, number, time.monotonic() - began)
        search.tell(outcome)
        book.keep(place, flow)
        progress(level_line(outcome, plan.unit))
        number += 1


def _level(plan: CapacityPlan, ask: Ask, number: int) -> Level:
    if plan.unit == "rate":
        return Level(number, rate=ask.load, arrival=POISSON, duration=ask.seconds)
    return Level(number, users=int(ask.load), duration=ask.seconds)


def _judged(plan: CapacityPlan, run: RunFolder, ask: Ask, number: int, seconds: float) -> tuple[Outcome, Flow]:
    """What the level's records say, from the run's folder."""
    manifest = read_manifest(run)
    level = next(each for each in manifest.levels if each.level == number)
    everything = as_asked(read_journal(run.path).records, manifest)
    records = everything.select(everything.level == number)
    outcome = outcome_of(level, records, plan.slo, seconds=seconds, approach=ask.approach, brief=ask.brief)
    return outcome, flow_of(ask.load, records, steady_window(level, records))


def _announced(plan: CapacityPlan, ask: Ask, search: CapacitySearch) -> str:
    left = max(0.0, plan.goal.budget - search.spent)
    load = f"{ask.load:g} {plan.unit}" if plan.unit != "rate" else f"{ask.load:.3g} requests/s"
    why = "to find where the limit lies" if ask.brief else "beside the limit"
    return f"level {len(search.told) + 1}: {load} for {ask.seconds:.0f} s, {why}; {left:.0f} s of the budget left"


class _Book:
    """capacity.json as the search goes on; every level that ended is on disk at once."""

    def __init__(self, plan: CapacityPlan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.searches = [CapacitySearch(plan.goal) for _ in plan.histories]
        self.flows: list[list[Flow]] = [[] for _ in plan.histories]

    @classmethod
    def open(cls, plan: CapacityPlan, options: CapacityOptions, progress: Say) -> _Book:
        """A new folder, or with --resume what stands in one. Raises UsageError."""
        if not options.resume:
            stamp = run_name(datetime.now(timezone.utc), plan.model, None, "capacity")
            folder = RunFolder.create(options.asked.output or Path("reports") / stamp).path
            book = cls(plan, folder)
            book.write()
            return book
        if options.asked.output is None:
            raise UsageError("--resume goes on in the folder of a search", advice="Name it with --output.")
        book = cls(plan, options.asked.output)
        book._read()
        done = sum(len(each.told) for each in book.searches)
        progress(f"going on in {book.folder}: {done} levels are there already")
        return book

    def next_run(self, place: int) -> Path:
        """A folder for the run that comes: each start of the command has its own."""
        name = f"history-{self.plan.histories[place]}" if self.plan.histories[place] is not None else "levels"
        return next(path for number in range(1000) if not (path := self.folder / f"{name}-{number:02d}").exists())

    def keep(self, place: int, flow: Flow) -> None:
        self.flows[place].append(flow)
        self.write()

    def report(self) -> CapacityReport:
        plan = self.plan
        parts = zip(plan.histories, self.searches, self.flows, strict=True)
        histories = tuple(HistoryCapacity(history, search, tuple(flows)) for history, search, flows in parts)
        return CapacityReport(plan.model, plan.unit, plan.slo, plan.habits, plan.price_per_hour, histories)

    def write(self) -> None:
        document = {"schema": SCHEMA, "question": dict(self.plan.question), **self.report().as_dict()}
        write_atomically(self.folder / FILE, (json.dumps(document, indent=2) + "\n").encode())

    def _read(self) -> None:
        path = self.folder / FILE
        if not path.exists():
            raise UsageError("not found", where=str(path), advice="Name the folder of a search.")
        document = read_json_object(path)
        try:
            if document["schema"] != SCHEMA:
                raise ValueError(f"schema {document['schema']!r}, this version reads {SCHEMA}")
            question, surface = document["question"], document["surface"]
            if question == json.loads(json.dumps(self.plan.question)):
                for place, cell in enumerate(surface):
                    for entry in cell["levels"]:
                        self.searches[place].tell(Outcome.from_dict(entry))
                        self.flows[place].append(Flow.from_dict(entry["flow"]))
                return
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise UsageError(f"cannot be read: {error}", where=str(path)) from error
        now = json.loads(json.dumps(self.plan.question))
        other = [name for name in now if question.get(name) != now[name]]
        raise UsageError(f"that search asked something else: {', '.join(other)}", where=str(path))
