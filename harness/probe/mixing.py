"""What happens when long and short chats arrive together: how they share the cache, how often a long one at the head of
the queue holds back short ones that would fit, and what first come, first served costs against shortest first.

The engine's own scheduler in virtual time, with the speed that the probe measured: a simulation, and reported as one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from harness.engines.base import EngineFacts
from harness.measure.record import RequestRecord
from harness.probe.evidence import Evidence
from harness.probe.setting import CHUNK, Setting
from harness.simulator.scheduler import EngineSettings, StepShape
from harness.simulator.virtual import PlannedRequest, simulate

SHARES = ((500, 0.70), (2000, 0.25), (8000, 0.05))  # history in tokens, and its share of the requests
REQUESTS = 200


@dataclass(frozen=True)
class Speed:
    """Measured: seconds per prompt token, per step, and per chat in a step."""

    per_token: float
    per_step: float
    per_row: float

    def seconds(self, step: StepShape) -> float:
        return self.per_step + self.per_row * step.rows + self.per_token * sum(new for new, _ in step.prompts)

    def request_seconds(self, input_tokens: int) -> float:
        return 0.0


@dataclass(frozen=True)
class Mix:
    """A burst of mixed chats. Seconds; shares of one.

    classes: history lengths, shortest first, with their share of requests, of the cache that requests held over time,
    and the mean time to first token in order of arrival and shortest first. blocked: of the time in which requests
    waited, the part in which one of them would have fit but the first in the queue did not.
    """

    classes: tuple[MixClass, ...]
    blocked: float
    seconds_fifo: float
    seconds_shortest: float

    def as_json(self) -> dict[str, Any]:
        return {
            "simulated": True,
            "requests": REQUESTS,
            "classes": [vars(each) for each in self.classes],
            "head_of_line_blocked": self.blocked,
            "seconds": {"fifo": self.seconds_fifo, "shortest_first": self.seconds_shortest},
        }


@dataclass(frozen=True)
class MixClass:
    """One history length of a mix, see Mix."""

    history_tokens: int
    share_of_requests: float
    share_of_cache: float
    ttft_fifo: float
    ttft_shortest_first: float


def speed_of(evidence: Evidence) -> Speed | None:
    """From the loads that held: a fill for reading, sets of short chats for writing; None where they were not sent."""
    held = [result for each in evidence.outcomes for result in each.loads if result.verdict == "held"]
    fills = [r for r in held if r.load.kind == "fill" and r.ttft_p95 and r.load.tokens > 1000]
    rows = sorted((r.load.rows, r.itl_p95) for r in held if r.load.kind == "rows" and r.itl_p95)
    if not fills or not rows:
        return None
    largest = max(fills, key=lambda result: result.load.tokens)
    prompts = sum(shape.input_tokens for shape in largest.load.shapes)
    (few, slow), (many, fast) = rows[0], rows[-1]
    per_row = max(0.0, (fast - slow) / (many - few)) if many > few else 0.0
    return Speed((largest.ttft_p95 or 0.0) / prompts, max(1e-4, slow - per_row * few), per_row)


def mix(setting: Setting, started: EngineFacts, answer: int, speed: Speed, longest: int, seed: int = 1) -> Mix | None:
    """A burst of chats whose histories are mixed as SHARES says, cut at the longest; None if only one class fits."""
    shares = [(min(history, longest), share) for history, share in SHARES]
    if len({history for history, _ in shares}) < 2 or started.budget is None:
        return None
    settings = _settings(setting, started)
    histories = _drawn(shares, seed)
    answer = min(answer, CHUNK)
    fifo = _run(histories, answer, settings, speed)
    shortest = _run(sorted(histories), answer, settings, speed)
    return Mix(
        classes=tuple(_class(history, histories, answer, fifo, shortest) for history in sorted(set(histories))),
        blocked=blocked_share(fifo, settings.max_batch_total_tokens),
        seconds_fifo=max(record.finished_at or 0.0 for record in fifo),
        seconds_shortest=max(record.finished_at or 0.0 for record in shortest),
    )


def _settings(setting: Setting, started: EngineFacts) -> EngineSettings:
    return EngineSettings(
        max_batch_prefill_tokens=setting.max_batch_prefill_tokens or started.prefill_tokens or 4096,
        max_batch_total_tokens=(setting.max_batch_total_tokens if started.kind != "flash" else None)
        or started.budget
        or 1,
        block_size=started.block_size,
        chunking=started.chunking,
        prefix_cache=False,  # all prompts differ
        padded=started.kind != "flash",
        speculate=started.speculate,
    )


def _drawn(shares: Sequence[tuple[int, float]], seed: int) -> list[int]:
    histories = [history for history, share in shares for _ in range(round(REQUESTS * share))]
    random.Random(seed).shuffle(histories)
    return histories


def _run(histories: Sequence[int], answer: int, settings: EngineSettings, speed: Speed) -> list[RequestRecord]:
    """All at once, in this order; a microsecond apart, so that the order is kept."""
    planned = [PlannedRequest(number * 1e-6, history, answer) for number, history in enumerate(histories)]
    return simulate(planned, settings, speed)


def _class(
    history: int,
    histories: Sequence[int],
    answer: int,
    fifo: Sequence[RequestRecord],
    shortest: Sequence[RequestRecord],
) -> MixClass:
    held = {
        length: sum(_held(record) for record in fifo if record.asked_input_tokens == length)
        for length in set(histories)
    }
    return MixClass(
        history_tokens=history,
        share_of_requests=histories.count(history) / len(histories),
        share_of_cache=held[history] / max(1e-9, sum(held.values())),
        ttft_fifo=_mean_ttft(fifo, history),
        ttft_shortest_first=_mean_ttft(shortest, history),
    )


def _reserved(record: RequestRecord) -> int:
    return (record.asked_input_tokens or 0) + (record.asked_output_tokens or 0) - 1


def _taken_at(record: RequestRecord) -> float:
    return record.scheduled_at + (record.queue_time or 0.0)


def _held(record: RequestRecord) -> float:
    """Token-seconds of cache."""
    return _reserved(record) * ((record.finished_at or 0.0) - _taken_at(record))


def _mean_ttft(records: Sequence[RequestRecord], history: int) -> float:
    times = [
        float(record.token_at[0]) - record.scheduled_at for record in records if record.asked_input_tokens == history
    ]
    return sum(times) / len(times)


def blocked_share(records: Sequence[RequestRecord], budget: int) -> float:
    """Of the time in which requests waited, the part in which one behind the first would have fit and the first did
    not.
    """
    moments = sorted({moment for r in records for moment in (_taken_at(r), r.finished_at or 0.0)})
    waited = blocked = 0.0
    for start, end in pairwise(moments):
        waiting = [r for r in records if _taken_at(r) > start]
        if not waiting:
            continue
        free = budget - sum(_reserved(r) for r in records if _taken_at(r) <= start < (r.finished_at or 0.0))
        waited += end - start
        if _reserved(waiting[0]) > free and any(_reserved(r) <= free for r in waiting):
            blocked += end - start
    return blocked / waited if waited else 0.0


def advice(found: Mix) -> str:
    """The mix in one sentence, as advice for clients."""
    first, last = found.classes[0], found.classes[-1]
    gain = first.ttft_fifo / max(1e-9, first.ttft_shortest_first)
    return (
        f"Mixed lengths (simulated on the engine's scheduler at the measured speed): histories of"
        f" {last.history_tokens:,} tokens are {last.share_of_requests:.0%} of the requests and hold"
        f" {last.share_of_cache:.0%} of the cache; of the time in which requests wait, {found.blocked:.0%} is spent"
        f" behind one that does not fit although a shorter one would. Sent shortest first, short chats would wait"
        f" {gain:.1f} times less in such a burst: let clients send long prompts through a lane of their own."
    )
