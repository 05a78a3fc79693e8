"""The steady part of a level: warm-up and cool-down cut off by a stated rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.measure.records import COMPLETED, Records
from harness.measure.run_folder import Level
from harness.stats.quantile import quantile
from harness.units import format_duration

WARMUP_SHARE = 0.1
WARMUP_MOST = 30.0  # seconds
WARMUP_HALF = 0.5  # of the level: a window shorter than this says less than a warm-up that is too short


@dataclass(frozen=True)
class Window:
    """Run-relative seconds; requests due at start <= moment < end count. began: of the level. rule: in words."""

    start: float
    end: float
    began: float
    rule: str

    @property
    def length(self) -> float:
        return max(0.0, self.end - self.start)

    def holds(self, moments: np.ndarray) -> np.ndarray:
        """Which moments lie inside."""
        return (moments >= self.start) & (moments < self.end)


def steady_window(level: Level, records: Records) -> Window:
    """The window of one level. records: of this level.

    It begins after the warm-up and ends when sending ends: while the last answers are awaited the load falls, and
    nothing that is due then exists.
    """
    began, ended = _span(level, records)
    warmup, rule = _warmup(level, records, ended - began)
    return Window(min(began + warmup, ended), ended, began, f"{rule}; the cool-down after the last request was due")


def _span(level: Level, records: Records) -> tuple[float, float]:
    """When sending began and ended. A level that was cut off ends with the last moment that was recorded, and one that
    stalled with the last sign of life: what was due in the silence has no figures.
    """
    due = records.scheduled_at
    began = level.started_at if level.started_at is not None else float(due.min()) if len(due) else 0.0
    if level.sending_ended_at is not None and level.ended_by != "stalled":
        return began, level.sending_ended_at
    columns = [records.token_at, records.finished_at]
    columns += [] if level.ended_by == "stalled" else [due, records.sent_at]
    seen = [column[~np.isnan(column)] for column in columns]
    last = max((float(column.max()) for column in seen if len(column)), default=began)
    if level.duration is not None:
        last = min(last, began + level.duration)
    return began, max(began, np.nextafter(last, np.inf))


def _warmup(level: Level, records: Records, length: float) -> tuple[float, str]:
    if level.warmup is not None:
        return level.warmup, f"left out: the first {format_duration(level.warmup)} as asked"
    if level.replays:
        return 0.0, "left out: no warm-up, as always with a trace"
    done = records.having(COMPLETED)
    typical = quantile(records.finished_at[done] - records.scheduled_at[done], 0.5) if done.any() else 0.0
    least = min(WARMUP_SHARE * length, WARMUP_MOST)
    warmup = min(max(least, typical, level.spread or 0.0), WARMUP_HALF * length)
    starts = "" if level.spread is None else " and the time over which the users' starts were spread"
    rule = (
        f"left out: the first {format_duration(warmup)} as warm-up (a tenth of the level, at most "
        f"{format_duration(WARMUP_MOST)}, at least the median end-to-end latency{starts}, at most half of the level)"
    )
    return warmup, rule
