"""What the three policies share: requests that grow token by token, one call at a time, and their outcomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from harness.simulator.request import EngineRequest
from harness.simulator.scheduler import FINISHED_LENGTH, Emission, Ended, EngineCall, PromptPart, StepShape


@dataclass(slots=True, eq=False)
class PoolRequest(EngineRequest):
    """A request whose answer grows in a pool.

    whole: it cannot end before max_new_tokens (`ignore_eos`). cacheable: it may read the prefix cache. said: ids of its
    tokens so far; they are cached like a prompt. computed: tokens with keys and values, of prompt and answer.
    put_back: how often it lost them and went back to the queue.
    """

    whole: bool = False
    said: list[int] = field(default_factory=list)
    put_back: int = 0

    @property
    def length(self) -> int:
        """Tokens of prompt and answer so far."""
        return self.input_length + self.generated

    def ids(self, start: int = 0, stop: int | None = None) -> Sequence[int]:
        """Tokens of prompt and answer so far, from `start` to before `stop`."""
        own = self.input_length
        stop = self.length if stop is None else stop
        if stop <= own:
            return self.tokens[start:stop]
        if start >= own:
            return self.said[start - own : stop - own]
        return [*self.tokens[start:], *self.said[: stop - own]]


class BatchRow(NamedTuple):
    """A request that computes `new` tokens after those that it has."""

    request: PoolRequest
    new: int


@dataclass(slots=True, eq=False)
class PoolCall(EngineCall):
    """One step. rows: in the order of the batch. prompt_tokens: tokens that are computed before an answer's next one.

    put_back: requests that lost their place in the pool for it.
    """

    rows: list[BatchRow] = field(default_factory=list)
    prompt_tokens: int = 0
    put_back: list[PoolRequest] = field(default_factory=list)


class FailedAnswer(NamedTuple):
    """An answer that the engine itself ends. status: of its HTTP answer."""

    request: PoolRequest
    text: str
    status: int


def _never(request: EngineRequest) -> str | None:
    return None


def made_up(request: PoolRequest, index: int) -> int:
    """An id that no other token has, for tokens that nobody reads."""
    return -(hash((request.id, index)) & 0x7FFF_FFFF) - 1


class PoolScheduler(ABC):
    """Queue, running requests and pool of one engine.

    spoken: the id of an answer's token at this place. put_back: requests that went back to the queue so far. queried,
    found: prompt tokens that were looked up in the prefix cache, and those of them that were there. steps: calls.
    """

    def __init__(self, spoken: Callable[[PoolRequest, int], int] = made_up) -> None:
        self.queue: deque[PoolRequest] = deque()
        self.batch: list[PoolRequest] = []
        self.put_back = self.queried = self.found = self.steps = 0
        self.spoken = spoken
        self._call: PoolCall | None = None
        self._dropped: list[EngineRequest] = []
        self._failed: list[FailedAnswer] = []
        self._moved: list[PoolRequest] = []

    # What an engine asks.

    @property
    def queue_size(self) -> int:
        return len(self.queue)

    @property
    def running(self) -> int:
        return len(self.batch)

    def members(self) -> list[PoolRequest]:
        return list(self.batch)

    @property
    def idle(self) -> bool:
        """No call is under way, and none will be before something is enqueued."""
        return self._call is None and not self.batch and not self.queue

    @property
    @abstractmethod
    def used_tokens(self) -> int:
        """Tokens of the pool that running requests hold."""

    @property
    @abstractmethod
    def pool_tokens(self) -> int:
        """All tokens of the pool that requests can get."""

    def enqueue(self, request: PoolRequest, now: float) -> None:
        request.queued_at = now
        self.queue.append(request)

    def leave(self, request: EngineRequest) -> None:
        """Its client went away: noticed before the next call."""
        request.gone = True

    def take_dropped(self) -> list[EngineRequest]:
        """The requests whose client was noticed to be gone since the last time this was asked."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def take_failed(self) -> list[FailedAnswer]:
        """The answers that the engine ended since the last time this was asked."""
        failed, self._failed = self._failed, []
        return failed

    def next_call(self, now: float) -> PoolCall | None:
        """What the engine computes now; None until the next enqueue. The one before must be complete."""
        if self._call is not None:
            raise RuntimeError("the call before is not complete")
        self._sweep()
        self._moved = []
        rows = self._plan(now)
        if not rows:
            return None
        self.steps += 1
        self._call = _call_of(rows, now)
        self._call.put_back = self._moved
        return self._call

    def complete(
        self,
        call: EngineCall,
        now: float,
        ended: Ended = _never,
        accepted: Callable[[EngineRequest], int] | None = None,
    ) -> list[Emission]:
        """The call is done: who got a token, and who is done. `ended` as for the scheduler of TGI; accepted: unused."""
        if call is not self._call or not isinstance(call, PoolCall):
            raise RuntimeError("not the call that is under way")
        self._call = None
        emissions = []
        for request, new in call.rows:
            request.computed += new
            whole = request.computed == request.length
            self._computed(request)
            if whole and not request.gone:
                emissions.append(self._emit(request, now, ended))
        return emissions

    def fail(self, call: EngineCall, now: float) -> list[PoolRequest]:
        """The call failed, and every running request with it."""
        if call is not self._call:
            raise RuntimeError("not the call that is under way")
        self._call = None
        failed = self.members()
        for request in failed:
            self._end(request)
        return failed

    # What a law decides.

    @abstractmethod
    def _plan(self, now: float) -> list[BatchRow]:
        """The rows of the next call, with their memory allocated; empty when there is nothing to do."""

    @abstractmethod
    def _release(self, request: PoolRequest) -> None:
        """Give up what it holds of the pool; what is cached of it stays findable."""

    def _computed(self, request: PoolRequest) -> None:
        """A call computed some of its tokens."""
        return

    # What they share.

    def _sweep(self) -> None:
        """Drop those whose client is gone."""
        for request in [each for each in self.batch if each.gone]:
            self._end(request)
            self._dropped.append(request)
        if any(request.gone for request in self.queue):
            self._dropped += [request for request in self.queue if request.gone]
            self.queue = deque(request for request in self.queue if not request.gone)

    def _emit(self, request: PoolRequest, now: float, ended: Ended) -> Emission:
        if request.first_token_at is None:
            request.first_token_at = now
        request.said.append(self.spoken(request, request.generated))
        request.generated += 1
        reason = ended(request)
        if reason is None and request.generated >= request.max_new_tokens:
            reason = FINISHED_LENGTH
        if reason is not None:
            self._end(request)
        return Emission(request, 1, reason)

    def _end(self, request: PoolRequest) -> None:
        """It runs no more."""
        self.batch.remove(request)
        self._release(request)

    def _fail(self, request: PoolRequest, text: str, status: int) -> None:
        """The engine ends its answer."""
        if request in self.batch:
            self._end(request)
        self._failed.append(FailedAnswer(request, text, status))

    def _admitted(self, request: PoolRequest, cached: int, now: float) -> None:
        """Count what a request that joins found in the prefix cache, and note when it joined."""
        request.computed = cached
        if request.cacheable:
            self.queried += request.length
            self.found += cached
        if request.taken_at is None:
            request.taken_at, request.cached_tokens = now, cached
        self.batch.append(request)


def _call_of(rows: list[BatchRow], now: float) -> PoolCall:
    prompts: list[PromptPart] = []
    decoding = context = tokens = 0
    for request, new in rows:
        if request.computed + new == request.length and new == 1 and request.generated:
            decoding += 1
            context += request.length
        else:
            prompts.append(PromptPart(request, new, request.computed))
            tokens += new
    shape = StepShape(tuple((new, cached) for _, new, cached in prompts), decoding, context)
    members: dict[EngineRequest, None] = dict.fromkeys(request for request, _ in rows)
    kind: Literal["prefill", "decode"] = "prefill" if prompts and not decoding else "decode"
    return PoolCall(kind, members, prompts, shape, now, rows=rows, prompt_tokens=tokens)
