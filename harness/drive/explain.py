"""`bench --explain`: what a bench would send and what that would cost; nothing is sent or started."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.catalog.models import Model
from harness.load.live import level_name
from harness.load.worker_pool import Rehearsed
from harness.measure.offered import expected_arrivals
from harness.measure.run_folder import Level
from harness.report.document import Table
from harness.report.to_text import aligned
from harness.units import format_count, format_duration, format_number
from harness.workload.workload import AnyWorkload, Dataset, ReplayedWorkload, spread

REHEARSED = 200  # conversations or requests
_LEFT_OUT = ("parts", "hash", "vocabulary", "prompt_overhead_tokens", "overhead_tokens_per_exchange", "overhead")


@dataclass(frozen=True)
class Forecast:
    """Of one level, None where only the engine's speed decides. begun: conversations, or single requests."""

    level: Level
    begun: float | None
    requests: float | None
    input_tokens: float | None
    output_tokens: float | None
    seconds: float | None

    def as_dict(self) -> dict[str, Any]:
        told = {name: value for name, value in vars(self).items() if name != "level"}
        return {"level": self.level.level, "load": level_name(self.level), **told}


@dataclass(frozen=True)
class Explanation:
    """played: conversations, or requests, as they would be asked first, with answers as long as asked."""

    workload: AnyWorkload
    played: Sequence[Rehearsed]
    forecasts: Sequence[Forecast]
    model: Model | None

    @property
    def seconds(self) -> float | None:
        return _sum([each.seconds for each in self.forecasts])

    @property
    def cost(self) -> float | None:
        """Of the entry's GPUs, for as long as the levels last."""
        price = None if self.model is None else self.model.price_per_gpu_hour
        if self.model is None or price is None or self.seconds is None:
            return None
        return price * self.model.gpus * self.seconds / 3600

    def as_json(self) -> dict[str, Any]:
        requests = [request for each in self.played for request in each]
        return {
            "workload": self.workload.describe(),
            "data": self.workload.trace.facts() if isinstance(self.workload, ReplayedWorkload | Dataset) else None,
            "looked_at": len(self.played),
            "requests_per_conversation": statistics.fmean(map(len, self.played)) if self.workload.converses else None,
            "input_tokens": spread([request[0] for request in requests]),
            "output_tokens": spread([request[1] for request in requests]),
            "history_tokens": spread([request[2] for request in requests]) if self.workload.converses else None,
            "longest_request_tokens": max((request[0] + request[1] for request in requests), default=None),
            "levels": [each.as_dict() for each in self.forecasts],
            "seconds": self.seconds,
            "cost": self.cost,
        }

    def as_text(self) -> str:
        told = self.as_json()
        what = "conversations" if self.workload.converses else "requests"
        lines = [f"Would ask {self.workload.name}; nothing was sent.", ""]
        lines += [f"  {name}: {value}" for name, value in told["workload"].items() if name not in _LEFT_OUT]
        lines += ["", f"Of the first {format_count(told['looked_at'])} {what}, with answers as long as asked:"]
        if told["requests_per_conversation"] is not None:
            lines.append(f"  requests per conversation: {format_number(told['requests_per_conversation'])}")
        for name in ("input_tokens", "history_tokens", "output_tokens"):
            if (found := told[name]) is not None:
                quantiles = f"p50 {format_count(found['p50'])}, p95 {format_count(found['p95'])}"
                text = f"{format_number(found['mean'])} on average, {quantiles}, at most {format_count(found['max'])}"
                lines.append(f"  {name.replace('_', ' ')}: {text}")
        lines.append(f"  longest request, answer included: {format_count(told['longest_request_tokens'] or 0)} tokens")
        columns = ("Load", "Conversations", "Requests", "Input tokens", "Output tokens", "Lasts")
        kept = [place for place in range(len(columns)) if place != 1 or self.workload.converses]
        rows = tuple(tuple(_row(each)[place] for place in kept) for each in self.forecasts)
        table = Table(tuple(columns[place] for place in kept), rows, frozenset(range(1, len(kept))))
        lines += ["", *aligned(table)]
        lines += ["", f"All levels: {_time(self.seconds)}{_longer(self.workload)}{_price(self.cost)}"]
        return "\n".join(lines)


def explain(
    workload: AnyWorkload, played: Sequence[Rehearsed], levels: Sequence[Level], model: Model | None
) -> Explanation:
    """played: the first conversations or requests; of a trace all that are sent."""
    return Explanation(workload, played, [_forecast(level, workload, played) for level in levels], model)


def _forecast(level: Level, workload: AnyWorkload, played: Sequence[Rehearsed]) -> Forecast:
    begun = _begun(level, workload)
    each = [statistics.fmean(map(len, played))] if played else [0.0]
    each += [statistics.fmean([sum(request[side] for request in one) for one in played] or [0.0]) for side in (0, 1)]
    requests, inputs, outputs = (None if begun is None else begun * value for value in each)
    if isinstance(workload, ReplayedWorkload) and workload.offsets:
        seconds: float | None = workload.offsets[-1]
    else:
        seconds = level.duration if begun is None or level.rate is None else level.duration or begun / level.rate
    return Forecast(level, begun, requests, inputs, outputs, seconds)


def _begun(level: Level, workload: AnyWorkload) -> float | None:
    if isinstance(workload, ReplayedWorkload):
        return float(len(workload.trace.rows))
    most = level.sessions if workload.converses else level.requests
    if level.rate is not None and level.duration is not None:
        due = expected_arrivals(level, 0.0, level.duration)
        return due if most is None else min(due, float(most))
    return None if most is None else float(most)


def _row(each: Forecast) -> tuple[str, ...]:
    counts = (each.begun, each.requests, each.input_tokens, each.output_tokens)
    told = ["as answered" if count is None else format_count(count) for count in counts]
    return (level_name(each.level), *told, _time(each.seconds))


def _time(seconds: float | None) -> str:
    return "until done" if seconds is None else format_duration(seconds)


def _longer(workload: AnyWorkload) -> str:
    """The moments of a trace are what it lasts at least, where turns wait for their answers."""
    waits = isinstance(workload, ReplayedWorkload) and any(wait.answers for wait in workload.waits)
    return ", or more where turns wait for their answers" if waits else ""


def _price(cost: float | None) -> str:
    return "" if cost is None else f", {cost:.2f} at the entry's price of its GPUs"


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
