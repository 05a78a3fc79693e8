"""The live view: the reports of all load processes, merged into one line."""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from harness.measure.offered import expected_arrivals
from harness.measure.run_folder import Level
from harness.units import format_count, format_duration, format_number

RECENT = 10.0  # seconds that live figures look back
_EVERY = 5.0  # seconds between lines where nobody watches
# A level ends as over-saturated after as many seconds, with as many requests waiting, and such a share of all due.
GROWTH_AFTER, GROWTH_LEAST, GROWTH_SHARE = 20.0, 20, 0.2


@dataclass
class Live:
    """One level as the processes last told it.

    engine: what the engine says of itself, such as `, 12 running, 3 queued`.
    """

    level: Level
    told: dict[int, dict[str, Any]] = field(default_factory=dict)
    last: float = field(default_factory=time.monotonic)
    engine: str = ""
    _taken_at: float = field(default_factory=time.monotonic)
    _away_since: float = field(default_factory=time.monotonic)
    _completed: int = 0
    _decoded: int = 0
    _events: dict[int, deque[tuple[float, int]]] = field(default_factory=dict)

    def take(self, tick: dict[str, Any]) -> None:
        """What a process tells before it has begun this level is of the one before."""
        if tick["level"] == self.level.level:
            self.told[tick["process"]] = tick
            events = self._events.setdefault(tick["process"], deque())
            events.append((tick["at"], tick["decoded"]))
            while events[-1][0] - events[0][0] > RECENT:
                events.popleft()

    def due(self) -> bool:
        """Whether it is time for a line."""
        if time.monotonic() - self.last < (1.0 if sys.stderr.isatty() else _EVERY):
            return False
        self.last = time.monotonic()
        return True

    @property
    def refused_for(self) -> float:
        """Seconds in which every request of every process was refused."""
        if not self.told or not all(each["refused_in_a_row"] for each in self.told.values()):
            self._taken_at = time.monotonic()
        return time.monotonic() - self._taken_at

    @property
    def turned_away_for(self) -> float:
        """Seconds in which every request failed and none was being answered: the service takes nobody."""
        answered = self.count("completed") != self._completed or self.total("decoded") != self._decoded
        if answered or not self.count("failed") or self.total("open"):
            # One that is open may be answered yet; where each is turned away at once there is hardly ever one.
            self._completed, self._decoded = self.count("completed"), int(self.total("decoded"))
            self._away_since = time.monotonic()
        return time.monotonic() - self._away_since

    @property
    def events_per_second(self) -> float:
        """Token events of all processes over the last RECENT seconds: an engine sends those of all its chats at once,
        so that a single second holds one batch of them more or less.
        """
        ends = [(events[0], events[-1]) for events in self._events.values() if len(events) > 1]
        return sum((after - before) / (end - begin) for (begin, before), (end, after) in ends if end > begin)

    def total(self, name: str) -> float:
        """A figure of all processes together."""
        return sum(each.get(name, 0) for each in self.told.values())

    @property
    def silent(self) -> float:
        """Seconds in which nobody got a token while requests were open."""
        return min((each["silent"] for each in self.told.values() if each["open"]), default=0.0)

    def count(self, name: str) -> int:
        return sum(each["counts"].get(name, 0) for each in self.told.values())

    def pooled(self, name: str) -> list[float]:
        return sorted(value for each in self.told.values() for value in each[name])


class Growth:
    """Whether the requests without a first token of an open loop grow for as long as the load lasts.

    Looked at in thirds of the level so far: the fewest in the last third exceed the most of the third before, the last
    third alone grew at no less than half the pace of the whole, and a good part of all that was due waits. A trace is
    never ended: its load changes by nature.
    """

    def __init__(self, level: Level) -> None:
        self._applies = level.arrival is not None and not level.replays
        self._level, self._began = level, level.started_at or 0.0
        self._waiting: list[tuple[float, float]] = []

    def endless(self, live: Live) -> bool:
        """Takes note of how many wait now; whether their number can be said to grow for ever."""
        at = max((each["at"] for each in live.told.values()), default=0.0) - self._began
        if not self._applies or (self._waiting and at <= self._waiting[-1][0]):
            return False
        self._waiting.append((at, live.total("waiting")))
        if at < GROWTH_AFTER:
            return False
        middle = [count for when, count in self._waiting if at / 3 <= when < 2 * at / 3]
        last = [count for when, count in self._waiting if when >= 2 * at / 3]
        if not middle or not last:
            return False
        due = expected_arrivals(self._level, 0.0, at)
        still = last[-1] - last[0] >= last[-1] / 6
        return still and min(last) > max(middle) and last[-1] > max(GROWTH_LEAST, GROWTH_SHARE * due)


def level_name(level: Level) -> str:
    """`16 users`, `4 req/s poisson` or `trace`."""
    if level.users is not None:
        return f"{level.users} user{'s' if level.users != 1 else ''}"
    return f"{level.rate:g} req/s {level.arrival}" if level.rate is not None else "trace"


def live_line(live: Live) -> str:
    """`16 users · 12 s of 60 s, 48 s left · 96 done (8.0/s), 16 open, 3 queued · ttft p50 81 ms p95 120 ms p99 150 ms ·
    itl p50 30 ms p95 41 ms p99 60 ms · 530 tokens/s`; queued and running as the engine tells, else how many wait for
    their first token. `530 events/s` where an event may hold several tokens: their count comes at the end of an answer.
    """
    at = max(0.0, max((each["at"] for each in live.told.values()), default=0.0) - (live.level.started_at or 0.0))
    parts = [level_name(live.level), format_duration(at) + _of(live.level, at)]
    done = f"{format_count(live.count('completed'))} done"
    if at > 0:
        done += f" ({format_number(live.count('completed') / at)}/s)"
    waiting = live.engine or f", {format_count(int(live.total('waiting')))} waiting"
    parts.append(f"{done}, {format_count(int(live.total('open')))} open{waiting}")
    for name in ("failed", "dropped"):
        if live.count(name):
            parts.append(f"{format_count(live.count(name))} {name}")
    for name in ("ttft", "itl"):
        if values := live.pooled(name):
            parts.append(" ".join([name, *(f"p{level} {_at(values, level / 100)}" for level in (50, 95, 99))]))
    if rate := live.events_per_second:
        each = "tokens" if all(told["each_a_token"] for told in live.told.values()) else "events"
        parts.append(f"{format_count(round(rate))} {each}/s")
    return " · ".join(parts)


def _of(level: Level, at: float) -> str:
    if level.duration is None:
        return ""
    left = f", {format_duration(level.duration - at)} left" if at < level.duration else ", waiting for answers"
    return f" of {format_duration(level.duration)}{left}"


def _at(ordered: list[float], level: float) -> str:
    return format_duration(ordered[min(len(ordered) - 1, int(level * len(ordered)))])
