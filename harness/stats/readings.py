"""READINGS: rules that notice unusual results, each with the figures that show it, a likely cause, and what to try.

A cause is likely, not proved: each rule says what else it looked at. What is expected at a load is not said, nor
what may be chance. Of healthy made-up services fewer than one sweep in a hundred has any reading
(tests/stats/reading_cells.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.stats.level_stats import LevelStats
from harness.units import format_count, format_duration, format_number, format_percent

TAIL = 10.0  # times the median, from which on a tail is another thing than its median
GROWN = 5.0  # times the TTFT of the lowest load; at 0.8 of its knee a queue may well reach 3 in a minute
LOAD_UP, TOKENS_UP = 1.5, 1.1  # so much more load for so little more tokens: nothing is left to gain
LEAST = 30  # samples behind a median and a tail that are compared
SURE = 3.0  # standard deviations by which tokens must fall behind the load: requests come by chance, too
REFUSED = 0.01


@dataclass(frozen=True)
class Reading:
    """level: its number. found: the evidence. because: the likely cause. advice: what to try."""

    rule: str
    level: int | None
    found: str
    because: str
    advice: str

    def as_dict(self) -> dict[str, object]:
        return dict(self.__dict__)


def readings(levels: Sequence[LevelStats]) -> tuple[Reading, ...]:
    """Of all levels of a run, in order of the load; each rule once, at the lowest load that shows it."""
    ordered = sorted(levels, key=lambda level: level.load or 0.0)
    found: dict[str, Reading] = {}
    for place, level in enumerate(ordered):
        for rule in READINGS:
            if (told := rule(level, ordered[:place])) is not None:
                found.setdefault(told.rule, told)
    return tuple(found.values())


def long_prefills(level: LevelStats, below: Sequence[LevelStats]) -> Reading | None:
    """Late first tokens while nothing waits."""
    times, waiting = _tail(level, "ttft"), level.server.waiting
    if times is None or waiting is None or waiting > 0:
        return None
    return Reading(
        "long_prefills", level.level,
        f"p99 TTFT is {format_number(times)} times p50 while the queue is empty",
        "prefill of long prompts, which others wait behind inside the batch",
        "try chunked prefill, or a smaller max_batch_prefill_tokens",
    )  # fmt: skip


def stalls(level: LevelStats, below: Sequence[LevelStats]) -> Reading | None:
    """Long gaps without any preempted chat."""
    times = _tail(level, "itl")
    if times is None or level.server.preempted:
        return None
    p99 = format_duration(level.figures["itl"].quantiles["p99"])
    return Reading(
        "stalls", level.level,
        f"p99 ITL is {format_number(times)} times p50 ({p99}), and no chat is known to have been preempted",
        "decode steps wait while the prompts of others are read",
        "try chunked prefill, or a smaller max_batch_prefill_tokens; both delay first tokens",
    )  # fmt: skip


def put_back(level: LevelStats, below: Sequence[LevelStats]) -> Reading | None:
    """Chats that lost their place in the KV cache."""
    count = level.server.preempted
    if not count:
        return None
    return Reading(
        "put_back", level.level,
        f"{format_count(count)} chats were preempted while they were answered",
        "the KV cache is full: what was computed for them is computed again",
        "lower the concurrency limit, shorten histories, or give the KV cache more memory",
    )  # fmt: skip


def queueing(level: LevelStats, below: Sequence[LevelStats]) -> Reading | None:
    """First tokens that come late because requests wait their turn."""
    waiting, ttft = level.server.waiting, level.figures["ttft"]
    lowest = next((each for each in below if each.figures["ttft"].n >= LEAST), None)
    if not waiting or lowest is None or ttft.n < LEAST:
        return None
    times = ttft.quantiles["p50"] / lowest.figures["ttft"].quantiles["p50"]
    if not times >= GROWN:
        return None
    return Reading(
        "queueing", level.level,
        f"p50 TTFT is {format_number(times)} times that of the lowest load, with up to {format_count(waiting)} waiting",
        "requests wait for a place in the batch",
        f"more replicas; or a higher limit of the batch where ITL and the KV cache have room{_without_queue(level)}",
    )  # fmt: skip


def _without_queue(level: LevelStats) -> str:
    """What that would buy, by the engine's own account of where the time went."""
    parts = level.time_parts
    if parts is None or not parts.ttft or not parts.queue or parts.queue >= parts.ttft:
        return ""
    left, share = format_duration(parts.ttft - parts.queue), format_percent(parts.queue / parts.ttft)
    return (
        f"; estimate: {share} of the mean TTFT of {format_duration(parts.ttft)} is that wait, without it {left} is left"
    )


def full(level: LevelStats, below: Sequence[LevelStats]) -> Reading | None:
    """More load that brings no more tokens, though all of it is taken."""
    before = below[-1] if below else None
    if (
        _refused(level) > REFUSED
        or before is None
        or not before.load
        or level.load is None
        or level.load < LOAD_UP * before.load
    ):
        return None
    was, now = before.throughput.output_tokens, level.throughput.output_tokens
    if not (was > 0 and 0 < now < TOKENS_UP * was):
        return None
    chance = math.sqrt(sum(1 / max(1, each.figures["e2e"].n) for each in (before, level)))  # as of Poisson arrivals
    if math.log(level.load / before.load / (now / was)) < SURE * chance:
        return None
    return Reading(
        "full", level.level,
        f"{format_number(level.load / before.load)} times the load brings {format_number(now / was)} times the tokens "
        f"per second ({format_number(was)} to {format_number(now)})",
        "the GPU is as busy as it gets: more load only waits",
        "run below this load; for more, add a replica, quantize, or take a faster GPU",
    )  # fmt: skip


def refused(level: LevelStats, below: Sequence[LevelStats]) -> Reading | None:
    """Requests that the service did not take."""
    share = _refused(level)
    if share <= REFUSED:
        return None
    return Reading(
        "refused", level.level,
        f"{format_percent(share)} of the requests were refused as too many",
        "the service's own limit of requests at once, not its speed",
        "raise max_concurrent_requests where the KV cache has room, or keep clients below it",
    )  # fmt: skip


def _refused(level: LevelStats) -> float:
    """Share of what was sent."""
    return level.errors.get("overloaded", 0) / max(1, level.requests.sent)


def _tail(level: LevelStats, metric: str) -> float | None:
    """p99 over p50, where it is surely TAIL or more."""
    figure = level.figures[metric]
    if figure.n < LEAST or not figure.quantiles["p50"] > 0:
        return None
    sure = figure.ci95["p99"][0] >= TAIL * figure.ci95["p50"][1]
    return figure.quantiles["p99"] / figure.quantiles["p50"] if sure else None


# A new reading is a function of a level and those of less load, and one line here.
READINGS: tuple[Callable[[LevelStats, Sequence[LevelStats]], Reading | None], ...] = (
    long_prefills,
    stalls,
    put_back,
    queueing,
    full,
    refused,
)
