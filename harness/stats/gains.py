"""Estimates what a change would gain, from the levels of a search: with their reasoning, not measured.

A decode step reads the weights once, and of each chat its KV cache; so its time is a fixed part and one that grows with
the chats (R. Pope et al., "Efficiently Scaling Transformer Inference", MLSys 2023, section 2.2). ITL over the load is
therefore a straight line, and where a changed line would meet the bound is a load. What an estimate leaves out is said
with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from harness.stats.binding import FULL
from harness.stats.capacity_report import CapacityReport, HistoryCapacity
from harness.units import format_count, format_duration, format_percent

LEAST_LEVELS = 4  # of unlike loads, through which a line is drawn
REPLICAS = 2


@dataclass(frozen=True)
class Gain:
    """change: what is done. load: that would then hold, of the report's unit; low, high: 95 %; high None: no end known.
    at_most: it is the most that can come of it. why: the reasoning, with the figures it rests on. setting: KEY=VALUE of
    the entry, by which it can be measured.
    """

    change: str
    load: float
    low: float
    high: float | None
    why: str
    at_most: bool = False
    setting: str | None = None


@dataclass(frozen=True)
class ItlLine:
    """ITL p95 in seconds over the load. spread: covariance of (fixed, each). freedom: of Student's t."""

    fixed: float
    each: float
    spread: tuple[tuple[float, float], tuple[float, float]]
    freedom: int

    def crossing(self, limit: float, part: float = 1.0) -> tuple[float, float, float] | None:
        """The load at which the line reaches a limit, with only so much of its fixed part, and the ends of 95 % (delta
        method). None where it is not sure to rise, or begins beyond the limit.
        """
        sure = float(stdtrit(self.freedom, 0.975))
        if self.each <= sure * math.sqrt(self.spread[1][1]) or part * self.fixed >= limit:
            return None
        load = (limit - part * self.fixed) / self.each
        turn = np.array([part, load])
        off = sure * math.sqrt(max(float(turn @ np.array(self.spread) @ turn), 0.0)) / self.each
        return load, max(0.0, load - off), load + off


def itl_line(found: HistoryCapacity) -> ItlLine | None:
    """By least squares through the levels whose queue did not grow; None with fewer than LEAST_LEVELS loads."""
    points = [
        (outcome.offered, figures.itl_p95)
        for outcome, _, figures in found.counted
        if not outcome.saturated and not outcome.drifts and math.isfinite(figures.itl_p95)
    ]
    if len({load for load, _ in points}) < LEAST_LEVELS:
        return None
    loads, times = np.array(points).T
    shape = np.stack([np.ones_like(loads), loads], axis=1)
    fixed, each = np.linalg.lstsq(shape, times, rcond=None)[0]
    freedom = len(points) - 2
    left = times - shape @ np.array([fixed, each])
    spread = np.linalg.inv(shape.T @ shape) * float(left @ left) / freedom
    return ItlLine(float(fixed), float(each), tuple(map(tuple, spread.tolist())), freedom)  # type: ignore[arg-type]


def gains(report: CapacityReport, found: HistoryCapacity, flags: Mapping[str, str]) -> tuple[Gain, ...]:
    """Of the history, by what binds beside its limit; none without an estimate, or where the client binds. flags: of
    the engine that was measured, so that nothing is proposed that is set already.
    """
    beside = found.beside_the_limit
    if found.answer.best is None or not beside:
        return ()
    figures = beside[0][1]
    resource = figures.binds.resource
    made: list[Gain] = []
    if resource == "queue limit":
        made += _higher_limit(report, found, figures.kv_used)
    if resource == "kv memory":
        made += _smaller_cache(report, found, flags)
    if resource in ("kv memory", "prefill"):
        made += _shorter_history(report, found)
    if resource == "decode":
        made += _smaller_weights(report, found, flags)
    if resource is not None and resource != "client":
        made += _replicas(found)
    return tuple(made)


