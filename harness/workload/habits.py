"""What a workload says about its users: how many questions a session has, and how long they think between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.workload.pauses import parse_pauses


@dataclass(frozen=True)
class HabitsTold:
    """turns: of a session, on average. think: seconds between an answer and the next question, on average. None where
    the workload does not say: single requests, or users whose own code decides.
    """

    turns: float | None = None
    think: float | None = None


def habits_told(workload: Mapping[str, Any]) -> HabitsTold:
    """workload: as the manifest describes it; of several user classes the mean by their weights. Raises UsageError."""
    parts, weights = workload.get("parts"), workload.get("weights")
    if parts is None or weights is None:
        turns, think = workload.get("mean_turns"), workload.get("think_time")
        return HabitsTold(turns, None if think is None else parse_pauses(think).mean)
    told = [habits_told(part) for part in parts]
    return HabitsTold(_mean([each.turns for each in told], weights), _mean([each.think for each in told], weights))


def converses(workload: Mapping[str, Any]) -> bool:
    """Whether it holds conversations, be it in part. workload: as the manifest describes it."""
    return "mean_turns" in workload or any(converses(part) for part in workload.get("parts") or ())


def _mean(values: list[float | None], weights: list[float]) -> float | None:
    """None where one of them is not known."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return sum(value * weight for value, weight in zip(known, weights, strict=True)) / sum(weights)
