"""Runs a scheduler by the real clock: one forward at a time, each lasting as long as the cost model says.

A forward ends at an absolute moment and the next one begins there, so that delays of this process do not add up. Its
tokens are handed out in one pass, in batch order.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from harness.emulator.alarm import Alarm
from harness.simulator.request import EngineRequest
from harness.simulator.scheduler import Emission, Ended, EngineCall

_TOO_LATE = 0.25  # seconds behind its own clock after which the engine gives up catching up


class AnyScheduler(Protocol):
    """What is behind the clock: TGI's scheduler, or one of simulator/policies."""

    queue: deque[Any]

    @property
    def queue_size(self) -> int: ...
    @property
    def running(self) -> int: ...
    def enqueue(self, request: Any, now: float) -> None: ...
    def leave(self, request: Any) -> None: ...
    def next_call(self, now: float) -> EngineCall | None: ...
    def complete(self, call: EngineCall, now: float, ended: Ended) -> list[Emission]: ...
    def fail(self, call: EngineCall, now: float) -> Sequence[EngineRequest]: ...
    def take_dropped(self) -> Sequence[EngineRequest]: ...


def ended(request: EngineRequest) -> str | None:
    """Whether an answer that knows its own end is there."""
    return request.stop_reason if request.generated >= request.stop_after else None  # type: ignore[attr-defined]


class Clockwork:
    """One model server's inside; what is told to whom is the subclass's.

    seconds: how long a call takes. admission: how long a prompt of this many tokens takes until it is queued.
    before_call: told each call before it runs, gives seconds to add; it may fail it. dead: the model's process is gone.
    """

    def __init__(
        self, scheduler: AnyScheduler, seconds: Callable[[EngineCall], float], admission: Callable[[int], float]
    ) -> None:
        self.seconds, self.admission = seconds, admission
        self.before_call: Callable[[EngineCall], float] | None = None
        self._behind = scheduler
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(self._loop, self._due)
        self._arrivals = Alarm(self._loop, self._arrived)
        self._arriving: list[tuple[float, int | str, Any]] = []
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
        return self._behind.running

    def submit(self, turn: Any) -> None:
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

    def enqueue(self, turn: Any) -> None:
        """Append to the queue; a sleeping engine wakes, a broken one refuses."""
        if self._broken:
            turn.queued_at = time.monotonic()
            waiting: list[EngineRequest] = [turn]
            self._loop.call_soon(self._fail_all, waiting, self._broken)
            return
        self._behind.enqueue(turn, time.monotonic())
        self._queued()
        if self._call is None and not self._stopped:
            self._loop.call_soon(self._wake)

    def leave(self, turn: Any) -> None:
        self._behind.leave(turn)

    def free(self) -> asyncio.Future[None]:
        """Done when no forward is under way, as a call to the single-threaded shard would be."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._call is None:
            future.set_result(None)
        else:
            self._waiting.append(future)
        return future

    def break_down(self, text: str) -> None:
        """The model's process is gone: whatever waits or comes fails with this text."""
        self._broken = text
        self.stop()
        queue = self._behind.queue
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
        queued = self._behind.queue_size
        call = self._behind.next_call(now)
        self._planned(call, queued)
        self._call = call
        if call is None:
            return
        self._beginning(call)
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
        emissions = self._behind.complete(call, self._ends_at, ended)
        self._call = None
        for request, tokens, finished in emissions:
            request.owner.advance(tokens, finished)  # type: ignore[attr-defined]
        self._completed(call, emissions)
        self._after()

    def _after(self) -> None:
        """Between two forwards: whoever waits for the shard is served, then the next forward begins."""
        self._between()
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
        failed = self._behind.fail(call, time.monotonic())
        self._call = None
        self._ends_at = time.monotonic()
        self._call_failed(call)
        self._fail_all(failed, text)
        self._loop.call_soon(self._after)

    # What a subclass tells of it.

    def _queued(self) -> None:
        """Something was enqueued."""

    def _planned(self, call: EngineCall | None, queued: int) -> None:
        """The scheduler was asked for a call. queued: how many waited before."""

    def _beginning(self, call: EngineCall) -> None:
        """A call is about to run."""

    def _completed(self, call: EngineCall, emissions: Sequence[Emission]) -> None:
        """A call is done, and its tokens are handed out."""

    def _between(self) -> None:
        """A call is over, and the next has not begun."""

    def _call_failed(self, call: EngineCall) -> None:
        """A call failed."""

    def _fail_all(self, failed: Sequence[EngineRequest], text: str) -> None:
        """These fail with this text."""
        raise NotImplementedError
