"""Runs levels in load processes, one after another.

All processes begin a level at the same moment; the next one begins when the last answer of the slowest is in.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.load.live import Growth, Live, live_line
from harness.load.plan import LoadOutcome, LoadPlan
from harness.load.pool import Pool
from harness.load.worker_pool import PREPARED_WITHIN, WorkerPool
from harness.measure.run_folder import Level
from harness.units import format_count, format_duration

STALLED_AFTER = 60.0  # seconds without a token to anyone; TGI's longest forwards are shorter by far
DUMB_AFTER = 30.0  # seconds; a load process says how it is getting on once a second
TURNED_AWAY_AFTER = 5.0  # seconds in which every request was answered with an error
REFUSED_AFTER = 5.0  # seconds in which nobody took a connection

# Why a run is cut off by its own observation, by the `ended_by` of its last level.
CUT_OFF = {
    "service_gone": "the service is away",
    "stalled": "nobody got a token for a long time",
    "turned_away": "every request fails",
}

OnLevel = Callable[[Level], None]


def run(
    plan: LoadPlan,
    levels: Iterable[Level],
    *,
    on_level: OnLevel = lambda level: None,
    progress: Callable[[str], None] = lambda text: None,
    gone: Callable[[], str | None] = lambda: None,
    pool: Pool | None = None,
    show: Callable[[str], None] | None = None,
    engine: Callable[[], str] = lambda: "",
    ended: Callable[[Level], str | None] = lambda level: None,
) -> LoadOutcome:
    """Run every level and return how they went.

    levels: in each exactly one of users and arrival is set, and the first of duration and requests that is reached ends
    it. Each is asked for when the one before has ended and on_level was told: whoever gives them may decide by what
    became of that one.
    on_level: is called when a level begins and when it has ended. gone: says why the service is away, None while it
    is there. pool: load processes that are running already, as many as the plan wants. show: takes the live line, once
    a second or less often; by default progress does. engine: what the engine says of itself, for that line.
    ended: says why a level is to end, None while it goes on, where somebody else decides that.
    Ctrl-C ends the level and is told in the outcome; a second one raises KeyboardInterrupt. Raises ClientFailed when no
    process is left.
    """
    with contextlib.ExitStack() as stack:
        pool = pool or stack.enter_context(WorkerPool(plan.processes))
        pool.take(plan)
        hooks = _Hooks(on_level, progress, gone, show or progress, engine, ended)
        ended_levels: list[Level] = []
        for level in levels:
            told = _LevelRun(pool, level, hooks).run()
            ended_levels.append(told)
            on_level(told)
            if told.ended_by in ("interrupted", "stopped", *CUT_OFF) or pool.interrupted:
                break
        return LoadOutcome(tuple(ended_levels), tuple(pool.lost), pool.interrupted, pool.streams)


def moved_line(moved: Sequence[float]) -> str:
    """Of turns of a trace that could not be sent at their own moments. moved: seconds."""
    turns, mean = f"{format_count(len(moved))} turn{'s' if len(moved) != 1 else ''}", sum(moved) / len(moved)
    return (
        f"{turns} of the trace waited for the answer before: sent {format_duration(mean)} later than recorded on "
        f"average, {format_duration(max(moved))} at most, with the pauses that the trace tells"
    )


@dataclass(frozen=True)
class _Hooks:
    """Who is told of the levels, and who is asked; as in `run`."""

    on_level: OnLevel
    progress: Callable[[str], None]
    gone: Callable[[], str | None]
    show: Callable[[str], None]
    engine: Callable[[], str]
    ended: Callable[[Level], str | None]


class _LevelRun:
    """One level while it runs, seen from the harness."""

    def __init__(self, pool: Pool, level: Level, hooks: _Hooks) -> None:
        self._pool, self._level, self._live, self._hooks = pool, level, Live(level), hooks
        self._ended: dict[int, dict[str, Any]] = {}
        self._began = 0.0

    def run(self) -> Level:
        pool = self._pool
        pool.reason = None
        pool.order(do="prepare", level=self._level.as_dict())
        pool.await_all("prepared", within=PREPARED_WITHIN)
        if pool.page is not None:
            self._hooks.progress(f"Locust's page: {pool.page}")
            pool.page = None
        at = pool.now() + pool.start_after
        begun = replace(self._level, started_at=at)
        self._hooks.on_level(begun)
        self._live.level = begun
        growth = Growth(begun)
        self._began = time.monotonic()
        pool.order(do="begin", at=at)
        while set(pool.alive()) - set(self._ended):
            self._listen()
            self._end_the_dumb()
            reason = self._reason_to_end(growth)
            if reason is not None and pool.reason is None:
                pool.stop(reason)
        pool.require_someone()
        moved = [seconds for each in self._ended.values() for seconds in each["moved"]]
        if moved:
            self._hooks.progress(moved_line(moved))
        return replace(
            begun,
            sending_ended_at=max(each["sending_ended_at"] for each in self._ended.values()),
            ended_at=max(each["ended_at"] for each in self._ended.values()),
            spread=max((each["spread"] for each in self._ended.values() if each["spread"]), default=None),
            moved_turns=len(moved) or None,
            moved_mean=sum(moved) / len(moved) if moved else None,
            moved_max=max(moved, default=None),
            jitter=(pool.jitter or None) if begun.users else None,
            ended_by=pool.reason or next((each["ended_by"] for each in self._ended.values() if each["ended_by"]), None),
        )

    def _listen(self) -> None:
        """What a process says next, within a short while."""
        live = self._live
        try:
            said = self._pool.next(timeout=self._pool.patience)
        except KeyboardInterrupt:
            self._pool.interrupt()
            return
        for number in map(int, self._pool.lost):
            live.told.pop(number, None)
        if said is None:
            return
        if said["say"] == "level_ended":
            self._ended[said["process"]] = said
        elif said["say"] == "tick":
            if "stats" in said:
                self._pool.order(do="stats", report=said["stats"])
            live.take(said)
            self._pool.streams = max(self._pool.streams, self._level.users or 0, int(live.total("open")))
            if live.due():
                live.engine = self._hooks.engine()
                self._hooks.show(live_line(live))

    def _end_the_dumb(self) -> None:
        """A load process that was stopped, or hangs, never says that it is done: who is silent for long is ended."""
        pool = self._pool
        for number in set(pool.alive()) - set(self._ended):
            if time.monotonic() - pool.last_report.get(number, self._began) > DUMB_AFTER:
                pool.dismiss(number)

    def _reason_to_end(self, growth: Growth) -> str | None:
        """Why the level should not go on, None where it should."""
        live = self._live
        if (wanted := self._hooks.ended(self._level)) is not None:
            return wanted
        if live.silent > STALLED_AFTER:
            return "stalled"
        if self._hooks.gone() is not None or live.refused_for > REFUSED_AFTER:
            return "service_gone"
        if live.turned_away_for > TURNED_AWAY_AFTER:
            return "turned_away"
        return "oversaturated" if growth.endless(live) else None
