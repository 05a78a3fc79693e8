"""TGI's continuous batching: which requests run together, one call to the shard at a time.

The loop and the pick of TGI's v3 router (backends/v3/src/backend.rs, queue.rs of TGI 3.3.7) together with what the
Python shard decides (chunk lengths, which requests still run: models/flash_causal_lm.py). A pure state machine: the
caller asks for the next call, lets it take as long as it takes, and says when it is complete.

    scheduler.enqueue(request, now)
    while (call := scheduler.next_call(now)) is not None:
        now += cost.seconds(call.step)
        for emission in scheduler.complete(call, now, ended): ...
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from harness.simulator.kv_cache import BlockAllocator, RadixAllocator, StackAllocator
from harness.simulator.request import EngineRequest
from harness.simulator.rust import f32, saturating_sub

FINISHED_LENGTH = "length"


@dataclass(frozen=True)
class EngineSettings:
    """What the scheduler knows of its engine; names are TGI's, counts are tokens or requests.

    max_batch_total_tokens: the budget that warm-up returned (padded models: that was set). chunking, prefix_cache,
    padded, speculate: what the shard says of itself. faithful_put_back: a prompt that is put back into the queue after
    its blocks were found enters the prefix cache although it was never computed. faithful_pin_deadlock: a prefix lookup
    pins the whole node in which the prefix ends. Both are faults of TGI 3.3.7 that users meet; off fixes them.
    """

    max_batch_prefill_tokens: int
    max_batch_total_tokens: int
    block_size: int = 1
    chunking: bool = True
    prefix_cache: bool = True
    padded: bool = False
    speculate: int = 0
    waiting_served_ratio: float = 0.3
    max_waiting_tokens: int = 20
    max_batch_size: int | None = None
    faithful_put_back: bool = True
    faithful_pin_deadlock: bool = True


@dataclass(frozen=True, slots=True)
class StepShape:
    """What one forward has to compute, for the cost model. Counts are tokens.

    prompts: (new, cached) of each row that reads its prompt. rows: rows that produce their next token from one token.
    context: tokens that those rows attend to, themselves included, summed over them.
    """

    prompts: tuple[tuple[int, int], ...]
    rows: int
    context: int

    @property
    def tokens(self) -> int:
        return self.rows + sum(new for new, _ in self.prompts)


class PromptPart(NamedTuple):
    """A row that reads `new` tokens of its prompt after `cached` ones whose KV exists."""

    request: EngineRequest
    new: int
    cached: int


@dataclass(slots=True, eq=False)
class EngineCall:
    """One call to the shard. picked: requests taken from the queue for it. joined: it merges two batches first.

    members: all its rows in batch order (a live view until the call is complete). concat_reason: label of
    `tgi_batch_concat`, None when nothing joined a running batch.
    """

    kind: Literal["prefill", "decode"]
    members: dict[EngineRequest, None]
    prompts: list[PromptPart]
    step: StepShape
    started_at: float
    picked: list[EngineRequest] = field(default_factory=list)
    joined: bool = False
    concat_reason: str | None = None
    of_run: bool = True


class Emission(NamedTuple):
    """Tokens that a request got in one call. finished: `length`, what `ended` said, or None while it goes on."""

    request: EngineRequest
    tokens: int
    finished: str | None


Ended = Callable[[EngineRequest], "str | None"]


def _never(request: EngineRequest) -> str | None:
    return None


class Scheduler:
    """Queue, running batch and KV-cache blocks of one engine.

    log: told every call in the notation `P new=1(63,0,63) old=[0] fwd=64`, `D 0,1[62]`, `Dx2 0,1`, `F keep [1]`, `C`.
    on_lookup: told (prefix, suffix) of every attempt to allocate with the prefix cache on, as TGI logs it.
    tick: forwards of the running batch so far; a row gets one token per tick once its prompt is read.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        log: Callable[[str], None] | None = None,
        on_lookup: Callable[[int, int], None] | None = None,
    ) -> None:
        self.settings = settings
        self.queue: deque[EngineRequest] = deque()
        self.allocator = _allocator(settings)
        self.tick = 0
        self.concat_reasons: Counter[str] = Counter()
        self.inference_counts: Counter[str] = Counter()
        self.batch_size = 0
        self.batch_max_tokens = 0
        self._log = log
        self._on_lookup = on_lookup
        self._run = _Batch(settings)
        self._extra: _Batch | None = None
        self._call: EngineCall | None = None
        self._dropped: list[EngineRequest] = []
        self._ends: dict[int, list[EngineRequest]] = {}
        self._waited = 1
        self._must_decode = False
        self._notified = False
        self._looking = False
        self._places = 0

    @property
    def queue_size(self) -> int:
        return len(self.queue)

    @property
    def running(self) -> int:
        """Requests in the running batch, and those whose separate prefill is under way."""
        return len(self._run.members) + (len(self._extra.members) if self._extra else 0)

    def members(self) -> list[EngineRequest]:
        """The requests of the running batch, and those whose separate prefill is under way."""
        return [*self._run.members, *(self._extra.members if self._extra else ())]

    @property
    def idle(self) -> bool:
        """No call is under way, and none will be before something is enqueued."""
        return self._call is None and not (self._run.members or self._notified or self._looking)

    def enqueue(self, request: EngineRequest, now: float) -> None:
        """Append to the queue and wake the loop."""
        request.queued_at = now
        self.queue.append(request)
        self._notified = True

    def leave(self, request: EngineRequest) -> None:
        """Its client went away: noticed at its next token, or when the queue is next looked at."""
        request.gone = True

    def take_dropped(self) -> list[EngineRequest]:
        """The requests whose client was noticed to be gone since the last time this was asked."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def next_call(self, now: float) -> EngineCall | None:
        """What the shard is asked to do now; None until the next enqueue. The one before must be complete."""
        if self._call is not None:
            raise RuntimeError("the call before is not complete")
        if self._must_decode:
            self._must_decode = False
            self._call = self._decode(now)
        elif self._run.members:
            self._call = self._next_of_run(now)
        else:
            self._call = self._first_call(now)
        if self._call is not None:
            self.inference_counts[self._call.kind] += 1
        return self._call

    def complete(
        self,
        call: EngineCall,
        now: float,
        ended: Ended = _never,
        accepted: Callable[[EngineRequest], int] | None = None,
    ) -> list[Emission]:
        """The call is done: who got how many tokens, in batch order.

        ended: asked after each token (`generated` counts it) whether it ends the answer, and why. accepted: with
        speculation, extra tokens of this step; default all of them. Abandoned requests are not told but dropped.
        """
        self._advance_prompts(call, now)
        batch = self._batch_of(call)
        emissions, finished, gone, alive = [], [], [], False
        for request in call.members:
            if request.computed < request.input_length:
                alive = True
                continue
            tokens = 1
            if self.settings.speculate and request.generated:
                tokens += self.settings.speculate if accepted is None else accepted(request)
            emission = _emit(request, tokens, ended)
            batch.context += emission.tokens - 1
            alive |= emission.finished is None
            if request.gone:
                gone.append(request)
            else:
                emissions.append(emission)
                if emission.finished is not None:
                    finished.append(request)
        self._dropped += gone
        self._settle(call, _in_order(call, finished, gone), alive)
        return emissions

    def complete_by_length(self, call: EngineCall, now: float) -> list[EngineRequest]:
        """As `complete` where every answer has its known length and nobody leaves; only who finished is told.

        Costs nothing per token: a row's end is known when its first token comes. Use one of the two throughout.
        """
        self._advance_prompts(call, now)
        tick = self.tick
        for request, _, _ in call.prompts:
            if request.computed == request.input_length:
                self._ends.setdefault(tick + request.expected_tokens - 1, []).append(request)
        # A separate prefill is not a tick of the run: only its own rows can end here.
        if call.of_run:
            finished = self._ends.pop(tick, [])
        else:
            finished = [each for each in call.members if each.expected_tokens == 1]
            if finished:
                self._ends.pop(tick)
        finished.sort(key=_place)
        for request in finished:
            request.generated = request.expected_tokens
        if finished or call.prompts or self.settings.padded:
            self._settle(call, finished, len(finished) < len(call.members))
        else:
            self._after(call)
        return finished

    def fail(self, call: EngineCall, now: float) -> list[EngineRequest]:
        """The shard's call failed: all its requests fail with it and lose their blocks."""
        batch = self._batch_of(call)
        failed = list(batch.members)
        self._tell("C")
        for request in failed:
            self._release(request)
        if call.of_run:
            self._run = _Batch(self.settings)
        else:
            self._extra = None
        self._after(call)
        return failed

    # The loop (backend.rs:130-294).

    def _first_call(self, now: float) -> EngineCall | None:
        while self._looking or self._notified:
            if not self._looking:
                self._notified, self._looking = False, True
            settings = self.settings
            picked = self._pick(
                None,
                settings.max_batch_size,
                settings.max_batch_prefill_tokens,
                settings.max_batch_total_tokens,
                now,
            )
            if picked:
                self._waited = 1
                return self._prefill(self._run, picked, now)
            self._looking = False
        return None

    def _next_of_run(self, now: float) -> EngineCall:
        settings, run = self.settings, self._run
        reserved = run.reserved_tokens
        self.batch_size, self.batch_max_tokens = len(run.members), reserved
        left_total = saturating_sub(settings.max_batch_total_tokens, reserved)
        min_size, max_size, left_prefill = self._admission(len(run.members))
        picked = self._pick(min_size, max_size, left_prefill, left_total, now) if self.queue else []
        if not picked:
            return self._decode(now)
        reason = "backpressure" if min_size is not None else "chunking" if settings.chunking else "wait_exceeded"
        self.concat_reasons[reason] += 1
        self._waited, self._must_decode = 1, True
        if settings.chunking:
            call = self._prefill(run, picked, now)
            call.joined = True
        else:
            self._extra = _Batch(settings)
            call = self._prefill(self._extra, picked, now)
            call.of_run = False
        call.concat_reason = reason
        return call

    def _admission(self, size: int) -> tuple[int | None, int | None, int]:
        """Smallest and largest number of requests that may join now, and the prefill tokens left for them."""
        settings = self.settings
        if settings.chunking:
            return None, None, saturating_sub(settings.max_batch_prefill_tokens, self._run.next_tokens)
        max_size = None if settings.max_batch_size is None else saturating_sub(settings.max_batch_size, size)
        min_size = None
        if self._waited < settings.max_waiting_tokens:
            min_size = int(f32(f32(float(size)) * f32(settings.waiting_served_ratio)))
        return min_size, max_size, settings.max_batch_prefill_tokens

    def _prefill(self, batch: _Batch, picked: list[EngineRequest], now: float) -> EngineCall:
        old = list(batch.members) if self._log else []
        rows, context = batch.decoding, batch.context
        for request in picked:
            self._places += 1
            request.place = self._places
            batch.add(request)
        call = self._call_of("prefill", batch, rows, context, now)
        call.picked = picked
        if self._log is not None:
            self._log(_describe_prefill(call, old))
        return call

    def _decode(self, now: float) -> EngineCall:
        joined = self._extra is not None
        if self._extra is not None:
            self._run.join(self._extra)
            self._extra = None
        run = self._run
        call = self._call_of("decode", run, run.decoding, run.context, now)
        call.joined = joined
        if self._log is not None:
            self._log(_describe_decode(call))
        return call

    def _call_of(
        self, kind: Literal["prefill", "decode"], batch: _Batch, rows: int, context: int, now: float
    ) -> EngineCall:
        prompts = [PromptPart(each, each.chunk, each.computed) for each in batch.prefilling]
        if self.settings.padded:
            step = batch.padded_step(kind)
        else:
            forwarded = 1 + self.settings.speculate
            step = StepShape(tuple((new, cached) for _, new, cached in prompts), rows * forwarded, context * forwarded)
        return EngineCall(kind, batch.members, prompts, step, now)

    # What a complete call changes.

    def _batch_of(self, call: EngineCall) -> _Batch:
        if call is not self._call:
            raise RuntimeError("not the call that is under way")
        return self._run if call.of_run or self._extra is None else self._extra

    def _advance_prompts(self, call: EngineCall, now: float) -> None:
        batch = self._batch_of(call)
        if call.of_run:
            self.tick += 1
        batch.context += batch.decoding
        for request, new, cached in call.prompts:
            request.computed = cached + new
            if request.computed == request.input_length:
                request.first_token_at, request.first_tick = now, self.tick
                request.chunk = 1
                batch.decoding += 1
                batch.context += request.input_length + 1
        if call.prompts:
            batch.prefilling = [each for each in batch.prefilling if each.computed < each.input_length]
            self._share_next_chunks(batch)

    def _share_next_chunks(self, batch: _Batch) -> None:
        """Next chunk of each unread prompt, newest first (flash_causal_lm.py:1933-1965)."""
        budget = self.settings.max_batch_prefill_tokens - (len(batch.members) - 1)
        for request in reversed(batch.prefilling):
            request.chunk = max(min(request.input_length - request.computed, budget), 1)
            budget -= request.chunk
        batch.recount()

    def _settle(self, call: EngineCall, leaving: list[EngineRequest], alive: bool) -> None:
        """Take out who is done. alive: the shard still holds a batch, so that it must be told who stays."""
        batch = self._batch_of(call)
        before = len(batch.members)
        for request in leaving:
            batch.remove(request)
            self._release(request)
        if alive and not batch.members:
            self._tell("C")
        elif alive and len(batch.members) < before and self._log is not None:
            self._log(f"F keep {_ids(batch.members)}")
        if self.settings.padded:
            batch.stepped(filtered=len(batch.members) < before)
        self._after(call)

    def _after(self, call: EngineCall) -> None:
        self._call = None
        if call.kind == "decode":
            self._waited += 1
        if self._extra is not None and not self._extra.members:
            self._extra = None
        if not self._run.members:
            self._must_decode = False
            self._looking = True
            self.batch_size = self.batch_max_tokens = 0

    def _release(self, request: EngineRequest) -> None:
        if request.allocation is not None and self.allocator is not None:
            self.allocator.free(request.allocation)
            request.allocation = None

    # The pick (queue.rs:236-505).

    def _pick(
        self, min_size: int | None, max_size: int | None, left_prefill: int, left_total: int, now: float
    ) -> list[EngineRequest]:
        if left_prefill == 0 or left_total == 0 or not self.queue:
            return []
        if (min_size is not None and len(self.queue) < min_size) or max_size == 0:
            return []
        block = self.settings.block_size
        budget = -(-left_prefill // block) * block
        if self.settings.padded:
            picked = self._pick_padded(max_size, budget, left_total)
        else:
            picked = self._pick_blocks(max_size, budget)
        if min_size is not None and len(picked) < min_size:
            for request in reversed(picked):
                self._put_back(request)
            return []
        for request in picked:
            request.taken_at = now
        return picked

    def _pick_blocks(self, max_size: int | None, budget: int) -> list[EngineRequest]:
        picked: list[EngineRequest] = []
        used = 0
        while (request := self._pop()) is not None:
            if not self._allocate(request):
                self.queue.appendleft(request)
                break
            request.chunk = request.input_length - request.computed
            if used + request.chunk > budget:
                left = saturating_sub(budget, used)
                if self.settings.chunking and left > 0:
                    request.chunk = left
                    picked.append(request)
                else:
                    self._put_back(request)
                break
            used += request.chunk
            picked.append(request)
            if len(picked) == max_size:
                break
        return picked

    def _pick_padded(self, max_size: int | None, budget: int, left_total: int) -> list[EngineRequest]:
        picked: list[EngineRequest] = []
        longest = answers = 0
        while (request := self._pop()) is not None:
            longest = max(longest, request.input_length)
            prompts = (len(picked) + 1) * longest
            answers += request.max_new_tokens
            if prompts > budget or prompts + answers + self.settings.speculate > left_total:
                self.queue.appendleft(request)
                break
            request.chunk = request.input_length
            picked.append(request)
            if len(picked) == max_size:
                break
        return picked

    def _pop(self) -> EngineRequest | None:
        """The head of the queue; whoever is gone is dropped on the way."""
        while self.queue:
            request = self.queue.popleft()
            if not request.gone:
                return request
            self._dropped.append(request)
        return None

    def _allocate(self, request: EngineRequest) -> bool:
        assert self.allocator is not None
        prompt = request.tokens if request.cacheable else None
        needed = request.input_length + request.max_new_tokens + self.settings.speculate - 1
        allocation = self.allocator.allocate(needed, prompt)
        if self._on_lookup is not None and isinstance(self.allocator, RadixAllocator):
            self._on_lookup(*self.allocator.last_lookup)
        if allocation is None:
            return False
        # A forward needs at least one token of the prompt, even if all of it is cached.
        cached = min(allocation.cached_tokens, request.input_length - 1)
        request.allocation, request.cached_tokens, request.computed = allocation, cached, cached
        return True

    def _put_back(self, request: EngineRequest) -> None:
        """To the queue's head, without its blocks. TGI then takes its prompt for computed, and caches it."""
        if request.allocation is not None and self.allocator is not None:
            self.allocator.free(request.allocation, computed=self.settings.faithful_put_back)
        request.allocation, request.cached_tokens, request.computed = None, 0, 0
        self.queue.appendleft(request)

    def _tell(self, text: str) -> None:
        if self._log is not None:
            self._log(text)


class _Batch:
    """Rows that run together, in order, with the sums that would be slow to take anew at each step."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self.members: dict[EngineRequest, None] = {}
        self.prefilling: list[EngineRequest] = []
        self.decoding = 0
        self.context = 0
        self.blocks = 0
        self.unread = 0
        self.padded_length = 0
        self.padded_tokens = 0

    @property
    def next_tokens(self) -> int:
        """Tokens of the next forward."""
        return self.decoding + self.unread

    @property
    def reserved_tokens(self) -> int:
        """What the shard reports as the batch's maximum: shared blocks count once per request."""
        return self.padded_tokens if self._settings.padded else self.blocks * self._settings.block_size

    def add(self, request: EngineRequest) -> None:
        self.members[request] = None
        self.prefilling.append(request)
        self.blocks += len(request.blocks)
        if self._settings.padded:
            self.padded_length = max(each.input_length for each in self.members)
            answers = sum(each.max_new_tokens for each in self.members)
            self.padded_tokens = len(self.members) * (self.padded_length + answers)

    def remove(self, request: EngineRequest) -> None:
        del self.members[request]
        self.blocks -= len(request.blocks)
        self.decoding -= 1
        self.context -= request.input_length + request.generated

    def recount(self) -> None:
        self.unread = sum(each.chunk for each in self.prefilling)

    def join(self, other: _Batch) -> None:
        """Append the other's rows (flash_causal_lm.py and causal_lm.py, `concatenate`)."""
        length = max(self.padded_length, other.padded_length)
        for batch in (self, other):
            batch.padded_tokens += (length - batch.padded_length) * len(batch.members)
        self.padded_tokens += other.padded_tokens
        self.padded_length = length
        self.members.update(other.members)
        self.prefilling += other.prefilling
        self.decoding += other.decoding
        self.context += other.context
        self.blocks += other.blocks
        self.unread += other.unread

    def stepped(self, *, filtered: bool) -> None:
        """A padded batch after a forward: one column longer, and cut to what is left (causal_lm.py, `filter`)."""
        self.padded_length += 1
        if filtered and self.members:
            self.padded_length = max(each.input_length + each.generated for each in self.members)
            answers = sum(each.max_new_tokens - each.generated for each in self.members)
            self.padded_tokens = len(self.members) * self.padded_length + answers

    def padded_step(self, kind: str) -> StepShape:
        """All rows are as long as the longest."""
        count = len(self.members)
        if kind == "prefill":
            return StepShape(((self.padded_length, 0),) * count, 0, 0)
        return StepShape((), count, count * self.padded_length)


def _allocator(settings: EngineSettings) -> BlockAllocator | None:
    if settings.padded:
        return None
    blocks = settings.max_batch_total_tokens // settings.block_size
    if settings.prefix_cache:
        return RadixAllocator(blocks, settings.block_size, pin_whole_node=settings.faithful_pin_deadlock)
    return StackAllocator(blocks, settings.block_size)


def _emit(request: EngineRequest, tokens: int, ended: Ended) -> Emission:
    for count in range(1, tokens + 1):
        request.generated += 1
        if request.generated >= request.max_new_tokens:
            return Emission(request, count, FINISHED_LENGTH)
        reason = ended(request)
        if reason is not None:
            return Emission(request, count, reason)
    return Emission(request, tokens, None)


def _in_order(call: EngineCall, finished: list[EngineRequest], gone: list[EngineRequest]) -> list[EngineRequest]:
    return sorted(finished + gone, key=_place) if gone else finished


def _place(request: EngineRequest) -> int:
    return request.place


def _ids(requests: Iterable[EngineRequest]) -> str:
    return "[" + ",".join(str(each.id) for each in requests) + "]"


def _describe_prefill(call: EngineCall, old: list[EngineRequest]) -> str:
    picked = set(call.picked)
    parts = [
        f"{part.request.id}({part.request.input_length},{part.cached},{part.new})"
        for part in call.prompts
        if part.request in picked
    ]
    text = f"P new={','.join(parts)}"
    return f"{text} old={_ids(old)} fwd={call.step.tokens}" if old else text


def _describe_decode(call: EngineCall) -> str:
    chunks = {part.request: part.new for part in call.prompts}
    rows = [f"{each.id}[{chunks[each]}]" if each in chunks else str(each.id) for each in call.members]
    return f"{'Dx2' if call.joined and call.kind == 'decode' else 'D'} {','.join(rows)}"