def _ends(found: HistoryCapacity, times: float) -> tuple[float, float, float | None]:
    """The estimate and its interval, scaled by a factor."""
    answer = found.answer
    assert answer.best is not None
    return times * answer.best, times * answer.holds, None if answer.breaks is None else times * answer.breaks


def _within_itl(
    report: CapacityReport, found: HistoryCapacity, ends: tuple[float, float, float | None]
) -> tuple[tuple[float, float, float | None], str]:
    """The same, but no more than the ITL bound allows by the line; and in words what of it is known."""
    limit = _itl_limit(report)
    if limit is None:
        return ends, ""
    line = itl_line(found)
    meets = None if line is None else line.crossing(limit)
    if meets is None:
        return ends, ", as long as ITL allows it, which these levels do not tell"
    if meets[0] >= ends[0]:
        return ends, f"; ITL would reach its bound only at {format_count(round(meets[0]))}"
    high = meets[2] if ends[2] is None else min(ends[2], meets[2])
    return (meets[0], min(ends[1], meets[1]), high), "; there ITL reaches its bound, by a line through the levels"


def _itl_limit(report: CapacityReport) -> float | None:
    return next((each.limit for each in report.slo.bounds if (each.metric, each.statistic) == ("itl", "p95")), None)


def _higher_limit(report: CapacityReport, found: HistoryCapacity, kv_used: float | None) -> Iterator[Gain]:
    if kv_used is None or not 0 < kv_used < FULL:
        return
    ends, more = _within_itl(report, found, _ends(found, FULL / kv_used))
    why = f"the KV cache was {format_percent(kv_used)} full at most, and its use grows with the requests{more}"
    places = math.ceil(ends[0])
    yield Gain("a higher limit of requests at once", *ends, why, True, f"limits.max_concurrent_requests={places}")


def _smaller_cache(report: CapacityReport, found: HistoryCapacity, flags: Mapping[str, str]) -> Iterator[Gain]:
    if _set_already(flags, "kv"):
        return
    ends, more = _within_itl(report, found, _ends(found, 2.0))
    why = f"a KV cache of one byte a value instead of two holds twice as many tokens{more}"
    yield Gain("an fp8 KV cache", *ends, why, True, "kv_cache_dtype=fp8")


def _shorter_history(report: CapacityReport, found: HistoryCapacity) -> Iterator[Gain]:
    cost, history, best = report.history_cost, found.history, found.answer.best
    if cost is None or history is None or best is None or cost.low is None or cost.loads <= 0:
        return
    half = max(cost.shortest, history // 2)
    if half >= history:
        return
    less = (history - half) / 1000
    high = None if cost.high is None else best + less * cost.high
    why = f"by what each 1,000 tokens of history cost between {cost.shortest:,} and {cost.longest:,}"
    change = f"histories of {format_count(half)} instead of {format_count(history)} tokens"
    yield Gain(change, best + less * cost.loads, max(0.0, best + less * cost.low), high, why)


def _smaller_weights(report: CapacityReport, found: HistoryCapacity, flags: Mapping[str, str]) -> Iterator[Gain]:
    limit, line = _itl_limit(report), itl_line(found)
    meets = None if limit is None or line is None else line.crossing(limit, 0.5)
    if meets is None or line is None or line.fixed <= 0 or _set_already(flags, "quant"):
        return
    why = (
        f"by a line through the levels a step takes {format_duration(line.fixed)} and {format_duration(line.each)} for "
        "each more; at half the bytes the weights are read in half the time, which is at most half of that fixed part"
    )
    yield Gain("weights of half the bytes", *meets, why, True, "quantize=fp8")


def _replicas(found: HistoryCapacity) -> Iterator[Gain]:
    why = "services of their own that share the load evenly hold as many times as much; behind an uneven router, less"
    yield Gain("a second replica", *_ends(found, REPLICAS), why)


def _set_already(flags: Mapping[str, str], what: str) -> bool:
    """Whether the engine has a setting of this kind that is not its default."""
    named = [value.lower() for name, value in flags.items() if what in name.lower()]
    return any(value not in ("", "auto", "none") for value in named)
