"""vLLM's policy: each step shares its tokens between decodes and prompts; without a free block the latest is preempted.

vllm/v1/core/sched/scheduler.py of 0.32 (schedule, _preempt_request), first come first served. Asynchronous scheduling
is left out: there a step is planned before the one before has ended, so that blocks come free one step later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.simulator.policies.base import BatchRow, PoolRequest, PoolScheduler, made_up
from harness.simulator.policies.blocks import BlockPool, Chain


@dataclass(frozen=True)
class VllmSettings:
    """Names are those of the flags. blocks: of the pool, the null block included.

    watermark: share of the pool that stays free when a request joins others. reserve_full: a request joins only when
    its whole present length has room, not only its first chunk (`--scheduler-reserve-full-isl`).
    """

    blocks: int
    max_num_batched_tokens: int
    max_num_seqs: int
    block_size: int = 16
    prefix_caching: bool = True
    chunked_prefill: bool = True
    watermark: float = 0.0
    reserve_full: bool = True
    long_prefill_token_threshold: int = 0


class VllmScheduler(PoolScheduler):
    """The v1 engine's core."""

    def __init__(self, settings: VllmSettings, spoken: Callable[[PoolRequest, int], int] = made_up) -> None:
        super().__init__(spoken)
        self.settings = settings
        self.pool = BlockPool(settings.blocks, settings.block_size, caching=settings.prefix_caching)
        self._chains: dict[PoolRequest, Chain] = {}

    @property
    def used_tokens(self) -> int:
        return (self.pool.usable - self.pool.free) * self.pool.size

    @property
    def pool_tokens(self) -> int:
        return self.pool.usable * self.pool.size

    def _plan(self, now: float) -> list[BatchRow]:
        rows: list[BatchRow] = []
        budget = self._plan_running(rows)
        if not self._moved:
            self._plan_waiting(rows, budget, now)
        return rows

    def _plan_running(self, rows: list[BatchRow]) -> int:
        """Tokens that are left of the step. Who is put back goes to the head of the queue."""
        budget, index = self.settings.max_num_batched_tokens, 0
        while index < len(self.batch) and budget > 0:
            request = self.batch[index]
            new = min(self._capped(request.length - request.computed), budget)
            while not self._grow(request, new):
                victim = self.batch[-1]
                self._preempt(victim)
                if victim is request:
                    return budget
            rows.append(BatchRow(request, new))
            budget -= new
            index += 1
        return budget

    def _capped(self, new: int) -> int:
        threshold = self.settings.long_prefill_token_threshold
        alone = len(self.batch) + len(self.queue) <= 1
        return min(new, threshold) if threshold and not alone else new

    def _grow(self, request: PoolRequest, new: int) -> bool:
        """Blocks for `new` more tokens; False where there are too few."""
        pool, chain = self.pool, self._chains[request]
        missing = pool.needed(request.computed + new) - len(chain.held)
        if missing > pool.free:
            return False
        if missing > 0:
            chain.held += pool.allocate(missing)
        self._remember(request, chain, request.computed + new)
        return True

    def _remember(self, request: PoolRequest, chain: Chain, tokens: int) -> None:
        """Whole blocks can be found from the moment on at which they are planned."""
        size = self.pool.size
        whole = tokens // size
        if not self.pool.caching or whole <= chain.remembered:
            return
        if len(chain.hashes) < whole:
            chain.extend(request.ids(len(chain.hashes) * size), size)
        for index in range(chain.remembered, whole):
            self.pool.remember(chain.held[index], chain.hashes[index])
        chain.remembered = whole

    def _preempt(self, victim: PoolRequest) -> None:
        self.batch.pop()
        self._release(victim)
        victim.computed = 0
        victim.put_back += 1
        self.put_back += 1
        self._moved.append(victim)
        self.queue.appendleft(victim)

    def _plan_waiting(self, rows: list[BatchRow], budget: int, now: float) -> None:
        settings = self.settings
        while self.queue and budget > 0 and len(self.batch) < settings.max_num_seqs:
            request = self.queue[0]
            chain = Chain()
            found = self._lookup(request, chain)
            cached = len(found) * self.pool.size
            new = self._capped(request.length - cached)
            if new > budget and not settings.chunked_prefill:
                return
            new = min(new, budget)
            if not self._fits(found, request.length if settings.reserve_full else cached + new):
                return
            self.queue.popleft()
            self.pool.hold(found)
            chain.held, chain.remembered = list(found), len(found)
            self._chains[request] = chain
            self._admitted(request, cached, now)
            self._grow(request, new)
            rows.append(BatchRow(request, new))
            budget -= new

    def _lookup(self, request: PoolRequest, chain: Chain) -> list[int]:
        """Cached blocks of its beginning; the last token is always computed."""
        if not (self.pool.caching and request.cacheable):
            return []
        chain.extend(request.ids(), self.pool.size)
        return self.pool.lookup(chain.hashes[: (request.length - 1) // self.pool.size])

    def _fits(self, found: list[int], tokens: int) -> bool:
        kept = int(self.settings.watermark * self.settings.blocks) if self.batch else 0
        needed = self.pool.needed(tokens) - len(found) + self.pool.unheld(found)
        return needed + kept <= self.pool.free

    def _release(self, request: PoolRequest) -> None:
        self.pool.release(self._chains.pop(request).held)
