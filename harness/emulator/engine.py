"""The scheduler behind the real clock: one forward at a time, each lasting as long as the cost model says.

A forward ends at an absolute moment and the next one begins there, so that delays of this process do not add up. Its
tokens are handed out in one pass, in batch order.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING

from harness.emulator.alarm import Alarm
from harness.emulator.log import Log
from harness.emulator.metrics import Metrics
from harness.emulator.problems import GENERATION, Refused
from harness.simulator.request import EngineRequest
from harness.simulator.scheduler import EngineCall, EngineSettings, Scheduler

if TYPE_CHECKING:
    from harness.emulator.infer import Generation

_TOO_LATE = 0.25  # seconds behind its own clock after which the engine gives up catching up
_FILTER, _DECODE_SHARE = 2e-5, 0.02  # what /metrics tells of the parts of a call that nobody models

_ids = count()


class Turn(EngineRequest):
    """One stay of a generation in the queue and in the batch. It stops after `stop_after` tokens for `stop_reason`."""

    __slots__ = ("owner", "stop_after", "stop_reason")

    def __init__(self, owner: Generation, tokens: Sequence[int], max_new_tokens: int, cacheable: bool) -> None:
        super().__init__(next(_ids), tokens, max_new_tokens, cacheable)
        self.owner = owner
        self.stop_after, self.stop_reason = max_new_tokens, "length"


def _ended(request: EngineRequest) -> str | None:
    return request.stop_reason if request.generated >= request.stop_after else None  # type: ignore[attr-defined]


class Engine:
    """One model server's inside.

    seconds: how long a call takes. admission: how long a prompt of so many tokens takes until it is queued.
    before_call: told each call before it runs, gives seconds to add; it may fail it.
    """

    def __init__(
        self,
        settings: EngineSettings,
        seconds: Callable[[EngineCall], float],
        admission: Callable[[int], float],
        metrics: Metrics,
        log: Log,
    ) -> None:
        self.metrics, self.log = metrics, log
        self.seconds, self.admission = seconds, admission
        self.before_call: Callable[[EngineCall], float] | None = None
        self.scheduler = Scheduler(settings, on_lookup=self._looked_up)
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(self._loop, self._due)
        self._arrivals = Alarm(self._loop, self._arrived)
        self._arriving: list[tuple[float, int | str, Turn]] = []
        self._call: EngineCall | None = None
        self._ends_at = 0.0
        self._started_at = 0.0
        self._waiting: list[asyncio.Future[None]] = []
        self._stopped = False
        self._broken = ""
        self.dead = False

    @property
    def busy(self) -> bool:
        return self._call is not None

    @property
    def running(self) -> int:
        return self.scheduler.running

    def submit(self, turn: Turn) -> None:
        """Queue it when router and tokenizer would be done with it."""
        moment = time.monotonic() + self.admission(turn.input_length)
        heapq.heappush(self._arriving, (moment, turn.id, turn))
        if self._arriving[0][2] is turn:
            self._arrivals.set(moment)

    def _arrived(self) -> None:
        now = time.monotonic()
        while self._arriving and self._arriving[0][0] <= now:
            self.enqueue(heapq.heappop(self._arriving)[2])
        if self._arriving:
            self._arrivals.set(self._arriving[0][0])

    def enqueue(self, turn: Turn) -> None:
        """Append to the queue; a sleeping engine wakes, a broken one refuses."""
        if self._broken:
            turn.queued_at = time.monotonic()
            waiting: list[EngineRequest] = [turn]
            self._loop.call_soon(self._fail_all, waiting, self._broken)
            return
        self.scheduler.enqueue(turn, time.monotonic())
        self.metrics.gauge("tgi_queue_size", self.scheduler.queue_size)
        if self._call is None and not self._stopped:
            self._loop.call_soon(self._wake)

    def leave(self, turn: Turn) -> None:
        self.scheduler.leave(turn)

    def free(self) -> asyncio.Future[None]:
        """Done when no forward is under way, as a call to the single-threaded shard would be."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._call is None:
            future.set_result(None)
        else:
            self._waiting.append(future)
        return future

    def break_down(self, text: str) -> None:
        """The shard is gone: whatever waits or comes fails with this text."""
        self._broken = text
        self.stop()
        queue = self.scheduler.queue
        waiting = [queue.popleft() for _ in range(len(queue))] + [turn for _, _, turn in self._arriving]
        self._arriving.clear()
        self._fail_all([each for each in waiting if not each.gone], text)

    def stop(self) -> None:
        """No further forward."""
        self._stopped = True
        self._alarm.close()
        self._arrivals.close()

    def _wake(self) -> None:
        if self._call is None and not self._stopped:
            self._begin(time.monotonic())

    def _begin(self, now: float) -> None:
        scheduler, metrics = self.scheduler, self.metrics
        queued = scheduler.queue_size
        call = scheduler.next_call(now)
        if queued or call is None:
            self._count_dropped()
            if queued:
                metrics.gauge("tgi_queue_size", scheduler.queue_size)
        self._call = call
        if call is None:
            return
        if scheduler.batch_size:
            metrics.gauge("tgi_batch_current_size", scheduler.batch_size)
            metrics.gauge("tgi_batch_current_max_tokens", scheduler.batch_max_tokens)
        if call.picked:
            metrics.record("tgi_batch_next_size", len(call.picked))
            if call.concat_reason:
                metrics.count("tgi_batch_concat", f'reason="{call.concat_reason}"')
        metrics.count("tgi_batch_inference_count", f'method="{call.kind}"')
        extra = self.before_call(call) if self.before_call else 0.0
        if self._call is not call or self._stopped:
            return
        self._started_at = now
        self._ends_at = now + self.seconds(call) + extra
        self._alarm.set(self._ends_at)

    def _due(self) -> None:
        call = self._call
        if call is None or self._stopped:
            return
        emissions = self.scheduler.complete(call, self._ends_at, _ended)
        self._call = None
        steps: dict[int, int] = {}
        for request, tokens, finished in emissions:
            steps[tokens - 1] = steps.get(tokens - 1, 0) + 1
            request.owner.advance(tokens, finished)  # type: ignore[attr-defined]
        for skipped, times in steps.items():
            self.metrics.summarise("tgi_request_skipped_tokens", skipped, times)
        self._count_dropped()
        self._record(call)
        self._after()

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

    def _after(self) -> None:
        """Between two forwards: whoever waits for the shard is served, then the next forward begins."""
        if not self.scheduler.running:
            self.metrics.gauge("tgi_batch_current_size", 0)
            self.metrics.gauge("tgi_batch_current_max_tokens", 0)
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
        late = time.monotonic() - self._ends_at
        if self._call is None and not self._stopped:
            self._begin(self._ends_at + (late if late > _TOO_LATE else 0.0))

    def fail(self, text: str) -> None:
        """The running call fails, and every request in it."""
        call = self._call
        if call is None:
            return
        failed = self.scheduler.fail(call, time.monotonic())
        self._call = None
        self._ends_at = time.monotonic()
        self.metrics.count("tgi_batch_inference_failure", f'method="{call.kind}"')
        self._fail_all(failed, text)
        self._loop.call_soon(self._after)

    def _fail_all(self, failed: list[EngineRequest], text: str) -> None:
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
