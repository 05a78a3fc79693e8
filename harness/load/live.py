"""The live view: what the load processes say, merged into one line."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Any

from harness.measure.run_folder import Level
from harness.units import format_count, format_duration

_EVERY = 5.0  # seconds between lines where nobody watches


@dataclass
class Live:
    """One level as the processes last told it."""

    level: Level
    told: dict[int, dict[str, Any]] = field(default_factory=dict)
    last: float = field(default_factory=time.monotonic)

    def take(self, tick: dict[str, Any]) -> None:
        self.told[tick["process"]] = tick

    def due(self) -> bool:
        """Whether it is time for a line."""
        if time.monotonic() - self.last < (1.0 if sys.stderr.isatty() else _EVERY):
            return False
        self.last = time.monotonic()
        return True

    @property
    def silent(self) -> float:
        """Seconds in which nobody got a token while requests were open."""
        return min((each["silent"] for each in self.told.values()), default=0.0)

    def count(self, name: str) -> int:
        return sum(each["counts"].get(name, 0) for each in self.told.values())

    def pooled(self, name: str) -> list[float]:
        return sorted(value for each in self.told.values() for value in each[name])


def level_name(level: Level) -> str:
    """`16 users`, `4 req/s poisson` or `trace`."""
    if level.users is not None:
        return f"{level.users} user{'s' if level.users != 1 else ''}"
    return f"{level.rate:g} req/s {level.arrival}" if level.rate is not None else "trace"


def live_line(live: Live) -> str:
    """`16 users · 12 s · 96 done, 16 open · ttft p50 81 ms p95 120 ms · 30 ms a token`."""
    at = max((each["at"] for each in live.told.values()), default=0.0) - (live.level.started_at or 0.0)
    parts = [level_name(live.level), format_duration(max(0.0, at)) + _of(live.level)]
    open_now = sum(each["open"] for each in live.told.values())
    parts.append(f"{format_count(live.count('completed'))} done, {open_now} open")
    for name in ("failed", "dropped"):
        if live.count(name):
            parts.append(f"{live.count(name)} {name}")
    if ttft := live.pooled("ttft"):
        parts.append(f"ttft p50 {_at(ttft, 0.5)} p95 {_at(ttft, 0.95)}")
    if itl := live.pooled("itl"):
        parts.append(f"{_at(itl, 0.5)} a token")
    return " · ".join(parts)


def _of(level: Level) -> str:
    return f" of {format_duration(level.duration)}" if level.duration is not None else ""


def _at(ordered: list[float], level: float) -> str:
    return format_duration(ordered[min(len(ordered) - 1, int(level * len(ordered)))])
