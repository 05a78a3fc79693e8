"""llama.cpp's policy: slots. A request waits for a free slot; one that runs is never preempted.

tools/server/server-context.cpp, seen running (build 11549). Slots that generate take one token each of a step, the rest
of it goes to prompts, one slot after the other. Nothing is admitted by memory: a pool that all slots share is simply
full one day, and then every running answer ends with an error. Slots with shares of their own cannot meet that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.simulator.policies.base import BatchRow, PoolRequest, PoolScheduler, made_up

POOL_FULL = "Context size has been exceeded."
_SIMILAR = 0.1  # share of a prompt that a slot must have already to be preferred (--slot-prompt-similarity)


@dataclass(frozen=True)
class LlamaSettings:
    """slots: how many. context: tokens of one, prompt and answer. pool: cells of all together.

    unified: the slots share them; else each has pool / slots. batch: tokens of one step (-b). prompt_cache: the slots
    keep what they computed (--cache-prompt); kept_tokens: what the host keeps beside them (--cache-ram).
    """

    slots: int
    context: int
    pool: int
    unified: bool
    batch: int = 2048
    prompt_cache: bool = True
    kept_tokens: int = 0


@dataclass(slots=True, eq=False)
class Slot:
    """One slot. left: tokens that its last answer left in the cache."""

    id: int
    request: PoolRequest | None = None
    left: Sequence[int] = field(default_factory=list)
    used_at: int = -1


class LlamaScheduler(PoolScheduler):
    """The server's loop over its slots."""

    def __init__(self, settings: LlamaSettings, spoken: Callable[[PoolRequest, int], int] = made_up) -> None:
        super().__init__(spoken)
        self.settings = settings
        self.slots = [Slot(number) for number in range(settings.slots)]
        self._kept = _HostCache(settings.kept_tokens)
        self._tasks = 0

    @property
    def used_tokens(self) -> int:
        return sum(request.computed for request in self.batch)

    @property
    def pool_tokens(self) -> int:
        return self.settings.pool

    def slot_of(self, request: PoolRequest) -> Slot | None:
        """Where it runs."""
        return next((slot for slot in self.slots if slot.request is request), None)

    def _sweep(self) -> None:
        """A client that leaves while it waits is noticed only when its turn comes."""
        for request in [each for each in self.batch if each.gone]:
            self._end(request)
            self._dropped.append(request)

    def _plan(self, now: float) -> list[BatchRow]:
        while True:
            self._start(now)
            rows = self._rows()
            new = sum(row.new for row in rows)
            if not rows or not self.settings.unified or self.used_tokens + new <= self.settings.pool:
                return rows
            for request in self.members():
                self._fail(request, POOL_FULL, 500)
            for slot in self.slots:
                slot.left = []

    def _start(self, now: float) -> None:
        while self.queue and any(slot.request is None for slot in self.slots):
            request = self.queue.popleft()
            if request.gone:
                self._dropped.append(request)
                continue
            slot, cached = self._choose(request)
            self._tasks += 1
            slot.request, slot.used_at = request, self._tasks
            request.place = slot.id
            self._admitted(request, cached, now)

    def _choose(self, request: PoolRequest) -> tuple[Slot, int]:
        """The idle slot that has most of the prompt already, else the one that was idle longest; and what it has."""
        idle = [slot for slot in self.slots if slot.request is None]
        best, found = min(idle, key=lambda slot: slot.used_at), 0
        if self.settings.prompt_cache and request.cacheable:
            shared = {slot: _common(slot.left, request.tokens) for slot in idle}
            likest = max(idle, key=lambda slot: (shared[slot], -slot.used_at))
            if shared[likest] > _SIMILAR * request.input_length:
                best = likest
            found = max(shared[best], self._kept.longest(request.tokens))
        for slot in idle if self.settings.unified else [best]:
            # Where all share the pool, what idle slots have left goes to the host before anybody starts.
            self._kept.add(slot.left)
            slot.left = []
        # One token of the prompt is always computed.
        return best, min(found, request.input_length - 1)

    def _rows(self) -> list[BatchRow]:
        decoding: list[BatchRow] = []
        reading: list[BatchRow] = []
        for slot in self.slots:
            request = slot.request
            if request is not None:
                left = request.length - request.computed
                (decoding if request.generated else reading).append(BatchRow(request, left))
        rows, budget = decoding, self.settings.batch - len(decoding)
        for request, left in reading:
            new = min(left, budget)
            if new > 0:
                rows.append(BatchRow(request, new))
                budget -= new
        return rows

    def _release(self, request: PoolRequest) -> None:
        slot = self.slot_of(request)
        assert slot is not None
        slot.request = None
        slot.left = request.ids(0, request.computed) if self.settings.prompt_cache else []


class _HostCache:
    """What the host keeps of earlier conversations, oldest first."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._kept: list[Sequence[int]] = []

    def add(self, ids: Sequence[int]) -> None:
        if not ids or not self._tokens or self.longest(ids) == len(ids):
            return
        self._kept = [each for each in self._kept if _common(each, ids) < len(each)]
        self._kept.append(ids)
        while sum(map(len, self._kept)) > self._tokens:
            self._kept.pop(0)

    def longest(self, ids: Sequence[int]) -> int:
        """Tokens of the longest beginning of these that is kept."""
        return max((_common(each, ids) for each in self._kept), default=0)


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common beginning."""
    limit = min(len(left), len(right))
    low, high = 0, limit
    if limit and left[:limit] == right[:limit]:
        return limit
    while low < high:
        middle = (low + high + 1) // 2
        if left[:middle] == right[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
