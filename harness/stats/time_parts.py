"""Where the time goes: the parts of TTFT and of end-to-end latency of a level, as means per request that add up.

The client's clock gives what it saw: when a request was due, sent, first heard of, and when its tokens came. The
engine's own histograms, as sums and counts before and after the level, give the wait in its queue and its work on the
prompt. Only durations are taken from it, so that the two clocks need not agree. What neither explains is shown as
`rest`; below zero it says that parts overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.measure.records import COMPLETED, Floats, Records
from harness.measure.server import ServerSamples
from harness.stats.metrics import first_token, last_token

PARTS = ("client", "network_and_router", "queue", "prefill")
OTHERS_MOST = 1.1  # of our requests: an engine that counted more served others besides


@dataclass(frozen=True)
class TimeParts:
    """Means in seconds over the completed requests of a level, its warm-up included, as the engine counts them too.

    client: from the moment due to that sent. network_and_router: from there until the answer's head, which servers send
    before the first token; None where it comes with that. queue, prefill: inside the engine, None where it tells
    neither. rest: of ttft. generation: from the first token to the end, as the client saw it. total: end-to-end. ttft,
    rest and generation are None where answers are not streamed; computing is then the engine's whole work on one.
    requests: of ours; counted: by the engine, None where it counts none.
    """

    requests: int
    total: float
    client: float
    ttft: float | None = None
    network_and_router: float | None = None
    queue: float | None = None
    prefill: float | None = None
    generation: float | None = None
    computing: float | None = None
    counted: float | None = None

    @property
    def known(self) -> float:
        """All parts of TTFT that are known together."""
        return sum(value for name in PARTS if (value := getattr(self, name)) is not None)

    @property
    def rest(self) -> float | None:
        """What of TTFT nobody explains."""
        return None if self.ttft is None else self.ttft - self.known

    @property
    def rest_of_total(self) -> float:
        """What of the end-to-end latency nobody explains."""
        return self.total - self.known - (self.generation or 0.0) - (self.computing or 0.0)

    @property
    def tells(self) -> bool:
        """Whether the engine tells any of it."""
        return any(each is not None for each in (self.queue, self.prefill, self.computing))

    @property
    def with_others(self) -> bool:
        """Whether the engine's means are also of requests that are not ours."""
        return self.counted is not None and self.counted > OTHERS_MOST * self.requests + 1

    def as_dict(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in PARTS}
        return {
            "requests": self.requests,
            "engine_counted": self.counted,
            "ttft": None if self.ttft is None else {"mean": self.ttft, **parts, "rest": self.rest},
            "e2e": {
                "mean": self.total, **parts, "generation": self.generation, "computing": self.computing,
                "rest": self.rest_of_total,
            },
        }  # fmt: skip


def time_parts(records: Records, samples: ServerSamples, start: float, end: float) -> TimeParts | None:
    """records: of one level, all of them. start, end: of the level until its last answer. None: none completed."""
    completed = records.select(records.having(COMPLETED))
    if not len(completed):
        return None
    engine = _Engine(samples, start, end)
    first = first_token(completed)
    client = _mean(completed.sent_at - completed.scheduled_at)
    total = _mean(completed.finished_at - completed.scheduled_at)
    assert client is not None
    assert total is not None
    queue = _mean(completed.queue_time)  # of these very requests, where the answer's head tells it
    queue = engine.mean("queue") if queue is None else queue
    counted = engine.growth("queue_count") or engine.growth("inference_count")
    if np.isnan(first).all():
        computing = engine.mean("inference")
        return TimeParts(len(completed), total, client, queue=queue, computing=computing, counted=counted)
    ttft = _mean(first - completed.scheduled_at)
    prefill = engine.prefill(_mean(last_token(completed) - first), queue, len(completed))
    head = _mean(completed.first_byte_at - completed.sent_at)
    service = _mean(first - completed.sent_at)
    early = head is not None and service is not None and _early(head, service, (queue or 0.0) + (prefill or 0.0))
    return TimeParts(
        requests=len(completed),
        total=total,
        client=client,
        ttft=ttft,
        network_and_router=head if early else None,
        queue=queue,
        prefill=prefill,
        generation=_mean(completed.finished_at - first),
        counted=counted,
    )


def _early(head: float, service: float, inside: float) -> bool:
    """Whether answers' heads come before the engine's work: else they hold its queue and its prefill, which would be
    counted twice. 2 % and 1 ms are left to the means being of slightly different requests.
    """
    if not inside:  # nothing to hold it against: only a head that is far ahead of the first token surely holds neither
        return head < 0.5 * service
    return head < 0.95 * service and head + inside <= 1.02 * service + 1e-3


def _mean(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


@dataclass(frozen=True)
class _Engine:
    """What the engine's counters grew by over a level."""

    samples: ServerSamples
    start: float
    end: float

    def growth(self, name: str) -> float | None:
        return self.samples.growth(name, self.start, self.end)

    def mean(self, part: str) -> float | None:
        """Seconds that one request spent in a part."""
        seconds, count = self.growth(f"{part}_seconds"), self.growth(f"{part}_count")
        return seconds / count if seconds is not None and count else None

    def prefill(self, streaming: float | None, queue: float | None, requests: int) -> float | None:
        """From being taken up to the first token, by the first way that the engine's counters allow: as it tells it
        itself; its time to the first token without the queue; its whole work without the time in which the client saw
        tokens come; the seconds of all prompts over our requests.
        """
        told, first, whole = self.mean("prefill"), self.mean("first_token"), self.mean("inference")
        if told is not None:
            return told
        if first is not None and queue is not None:
            return max(0.0, first - queue)
        if whole is not None and streaming is not None:
            return max(0.0, whole - streaming)
        seconds = self.growth("prefill_seconds")
        return seconds / requests if seconds is not None else None
