"""Reads capacity.json as a CapacityReport, with the run beside it in which its levels were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from harness.catalog.slo import slo_from_mapping
from harness.errors import UsageError
from harness.input_files import as_type, numbers_in
from harness.stats.binding import Binding
from harness.stats.capacity_report import RATES, CapacityReport, HistoryCapacity
from harness.stats.capacity_search import CapacitySearch, Goal
from harness.stats.money import NOTHING_ASKED, MoneyQuestion, Price, price_of
from harness.stats.outcome import Approach, Outcome
from harness.stats.people import Flow, Habits
from harness.stats.surface import Figures

_MOST = 1e15  # of any number in the file


@dataclass(frozen=True)
class _Bound:
    name: str
    limit: float
    share: float | None
    samples: int
    independent_samples: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class _Figures:
    ttft_p95: float | None
    itl_p95: float | None
    waiting: float | None
    output_tokens_per_second: float | None
    kv_used: float | None
    binds: Binding


@dataclass(frozen=True)
class _Level:
    load: float
    bounds: list[_Bound]
    seconds: float
    approach: Approach
    oversaturated: bool
    drifts: bool
    brief: bool
    flow: dict[str, float | None]
    failures: dict[str, float] = field(default_factory=dict)
    came: float | None = None
    due: int = 0
    outage: float = 0.0
    figures: _Figures | None = None


@dataclass(frozen=True)
class _Cell:
    levels: list[_Level]
    history_tokens: int | None = None


@dataclass(frozen=True)
class _Users:
    idle_share: float
    think_time: float
    turns: float | None
    sessions_per_hour: float | None


@dataclass(frozen=True)
class _Cost:
    price_per_hour: float | None = None
    price_per_gpu_hour: float | None = None
    price_source: str | None = None
    gpus: int = 1


@dataclass(frozen=True)
class _File:
    """What is computed with; keys beside these are passed over."""

    unit: Literal["users", "chats", "rate", "conversations"]
    model: str
    slo: dict[str, float]
    surface: list[_Cell]
    users: _Users | None = None
    cost: _Cost | None = None


def require_sound(document: Mapping[str, Any], where: object) -> None:
    """Raises UsageError for a file that holds what no search wrote: another type, or a number beyond all bounds."""
    found = as_type(_File, document, where)
    numbers = list(numbers_in(asdict(found)))
    levels = [level for cell in found.surface for level in cell.levels]
    histories = [cell.history_tokens for cell in found.surface]
    if not all(0 <= number <= _MOST for number in numbers) or not all(level.load > 0 for level in levels):
        raise UsageError("not as expected: a number is beyond all bounds", where=str(where))
    if len(set(histories)) < len(histories) or (found.cost is not None and found.cost.gpus < 1):
        raise UsageError("not as expected: a history is there twice, or gpus is 0", where=str(where))


NOT_KEPT = Figures(math.nan, math.nan, math.nan, math.nan, None, Binding(None, "not kept by the version that measured"))
_HOURS = 24


def capacity_from(document: Mapping[str, Any], gpus: int = 1, asked: MoneyQuestion = NOTHING_ASKED) -> CapacityReport:
    """The reverse of CapacityReport.as_dict, also of what an earlier version wrote. gpus: of the deployment, where the
    file does not tell. asked: what is to be known of money now. Raises KeyError, TypeError and ValueError for what it
    did not make.
    """
    whole = document["unit"] not in RATES
    histories = tuple(_history(entry, whole) for entry in document["surface"])
    if not histories:
        raise ValueError("no history was measured")
    return CapacityReport(
        model=str(document["model"]),
        unit=str(document["unit"]),
        slo=slo_from_mapping(dict(document["slo"])),
        habits=asked.habits(_habits(document)),
        price=_price(document.get("cost") or {}, gpus, asked),
        histories=histories,
        gpus=gpus,
        asked=asked,
    )


def _price(cost: Mapping[str, Any], gpus: int, asked: MoneyQuestion) -> Price | None:
    """What was asked with, else that of the file; earlier versions kept only that of all GPUs together."""
    hourly = cost.get("price_per_hour")
    many = int(cost.get("gpus", gpus))
    own = cost.get("price_per_gpu_hour", None if hourly is None else float(hourly) / many)
    return price_of(asked, _told(own), cost.get("price_source"), many)


def _history(entry: Mapping[str, Any], whole: bool) -> HistoryCapacity:
    levels = entry["levels"]
    search = CapacitySearch(Goal(1.0, whole), [Outcome.from_dict(each) for each in levels])
    return HistoryCapacity(
        history=entry["history_tokens"],
        search=search,
        flows=tuple(Flow.from_dict(each["flow"]) for each in levels),
        figures=tuple(Figures.from_dict(each["figures"]) if "figures" in each else NOT_KEPT for each in levels),
    )


def _habits(document: Mapping[str, Any]) -> Habits:
    """The day as one busy hour and others alike: only its mean is kept."""
    users = document.get("users")
    if not users:
        return Habits()
    mean = 1 - float(users["idle_share"])
    others = max(0.0, (mean * _HOURS - 1) / (_HOURS - 1))
    return Habits(
        think=float(users["think_time"]),
        turns=_told(users["turns"]),
        sessions_per_hour=_told(users["sessions_per_hour"]),
        day=(1.0, *(others,) * (_HOURS - 1)),
    )


def _told(value: Any) -> float | None:
    return None if value is None else float(value)
