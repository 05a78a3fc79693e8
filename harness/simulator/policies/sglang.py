"""SGLang's policy: prompts first, in batches of their own, admitted by what running requests are expected to need.

srt/managers/scheduler.py, schedule_policy.py (PrefillAdder), schedule_batch.py (retract_decode) and
scheduler_components/new_token_ratio_tracker.py of 0.5.23, first come first served, without overlap.

A running answer is expected to take a share of its bound that falls from step to step (new_token_ratio), one that
cannot end early all of it. When the expectation was too low and the pool is full, answers go back to the queue: those
with the fewest tokens first, of these the longest prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from harness.simulator.kv_cache import _Node
from harness.simulator.policies.base import BatchRow, PoolRequest, PoolScheduler, made_up
from harness.simulator.policies.tree import TokenPool

CLIP = 4096
"""Most tokens of an answer that admission looks ahead (SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION)."""
INITIAL_RATIO, LEAST_SHARE, DECAY_STEPS, RETRACT_STEPS = 0.7, 0.14, 600, 20

QUEUE_FULL = "The request queue is full."
OUT_OF_MEMORY = "Out of memory even after retracting all other requests in the decode batch. Aborting the last request."


@dataclass(frozen=True)
class SglangSettings:
    """Names are those of the flags. chunked_prefill_size: None for prompts in one piece."""

    max_total_tokens: int
    max_running_requests: int
    chunked_prefill_size: int | None = 8192
    max_prefill_tokens: int = 16384
    page_size: int = 1
    radix_cache: bool = True
    max_queued_requests: int | None = None
    schedule_conservativeness: float = 1.0


@dataclass(slots=True)
class _Held:
    """What a request holds. own: tokens beside the `kept` ones of the tree, whose path to `node` is locked."""

    node: _Node
    kept: int
    own: int = 0


@dataclass(slots=True)
class _Budget:
    """What one prefill batch may still take: tokens to compute, and tokens of the pool now and in the end."""

    chunk: int | None
    prompts: int
    total: float = 0.0
    current: int = 0


_Verdict = Literal["continue", "no token", "other"]


class SglangScheduler(PoolScheduler):
    """The scheduler process. new_token_ratio: the share of its bound that an answer is expected to take."""

    def __init__(self, settings: SglangSettings, spoken: Callable[[PoolRequest, int], int] = made_up) -> None:
        super().__init__(spoken)
        self.settings = settings
        self.pool = TokenPool(settings.max_total_tokens, settings.page_size, caching=settings.radix_cache)
        self._initial = min(1.0, INITIAL_RATIO * settings.schedule_conservativeness)
        self.new_token_ratio = self._initial
        self._held: dict[PoolRequest, _Held] = {}
        self._chunked: PoolRequest | None = None
        self._full = False
        self._reading = False

    @property
    def used_tokens(self) -> int:
        return self.pool.used

    @property
    def pool_tokens(self) -> int:
        return self.pool.tokens

    @property
    def running(self) -> int:
        return len(self.batch) - (self._chunked is not None)

    def enqueue(self, request: PoolRequest, now: float) -> None:
        """Append to the queue, or refuse it (503) when that is full."""
        request.queued_at = now
        limit = self.settings.max_queued_requests
        if limit is not None and len(self.queue) + 1 > limit:
            self._fail(request, QUEUE_FULL, 503)
            return
        self.queue.append(request)

    def flush(self) -> None:
        """Forget all that is cached; only while nothing runs."""
        settings = self.settings
        self.pool = TokenPool(settings.max_total_tokens, settings.page_size, caching=settings.radix_cache)

    def _plan(self, now: float) -> list[BatchRow]:
        if not self.batch and not self.queue:
            self.new_token_ratio = self._initial
        rows = self._prefill(now)
        self._reading = bool(rows)
        return rows or self._decode(now)

    # Prompts.

    def _prefill(self, now: float) -> list[BatchRow]:
        settings = self.settings
        if not self.running:
            self._full = False
        if (self._full or not self.queue) and self._chunked is None:
            return []
        free_rows = settings.max_running_requests - self.running
        if free_rows <= 0 and self._chunked is None:
            self._full = True
            return []
        budget = _Budget(settings.chunked_prefill_size, settings.max_prefill_tokens)
        budget.total = sum(self._expected(each) for each in self.batch if each is not self._chunked)
        rows: list[BatchRow] = []
        if self._chunked is not None:
            rows += self._continue(self._chunked, budget)
        while self.queue:
            if self._state(budget) == "other":
                break
            if len(rows) >= free_rows:
                self._full = True
                break
            verdict = self._add(self.queue[0], budget, rows, now)
            if verdict != "continue":
                if verdict == "no token":
                    self._full = bool(rows) or bool(self.running)
                break
        for request, new in rows:
            self._allocate(request, new)
        return rows

    def _expected(self, request: PoolRequest) -> float:
        """Tokens that a running answer is expected to take yet."""
        left = min(request.max_new_tokens - request.generated, CLIP)
        return left * (1.0 if request.whole else self.new_token_ratio)

    def _state(self, budget: _Budget) -> _Verdict:
        available = self.pool.available
        if available - budget.total <= 0 or available - budget.current <= 0:
            return "no token"
        return "other" if budget.prompts <= 0 or (budget.chunk is not None and budget.chunk <= 0) else "continue"

    def _continue(self, request: PoolRequest, budget: _Budget) -> list[BatchRow]:
        """The next piece of the prompt that is being read; none while there is no room at all."""
        assert budget.chunk is not None
        left = request.length - request.computed
        wanted = int(min(budget.chunk, self.pool.available - budget.total))
        new = min(left, wanted if wanted > 0 else budget.chunk, self.pool.available)
        if new <= 0:
            return []
        answer = min(request.max_new_tokens, CLIP) if new == left else 0
        self._reserve(budget, new, answer)
        if new == left:
            self._chunked = None
        return [BatchRow(request, new)]

    def _reserve(self, budget: _Budget, new: int, answer: int) -> None:
        now = self._paged(new) + self.settings.page_size
        budget.total += now + answer
        budget.current += now
        budget.prompts -= self._paged(new)
        if budget.chunk is not None:
            budget.chunk -= self._paged(new)

    def _paged(self, tokens: int) -> int:
        page = self.settings.page_size
        return -(-tokens // page) * page

    def _add(self, request: PoolRequest, budget: _Budget, rows: list[BatchRow], now: float) -> _Verdict:
        """Take the head of the queue if its prompt and what it may say still fit."""
        tree, page = self.pool.tree, self.settings.page_size
        node, cached = tree.root, 0
        if self.pool.caching and request.cacheable:
            node, cached = tree.match(request.ids(0, request.length - 1))
        new = request.length - cached
        answer = min(max(request.max_new_tokens - request.generated, 0), CLIP)
        tree.lock(node)  # what it would use itself cannot be evicted for it
        verdict = self._verdict(request, new, answer, budget, bool(rows))
        if verdict != "continue":
            tree.unlock(node)
            return verdict
        if budget.chunk is not None and self._paged(new) > budget.chunk:
            new = (cached + budget.chunk // page * page) // page * page - cached
            if new <= 0:
                tree.unlock(node)
                return "other"
            self._chunked, answer = request, 0
        self.queue.popleft()
        self._held[request] = _Held(node, cached)
        self._admitted(request, cached, now)
        self._reserve(budget, new, min(request.max_new_tokens, CLIP) if answer else 0)
        rows.append(BatchRow(request, new))
        return self._state(budget)

    def _verdict(self, request: PoolRequest, new: int, answer: int, budget: _Budget, others: bool) -> _Verdict:
        if not self.pool.caching and request.whole:
            return self._verdict_of_whole(request, new, budget)
        if new + answer + self.settings.page_size >= self.pool.available - budget.total:
            return "no token"
        if budget.chunk is None and others and self._paged(new) >= budget.prompts:
            return "other"
        return "continue"

    def _verdict_of_whole(self, request: PoolRequest, new: int, budget: _Budget) -> _Verdict:
        """Without the radix cache, and where answers cannot end early, ends are known: play them through."""
        room = self.pool.available - budget.current
        needed = self._paged(new) + self.settings.page_size
        if needed > min(room, self.pool.available - budget.total):
            return "no token"
        states = sorted(
            (each.max_new_tokens * (1.0 if each.whole else self.new_token_ratio) - each.generated, each.length)
            for each in (request, *self.batch)
        )
        states = [state for state in states if state[0] > 0]
        left = room - needed
        freed = 0
        for index, (ahead, occupied) in enumerate(states):
            rows = len(states) - index
            if left + freed - ahead * rows <= rows:
                return "no token"
            freed += occupied
        return "continue"

    # Answers.

    def _decode(self, now: float) -> list[BatchRow]:
        running = [each for each in self.batch if each is not self._chunked]
        if not running:
            return []
        if self.pool.make_room(self._next_tokens(running)):
            decay = self._initial * (1 - LEAST_SHARE) / DECAY_STEPS
            self.new_token_ratio = max(self.new_token_ratio - decay, self._initial * LEAST_SHARE)
        else:
            running = self._retract(running, now)
        kept = set(running)
        rows = [BatchRow(each, 1) for each in self.batch if each in kept]
        for request, new in rows:
            self._allocate(request, new)
        return rows

    def _next_tokens(self, running: list[PoolRequest]) -> int:
        """Tokens that the next step takes: a page for each that has filled its last."""
        page = self.settings.page_size
        return sum(page for each in running if each.computed % page == 0)

    def _retract(self, running: list[PoolRequest], now: float) -> list[PoolRequest]:
        kept = sorted(running, key=lambda each: (each.generated, -each.input_length), reverse=True)
        first = True
        while len(kept) > 1 and (first or not self.pool.make_room(self._next_tokens(kept))):
            first = False
            request = kept.pop()
            self._put_back(request, len(kept), now)
        if not self.pool.make_room(self._next_tokens(kept)):
            self._fail(kept.pop(), OUT_OF_MEMORY, 500)
        bound = sum(each.max_new_tokens for each in kept) + 1
        said = sum(each.generated for each in kept) + RETRACT_STEPS * len(kept)
        self.new_token_ratio = min(1.0, said / bound)
        self._full = False
        return kept

    def _put_back(self, request: PoolRequest, others: int, now: float) -> None:
        self.batch.remove(request)
        self._give_up(request)
        self.pool.make_room(min(others * RETRACT_STEPS, self.pool.available))
        request.computed = 0
        request.put_back += 1
        self.put_back += 1
        self._moved.append(request)
        queued = request.queued_at
        self.enqueue(request, now)
        request.queued_at = queued

    # The pool.

    def _allocate(self, request: PoolRequest, new: int) -> None:
        held = self._held[request]
        missing = self._paged(request.computed + new) - held.kept - held.own
        if missing > 0:
            self.pool.make_room(missing)
            self.pool.take(missing)
            held.own += missing

    def _computed(self, request: PoolRequest) -> None:
        """What a prefill computed can be shared at once; an answer only when it is done."""
        if self._reading:
            self._keep(request)

    def _keep(self, request: PoolRequest) -> None:
        """Hand whole pages over to the tree; those that it had already are free."""
        held, pool = self._held[request], self.pool
        if not pool.caching:
            return
        node, known = pool.tree.keep(request.ids(0, request.computed))
        kept = request.computed // pool.page * pool.page
        pool.tree.lock(node)
        pool.tree.unlock(held.node)
        if kept > held.kept:
            pool.give(max(0, min(known, kept) - held.kept))
            held.own -= kept - held.kept
            held.kept = kept
        held.node = node

    def _release(self, request: PoolRequest) -> None:
        """An answer is done: all of it that was computed can be found by others."""
        if request is self._chunked:
            self._chunked = None
        self._keep(request)
        self._give_up(request)
        self._full = False

    def _give_up(self, request: PoolRequest) -> None:
        held = self._held.pop(request)
        self.pool.tree.unlock(held.node)
        self.pool.give(held.own)
