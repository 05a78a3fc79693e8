"""TGI's scheduler by the real clock, with what TGI's router counts and logs of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Protocol

from harness.emulator.clockwork import Clockwork
from harness.emulator.log import Log
from harness.emulator.metrics import Metrics
from harness.emulator.problems import GENERATION, Refused
from harness.simulator.request import EngineRequest
from harness.simulator.scheduler import Emission, EngineCall, EngineSettings, Scheduler

_FILTER, _DECODE_SHARE = 2e-5, 0.02  # what /metrics tells of the parts of a call that nobody models

_ids = count()


class Owner(Protocol):
    """Whose turn it is: told of each token, and of a failure."""

    def advance(self, tokens: int, finished: str | None) -> None: ...

    def fail(self, problem: Refused) -> None: ...


class Turn(EngineRequest):
    """One stay of a generation in the queue and in the batch. It stops after `stop_after` tokens for `stop_reason`."""

    __slots__ = ("owner", "stop_after", "stop_reason")

    def __init__(self, owner: Owner, tokens: Sequence[int], max_new_tokens: int, cacheable: bool) -> None:
        super().__init__(next(_ids), tokens, max_new_tokens, cacheable)
        self.owner = owner
        self.stop_after, self.stop_reason = max_new_tokens, "length"


class Engine(Clockwork):
    """One shard behind TGI's router."""

    def __init__(
        self,
        settings: EngineSettings,
        seconds: Callable[[EngineCall], float],
        admission: Callable[[int], float],
        metrics: Metrics,
        log: Log,
    ) -> None:
        self.metrics, self.log = metrics, log
        self.scheduler = Scheduler(settings, on_lookup=self._looked_up)
        super().__init__(self.scheduler, seconds, admission)

    def _queued(self) -> None:
        self.metrics.gauge("tgi_queue_size", self.scheduler.queue_size)

    def _planned(self, call: EngineCall | None, queued: int) -> None:
        if queued or call is None:
            self._count_dropped()
            if queued:
                self.metrics.gauge("tgi_queue_size", self.scheduler.queue_size)

    def _beginning(self, call: EngineCall) -> None:
        scheduler, metrics = self.scheduler, self.metrics
        if scheduler.batch_size:
            metrics.gauge("tgi_batch_current_size", scheduler.batch_size)
            metrics.gauge("tgi_batch_current_max_tokens", scheduler.batch_max_tokens)
        if call.picked:
            metrics.record("tgi_batch_next_size", len(call.picked))
            if call.concat_reason:
                metrics.count("tgi_batch_concat", f'reason="{call.concat_reason}"')
        metrics.count("tgi_batch_inference_count", f'method="{call.kind}"')

    def _completed(self, call: EngineCall, emissions: Sequence[Emission]) -> None:
        steps: dict[int, int] = {}
        for _, tokens, _ in emissions:
            steps[tokens - 1] = steps.get(tokens - 1, 0) + 1
        for skipped, times in steps.items():
            self.metrics.summarise("tgi_request_skipped_tokens", skipped, times)
        self._count_dropped()
        self._record(call)

    def _record(self, call: EngineCall) -> None:
        metrics, method = self.metrics, f'method="{call.kind}"'
        took = self._ends_at - self._started_at
        if call.joined:
            metrics.record("tgi_batch_concat_duration", _FILTER, 'method="decode"')
        metrics.record("tgi_batch_forward_duration", took * (1 - _DECODE_SHARE), method)
        metrics.record("tgi_batch_decode_duration", took * _DECODE_SHARE, method)
        metrics.record("tgi_batch_filter_duration", _FILTER, method)
        metrics.record("tgi_batch_inference_duration", took + _FILTER, method)
        metrics.count("tgi_batch_inference_success", method)

    def _between(self) -> None:
        if not self.scheduler.running:
            self.metrics.gauge("tgi_batch_current_size", 0)
            self.metrics.gauge("tgi_batch_current_max_tokens", 0)

    def _call_failed(self, call: EngineCall) -> None:
        self.metrics.count("tgi_batch_inference_failure", f'method="{call.kind}"')

    def _fail_all(self, failed: Sequence[EngineRequest], text: str) -> None:
        problem = Refused(GENERATION, f"Server error: {text}")
        for request in failed:
            self.metrics.count("tgi_request_failure", 'err="generation"')
            self.log.router(
                "ERROR", "text_generation_router_v3::backend", "backends/v3/src/backend.rs:546", problem.text
            )
            request.owner.fail(problem)  # type: ignore[attr-defined]

    def _count_dropped(self) -> None:
        for _ in self.scheduler.take_dropped():
            self.metrics.count("tgi_request_failure", 'err="dropped"')

    def _looked_up(self, prefix: int, suffix: int) -> None:
        self.log.router(
            "INFO",
            "text_generation_router_v3::radix",
            "backends/v3/src/radix.rs:108",
            f"Prefix {prefix} - Suffix {suffix}",
        )
