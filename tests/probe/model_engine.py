"""An engine in values with a known memory law, to hold the search against: memory is counted in tokens of KV cache."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.engines.base import EngineFacts, Kind
from harness.probe.search import Search
from harness.probe.setting import Failure, Load, LoadResult, Outcome, Setting, Shape


@dataclass
class ModelEngine:
    """memory: what is left for KV cache and activations. activation: of one prefill batch, by (rows, longest).

    padded_rows: a long prompt pads its whole batch. row_cost: of each running chat. rows_die: chats at once
    that kill it. load_dies: tokens in flight that kill a flash engine. jitter: share by which free memory
    differs between starts.
    """

    memory: int
    kind: Kind = "flash"
    chunking: bool = True
    block_size: int = 1
    context: int = 131072
    default_prefill: int = 4096
    activation: Callable[[int, int], float] = lambda rows, longest: 0.2 * rows * longest
    headroom: float = 0.1
    padded_rows: bool = False
    row_cost: float = 0.0
    rows_die: int | None = None
    load_dies: int | None = None
    heeds_fraction: bool = True
    jitter: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    seed: int = 1
    starts: int = 0

    def budget(self, prefill: int, fraction: float | None, free: float) -> int:
        scaled = free * (1 - (0.0 if fraction is None or not self.heeds_fraction else (1 - fraction) / 0.4))
        return int((scaled - self.activation(1, prefill)) // self.block_size) * self.block_size

    def start(self, setting: Setting) -> tuple[EngineFacts | None, Failure | None]:
        self.starts += 1
        if self.failures:
            return None, self.failures.pop(0)
        noise = random.Random(f"{self.seed}/{self.starts}").uniform(-self.jitter, self.jitter)
        free = self.memory * (1 + noise)
        prefill = setting.max_batch_prefill_tokens or min(self.default_prefill, self.context)
        budget = self.budget(prefill, setting.cuda_memory_fraction, free)
        seen = EngineFacts(self.kind, self.chunking, None, self.block_size, prefill_tokens=prefill)
        length = min(prefill, setting.max_input_tokens or prefill)
        if self.activation(max(1, prefill // length), length) + prefill > free:
            return seen, Failure("warm-up", "memory", f"Not enough memory to handle {prefill} prefill tokens")
        if self.kind == "padded":
            total = setting.max_total_tokens or prefill
            return (
                EngineFacts(
                    "padded",
                    False,
                    setting.max_batch_total_tokens or max(16000, total, prefill),
                    prefill_tokens=prefill,
                    max_input_tokens=setting.max_input_tokens or total - 1,
                    max_total_tokens=total,
                ),
                None,
            )
        if setting.max_total_tokens is not None and setting.max_total_tokens > budget:
            return seen, Failure("warm-up", "budget", f"NotEnoughMemory({setting.max_total_tokens})")
        if prefill > budget:
            return seen, Failure("limits", "budget", f"Given: {prefill} and {budget}", limit=budget)
        total = setting.max_total_tokens or (min(budget, self.context) if self.chunking else prefill)
        return (
            EngineFacts(
                "flash",
                self.chunking,
                budget,
                self.block_size,
                budget // self.block_size,
                prefill,
                setting.max_input_tokens or total - 1,
                total,
            ),
            None,
        )

    def peak(self, load: Load, setting: Setting, started: EngineFacts) -> tuple[bool, int, int]:
        """Whether it dies, and what began before. Prompts are read in order, in batches of the prefill budget."""
        prefill, running, begun = started.prefill_tokens or 4096, [], 0
        shapes = _as_aimed(load)[: setting.max_concurrent_requests or 128]
        at = 0
        while at < len(shapes):
            batch = [shapes[at]]
            while at + len(batch) < len(shapes):
                longest = max(shape.input_tokens for shape in [*batch, shapes[at + len(batch)]])
                if (len(batch) + 1) * longest > prefill:
                    break
                batch.append(shapes[at + len(batch)])
            if self._over(running, batch):
                return True, begun, sum(shape.total for shape in running)
            running += batch
            begun += len(batch)
            at += len(batch)
            if self._over(running, []):
                return True, begun, sum(shape.total for shape in running)
        return False, begun, sum(shape.total for shape in running)

    def _over(self, running: list, batch: list) -> bool:
        rows = [*running, *batch]
        tokens = sum(shape.total for shape in rows)
        area = len(rows) * max((shape.total for shape in rows), default=0)
        if self.rows_die is not None and len(rows) >= self.rows_die:
            return True
        if self.kind == "flash":
            return self.load_dies is not None and tokens >= self.load_dies
        acts = self.activation(len(batch), max(shape.input_tokens for shape in batch)) if batch else 0
        return (area if self.padded_rows else tokens) + acts + self.row_cost * len(rows) > self.memory

    def send(self, load: Load, setting: Setting, started: EngineFacts) -> LoadResult:
        permits = setting.max_concurrent_requests or 128
        died, begun, tokens = self.peak(load, setting, started)
        if died:
            return LoadResult(load, "died", begun, tokens, reason="CUDA out of memory")
        usable = started.usable if started.kind == "flash" else None
        if usable is not None and any(shape.reserved() > usable for shape in load.shapes):
            return LoadResult(load, "stalled", 0, 0, reason="never scheduled")
        limit_in, limit_total = started.max_input_tokens or 0, started.max_total_tokens or 0
        if any(shape.input_tokens > limit_in or shape.total > limit_total for shape in load.shapes):
            return LoadResult(load, "refused", reason=f"too long: {load.longest} of {limit_in}, {limit_total}")
        return LoadResult(load, "held", begun, tokens, completed=begun, refused=max(0, len(load.shapes) - permits))


def _as_aimed(load: Load) -> list[Shape]:
    """The requests with as much of their answers as they have when the last prompts are read in."""
    if load.target_tokens_in_flight is None:
        return list(load.shapes)
    answers = sum(shape.max_new_tokens for shape in load.shapes)
    part = max(0.0, load.target_tokens_in_flight - sum(shape.input_tokens for shape in load.shapes)) / answers
    return [Shape(shape.input_tokens, round(shape.max_new_tokens * part)) for shape in load.shapes]


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
