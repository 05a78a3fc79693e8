"""An engine in values with a known memory law, to hold the search against: memory is counted in tokens of KV cache.

It schedules as TGI's router does (first come, first served; a prefill budget; a token budget) and takes memory as
published for causal models of Hugging Face: as it grows, or at admission for all that may be written; for each token,
or for every row as long as the longest (transformers, `past_key_values` of a padded batch).
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.engines.base import EngineFacts, EngineKind
from harness.probe.ask import Search
from harness.probe.setting import CHUNK, Failure, Load, LoadResult, Outcome, Setting, Shape, Verdict
from tests.probe.engines.law import MemoryLaw, Row

READ_RATE = 100_000.0  # tokens per second of a flash engine


@dataclass
class ModelEngine:
    """memory: what is left for KV cache and activations. activation: of one prefill batch, by (rows, longest).

    padded_rows: a long prompt pads its whole batch; padded_late: not before it joins the others.
    at_admission: memory is taken for all that may be written.
    row_cost: of each running chat. granule: tokens by which what is kept of a chat grows at a time. rows_die: chats at
    once that kill it. load_dies: tokens in flight that kill a flash engine; full_dies: share of its pool that does.
    states: shares of the memory that are free in each start, the last for all later ones. own_input: the engine's own
    longest prompt, where that does not follow from the prefill budget. told_budget: the padded kind keeps this budget
    though it tells none. counts_padding: it counts its running batch as TGI's causal models do, each of several prompts
    that were read together with the answers of all. ends: chance of each token to be the last of its answer.
    """

    memory: int
    kind: EngineKind = "flash"
    chunking: bool = True
    block_size: int = 1
    context: int = 131072
    default_prefill: int = 4096
    activation: Callable[[int, int], float] = lambda rows, longest: 0.2 * rows * longest
    padded_rows: bool = False
    padded_late: bool = False
    at_admission: bool = False
    row_cost: float = 0.0
    granule: int = 1
    rows_die: int | None = None
    load_dies: int | None = None
    full_dies: float | None = None
    heeds_fraction: bool = True
    heeds_batch_size: bool = True
    states: tuple[float, ...] = (1.0,)
    own_input: int | None = None
    prefix_caching: bool = False
    tells_blocks: bool = True
    counts_padding: bool = False
    ends: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    starts: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    @property
    def state(self) -> float:
        return self.states[min(self.starts, len(self.states)) - 1] if self.starts else self.states[0]

    @property
    def law(self) -> MemoryLaw:
        free = self.memory * self.state
        rows, late = self.padded_rows, self.padded_late
        return MemoryLaw(free, self.activation, rows, self.at_admission, self.row_cost, self.granule, late)

    def budget(self, prefill: int, fraction: float | None = None, free: float | None = None) -> int:
        free = self.memory * self.state if free is None else free
        scaled = free * (1 - (0.0 if fraction is None or not self.heeds_fraction else (1 - fraction) / 0.4))
        return int((scaled - self.activation(1, prefill)) // self.block_size) * self.block_size

    def start(self, setting: Setting) -> tuple[EngineFacts | None, Failure | None]:
        self.starts += 1
        if self.failures:
            return None, self.failures.pop(0)
        prefill = setting.max_batch_prefill_tokens or min(self.default_prefill, self.context)
        budget = self.budget(prefill, setting.cuda_memory_fraction)
        told = budget if self.tells_blocks and self.kind == "flash" else None
        seen = EngineFacts(self.kind, self.chunking, told, self.block_size, prefill_tokens=prefill)
        own_total = None if self.own_input is None else self.own_input + 1
        limit = setting.max_input_tokens or self.own_input
        if not (self.chunking and self.kind == "flash") and limit is not None and limit > prefill:
            words = f"`max_batch_prefill_tokens` must be >= `max_input_tokens`. Given: {prefill} and {limit}"
            return seen, Failure("limits", "argument", words)
        length = min(prefill, limit or prefill)
        rows = max(1, -(-prefill // length))
        if self.activation(rows, length) + prefill > self.memory * self.state:
            return seen, Failure("warm-up", "memory", f"Not enough memory to handle {prefill} prefill tokens")
        if self.kind != "flash":
            total = setting.max_total_tokens or own_total or prefill
            return self._padded(setting, prefill, limit or total - 1, total), None
        if setting.max_total_tokens is not None and setting.max_total_tokens > budget:
            return seen, Failure("limits", "budget", f"NotEnoughMemory({setting.max_total_tokens})")
        if prefill > budget:
            return seen, Failure("limits", "budget", f"Given: {prefill} and {budget}", limit=budget)
        own = own_total or (min(budget, self.context) if self.chunking else prefill)
        total = setting.max_total_tokens or own
        facts = EngineFacts(
            "flash",
            self.chunking,
            budget,
            self.block_size,
            budget // self.block_size,
            prefill,
            limit or total - 1,
            total,
            prefix_caching=self.prefix_caching and setting.prefix_caching is not False,
        )
        return facts, None

    def _padded(self, setting: Setting, prefill: int, limit: int, total: int) -> EngineFacts:
        budget = setting.max_batch_total_tokens or max(16000, total, prefill)
        return EngineFacts(
            self.kind,
            False,
            budget if self.kind == "padded" else None,
            prefill_tokens=prefill,
            max_input_tokens=limit,
            max_total_tokens=total,
        )

    def send(self, load: Load, setting: Setting, started: EngineFacts) -> LoadResult:
        return _Serving(self, load, setting, started).run()


class _Serving:
    """One load, step by step; a step is a prefill or a decode of all that run."""

    def __init__(self, engine: ModelEngine, load: Load, setting: Setting, started: EngineFacts) -> None:
        self.engine, self.load, self.started = engine, load, started
        self.law = engine.law
        self.permits = setting.max_concurrent_requests or 128
        self.batch = (engine.heeds_batch_size and setting.max_batch_size) or 10**6
        self.prefill = started.prefill_tokens or 4096
        self.budget = setting.max_batch_total_tokens or started.budget or 16000
        self.waves = [[self._row(shape) for shape in wave] for wave in load.waves]
        self.rows = [row for wave in self.waves for row in wave]
        self.limits = started.max_input_tokens or 1, started.max_total_tokens or 2
        self.queue: list[Row] = []
        self.running: list[Row] = []
        self.sent = self.refused = 0
        self.carried: int | None = None
        self.beside: int | None = None
        self.reads: list[int] = []
        self.counted = 0
        self.ended_early = 0

    def _row(self, shape: Shape) -> Row:
        row = Row(shape.input_tokens, min(shape.max_new_tokens, CHUNK))
        if self.engine.ends:
            row.stops = next((at for at in range(1, row.new) if self.engine.chance.random() < self.engine.ends), None)
        return row

    def run(self) -> LoadResult:
        if any(row.input > self.limits[0] or row.input + row.new > self.limits[1] for row in self.rows):
            return self._result("refused", "`inputs` must have less")
        while True:
            arrived = self._arrive()
            if self._is_over():
                break
            batch = self._pick(1 if arrived and not self.running else len(self.queue))
            if batch:
                if self._dies(batch):
                    return self._result("died", "CUDA out of memory")
                self._note(batch)
                self._count(batch)
                self.running += batch
                for row in batch:
                    row.done = 1
                self._end()
                continue_steps = 1
            else:
                if not self.running:
                    return self._result("stalled", "nobody gets a token")
                continue_steps = self._steps()
            if not self._written(continue_steps):
                return self._result("died", "CUDA out of memory")
            self._end()
        return self._result("held", None)

    def _arrive(self) -> bool:
        came = False
        while self.sent < len(self.waves) and all(
            row.over or row.done >= self.load.min_tokens_before_next_wave
            for wave in self.waves[: self.sent]
            for row in wave
        ):
            for row in self.waves[self.sent]:
                if len(self.queue) + len(self.running) >= self.permits:
                    row.over, self.refused = True, self.refused + 1
                else:
                    self.queue.append(row)
            self.sent += 1
            came = True
        return came

    def _is_over(self) -> bool:
        if self.sent < len(self.waves):
            return False
        left = self.load.leave_after_tokens
        return all(row.over or (left is not None and row.done >= left) for row in self.rows)

    def _steps(self) -> int:
        """How far nothing can change but the answers."""
        ends = min(row.ends_at - row.done for row in self.running)
        marks = [self.load.min_tokens_before_next_wave, self.load.leave_after_tokens or 0]
        to_mark = [mark - row.done for row in self.running for mark in marks if mark > row.done]
        return max(1, min([ends, *to_mark]))

    def _written(self, steps: int) -> bool:
        """Whether all that run live through so many tokens more; else they have as many as they lived through."""
        done = [row.done for row in self.running]

        def lives(steps: int) -> bool:
            for row, before in zip(self.running, done, strict=True):
                row.done = before + steps
            return not self._dies([])

        if lives(steps):
            return True
        most = bisect_left(range(1, steps + 1), True, key=lambda step: not lives(step))
        lives(most)
        return False

    def _slots(self, row: Row) -> int:
        size = self.started.block_size
        return -(-(row.input + row.new - 1) // size) * size

    def _pick(self, most: int) -> list[Row]:
        taken: list[Row] = []
        if self.engine.kind == "flash":
            free = (self.started.usable or 0) - sum(self._slots(row) for row in self.running)
            left = self.prefill - len(self.running)
            while self.queue and left > 0 and len(taken) < most and self._slots(self.queue[0]) <= free:
                if not self.engine.chunking and taken and self.queue[0].input > left:
                    break
                row = self.queue.pop(0)
                taken.append(row)
                free, left = free - self._slots(row), left - row.input
            return taken
        held, longest, new = sum(row.input + row.new for row in self.running), 0, 0
        held = self.counted if self.engine.counts_padding else held
        most = min(most, self.batch - len(self.running))
        while self.queue and len(taken) < most:
            head = self.queue[0]
            longest, new = max(longest, head.input), new + head.new
            read = (len(taken) + 1) * longest
            if read > self.prefill or read + new > self.budget - held:
                break
            taken.append(self.queue.pop(0))
        return taken

    def _count(self, batch: list[Row]) -> None:
        """What TGI's causal models say of a batch with these read: what is padded when they join is counted, not what
        is left when an answer grows (server/text_generation_server/models/causal_lm.py).
        """
        running = max((row.input + row.done for row in self.running), default=0)
        read, longest = max(row.input for row in batch), max(running, max(row.input for row in batch))
        self.counted += (longest - running) * len(self.running)
        self.counted += len(batch) * (read + sum(row.new for row in batch)) + (longest - read) * len(batch)

    def _dies(self, batch: list[Row]) -> bool:
        engine = self.engine
        count = len(self.running) + len(batch)
        if engine.rows_die is not None and count >= engine.rows_die:
            return True
        if engine.kind == "flash":
            reserved = sum(self._slots(row) for row in [*self.running, *batch])
            written = sum(row.input + row.done for row in [*self.running, *batch])
            full = engine.full_dies is not None and reserved >= engine.full_dies * (self.started.usable or 1)
            taken = reserved if engine.at_admission else written
            return full or (engine.load_dies is not None and taken >= engine.load_dies)
        return self.law.exceeded(self.running, batch)

    def _note(self, batch: list[Row]) -> None:
        carried = sum(row.input + row.done for row in self.running) + sum(row.input for row in batch)
        if not any(self.load.leads(row.new) for row in batch):
            self.carried = max(self.carried or 0, carried)
        steps = self.load.stairs
        while len(self.reads) < len(steps) and any(self.rows[steps[len(self.reads)][0] - 1] is row for row in batch):
            self.reads.append(carried)
        self.beside = max(self.beside or 0, len(self.running) + len(batch))

    def _end(self) -> None:
        for row in self.running:
            row.over = row.done >= row.ends_at
        self.ended_early += sum(row.over and row.done < row.new for row in self.running)
        if self.load.kind == "write":
            self.carried = max(self.carried or 0, sum(row.input + row.done for row in self.running))
        left = [row for row in self.running if not row.over]
        if len(left) < len(self.running):
            longest = max((row.input + row.done for row in left), default=0)
            self.counted = len(left) * longest + sum(row.new - row.done for row in left)
        self.running = left

    def _result(self, verdict: Verdict, reason: str | None) -> LoadResult:
        begun = [row for row in self.rows if row.done]
        flash = self.engine.kind == "flash"
        # A flash engine writes the newest token of a chat with the next one.
        now = sum(row.input + row.done - flash for row in begun if not row.over)
        return LoadResult(
            self.load,
            verdict,
            len(begun),
            sum(row.input + row.new for row in begun),
            now if verdict in ("died", "stalled") else self.carried,
            self.beside,
            tuple(self.reads),
            completed=sum(row.over and row.done > 0 for row in self.rows),
            ended_early=self.ended_early,
            refused=self.refused,
            ttft_p95=0.1,
            itl_p95=0.02 + 0.0002 * len(self.rows),
            rate=100.0,
            seconds=0.2 + self.load.tokens / READ_RATE if flash else 1.0,
            reason=reason,
        )


def run(search: Search, engine: ModelEngine) -> Search:
    """Drive the search to its end against the engine."""
    while (setting := search.ask()) is not None:
        started, failure = engine.start(setting)
        results: list[LoadResult] = []
        if failure is None:
            assert started is not None
            while (load := search.next_load(setting, started, results)) is not None:
                results.append(engine.send(load, setting, started))
                if results[-1].verdict == "died":
                    failure = Failure("under load", "memory", "CUDA out of memory")
                    break
        came_up = failure is None or failure.stage == "under load"
        search.tell(Outcome(setting, started, came_up, failure, tuple(results)))
    return search
