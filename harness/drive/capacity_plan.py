"""CapacityPlan: the options of `harness capacity` as values, parsed here once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.catalog.slo import Slo
from harness.drive.bench_plan import AskedUsers, BenchPlan
from harness.drive.money_options import day_of
from harness.drive.options import seconds
from harness.errors import UsageError
from harness.serve.serving import resolve_model
from harness.serve.target import Target
from harness.stats.capacity_search import Goal
from harness.stats.money import NOTHING_ASKED, MoneyQuestion, Price, price_of
from harness.stats.people import Habits
from harness.stats.slo import QUANTILES
from harness.workload.lengths import parse_lengths

Unit = Literal["users", "chats", "rate"]


@dataclass(frozen=True)
class CapacityOptions:
    """The options of `harness capacity`, as given. asked: what is asked, as of `bench`. turns: None leaves them to the
    workload, as a think time that is not given.
    """

    asked: BenchPlan
    unit: Unit = "users"
    history: str | None = None
    budget: str = "20m"
    level: str = "60s"
    start: float = 1.0
    most: float | None = None
    turns: float | None = None
    sessions_per_hour: float | None = None
    profile: str = "flat"
    resume: bool = False
    money: MoneyQuestion = NOTHING_ASKED


@dataclass(frozen=True)
class CapacityPlan:
    """The same as values. histories: prompt lengths, None where the workload says. goal: of each of them. habits: as
    far as they were told; turns_told, think_told: whether they were, or are the workload's to say.
    """

    unit: Unit
    histories: tuple[int | None, ...]
    goal: Goal
    slo: Slo
    habits: Habits
    turns_told: bool
    think_told: bool
    price: Price | None
    gpus: int
    money: MoneyQuestion
    model: str
    question: Mapping[str, Any] = field(default_factory=dict)


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
    most = _most(options, 5000.0 if whole else 1e4)
    goal = Goal(options.start, whole, budget / len(histories), level, most=most)
    think = 0.0 if asked.think_time is None else asked.think_time.mean
    habits = Habits(
        think=think,
        turns=_positive(options.turns, "--turns"),
        sessions_per_hour=_positive(options.sessions_per_hour, "--sessions-per-hour"),
        day=day_of(options.profile),
    )
    gpus = model.gpus if model else 1
    own = (model.price_per_gpu_hour, model.price_source) if model else (None, None)
    question = {
        "unit": options.unit, "slo": slo.as_dict(), "model": target.model, "url": target.url,
        "histories": list(histories), **asked.asked.as_options(), "think_time": think, "level": level, "api": asked.api,
        "stream": asked.stream,
    }  # fmt: skip
    name = model.name if model else (target.url or "").partition("://")[2].partition("/")[0].replace(":", "-")
    return CapacityPlan(
        unit=options.unit,
        histories=histories,
        goal=goal,
        slo=slo,
        habits=habits,
        turns_told=options.turns is not None,
        think_told=asked.think_time is not None,
        price=price_of(options.money, *own, gpus),
        gpus=gpus,
        money=options.money,
        model=name,
        question=question,
    )


def _most(options: CapacityOptions, default: float) -> float:
    """The highest load that may be tried, from where the search may begin below it. Raises UsageError."""
    start = float(options.start)
    if not (math.isfinite(start) and start > 0) or (options.unit != "rate" and not start.is_integer()):
        raise UsageError(f"expected a load to begin with, such as 4, found {start:g}", where="--start")
    most = _positive(options.most, "--most") or default
    if start > most:
        raise UsageError(
            f"--start {start:g} lies beyond the highest load that may be tried, {most:g}", advice="Raise --most."
        )
    return most


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
        try:
            length = parse_lengths(part)
        except UsageError:
            length = None
        if length is None or length.longest is None or length.longest < 1 or not part.strip()[:1].isdigit():
            raise UsageError(f"expected tokens such as 2000 or 2k,8k, found {text!r}", where="--history")
        if int(length.longest) in found:
            raise UsageError(f"a history is there twice: {text!r}", where="--history")
        found.append(int(length.longest))
    return tuple(found)


def _positive(value: float | None, option: str) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise UsageError(f"expected a number above zero, found {value:g}", where=option)
    return value
