"""Which resource binds at a load: from the engine's gauges, the client's records and the tightest bound.

Looked at in this order, as each hides those behind it: a client that is late measures itself; a request that is refused
never reaches the engine; a full KV cache keeps chats waiting or preempts them, whatever the GPU could compute. Where
the cache has room, answers that come too slowly are the decode steps of the batch; requests that wait while all places
of the batch are taken wait for the engine's own limit; and first tokens that come too late otherwise are the reading of
prompts. Decode and prefill bind only where answers are slow: not where most of what misses a bound has failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from harness.catalog.slo import Bound
from harness.measure.records import COMPLETED, IN_FLIGHT, Records
from harness.stats.decision import failures
from harness.stats.metrics import BY_NAME
from harness.stats.quantile import quantile
from harness.stats.server import ServerFigures
from harness.units import format_duration, format_percent

Resource = Literal["client", "queue limit", "kv memory", "prefill", "decode"]
LATE_SHARE = 0.1  # of the TTFT bound, or of a second: a client that sends later than this at p99 binds itself
FULL = 0.95  # of the KV cache
REFUSED_SHARE = 0.01
PACES = ("itl", "tpot")


@dataclass(frozen=True)
class Binding:
    """resource: None where nothing tells. why: in words."""

    resource: Resource | None
    why: str

    def as_dict(self) -> dict[str, Any]:
        return {"resource": self.resource, "why": self.why}


def binding(records: Records, server: ServerFigures, nearest: Bound | None, places: float | None = None) -> Binding:
    """records: those due in the level's window. nearest: the bound that breaks first there; None where nothing missed
    any. places: requests that the engine answers at once at most, where that is known.
    """
    late = _late(records)
    limit = nearest.limit if nearest is not None and nearest.metric not in PACES else 1.0
    if late > LATE_SHARE * limit:
        return Binding("client", f"the client sent {format_duration(late)} late at p99")
    failed = failures(records)
    refused = failed.get("overloaded", 0.0)
    if refused > REFUSED_SHARE:
        return Binding("queue limit", f"{format_percent(refused)} of the requests were refused as too many")
    if server.preempted:
        return Binding("kv memory", f"{server.preempted:.0f} requests were preempted for want of KV cache")
    if server.kv_used is not None and server.kv_used >= FULL:
        return Binding("kv memory", f"the KV cache was {format_percent(server.kv_used)} full")
    if nearest is None:
        return Binding(None, "every request was within the bounds, or none tells")
    slow = failed.pop("timeout", 0.0) + _slow(records, nearest)
    if failed and sum(failed.values()) >= slow:
        return _binding_of_failures(failed, nearest)
    if nearest.metric in PACES:
        return Binding("decode", f"{nearest.name} is nearest to breaking: the steps of the batch take longest")
    if server.running is None:
        return Binding(None, f"{nearest.name} is nearest to breaking, and the engine does not tell how many it answers")
    if places is not None and server.running >= places and server.waiting:
        return Binding("queue limit", f"{server.waiting:.0f} waited while all {places:.0f} places were taken")
    return Binding("prefill", f"{nearest.name} is nearest to breaking, and neither cache nor places were full")


def scaled_by_history(resource: Resource | None, before: int, after: int) -> float:
    """By what factor the limit moves from a history of `before` tokens to one of `after`, as a first guess.

    How many chats fit into the KV cache, and how many prompts are read, goes as one over the history.
    A decode step reads the weights once and every chat's history, so that it grows by less: by its square root, which
    lies between the two. Places and a client do not depend on it. Where nothing tells, as of decode.
    """
    if resource in ("queue limit", "client"):
        return 1.0
    return (before / after) ** (1.0 if resource in ("kv memory", "prefill") else 0.5)


def _slow(records: Records, bound: Bound) -> float:
    """Share of the requests whose answer, or of it as many gaps, came beyond the bound; open ones are slow."""
    done = records.having(COMPLETED)
    samples = BY_NAME[bound.metric].of(records.select(done)).samples
    beyond = float(np.mean(samples > bound.limit)) if len(samples) else 0.0
    return beyond * float(np.mean(done)) + float(np.mean(records.having(IN_FLIGHT)))


def _binding_of_failures(failed: dict[str, float], nearest: Bound) -> Binding:
    """failed: shares by kind, which together are more than what was slow."""
    kind = max(failed, key=lambda each: failed[each])
    why = f"{format_percent(failed[kind])} of the requests failed ({kind}), and fewer missed {nearest.name} otherwise"
    resources: dict[str, Resource] = {"overloaded": "queue limit", "dropped": "client"}
    return Binding(resources.get(kind), why)


def _late(records: Records) -> float:
    """Seconds by which requests left after they were due, at p99; 0 where none left."""
    lags = records.sent_at - records.scheduled_at
    lags = lags[~np.isnan(lags)]
    return quantile(lags, 0.99) if len(lags) else 0.0
