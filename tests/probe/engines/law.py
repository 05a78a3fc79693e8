"""How engines without a memory check take memory, as published for causal models of Hugging Face: not our simulator.

A batch keeps keys and values of each row, padded to the longest where attention is not of the flash kind. Some take
them as a row grows, some at admission for all that it may write. A prefill takes activations on top.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass
class Row:
    """One chat. input, new: tokens; done: of its answer. stops: of these the last, where the model ends it earlier."""

    input: int
    new: int
    done: int = 0
    over: bool = False
    stops: int | None = None

    @property
    def ends_at(self) -> int:
        return self.new if self.stops is None else self.stops


@dataclass(frozen=True)
class MemoryLaw:
    """memory: tokens of KV cache that fit where nothing is read. activation: of one prefill, by (rows, longest).
    granule: tokens by which what is kept of a row grows at a time. padded_late: prompts are read as a batch of their
    own, and padded with the others when all write the next token (server/text_generation_server/models/causal_lm.py,
    concatenate).
    """

    memory: float
    activation: Callable[[int, int], float]
    padded_rows: bool = False
    at_admission: bool = False
    row_cost: float = 0.0
    granule: int = 1
    padded_late: bool = False

    def exceeded(self, running: Sequence[Row], batch: Sequence[Row]) -> bool:
        """Whether so many rows, of which `batch` is just read, need more than there is."""
        rows = [*running, *batch]
        if not rows:
            return False
        lengths = [row.input + (row.new if self.at_admission else row.done) for row in rows]
        if self.granule > 1:
            lengths = [-(-length // self.granule) * self.granule for length in lengths]
        kept = sum(lengths)
        if self.padded_rows:
            apart = len(running) if self.padded_late else 0
            kept = sum(len(each) * max(each, default=0) for each in (lengths[:apart], lengths[apart:]))
        reading = self.activation(len(batch), max(row.input for row in batch)) if batch else 0.0
        return kept + reading + self.row_cost * len(rows) > self.memory

    def budget(self, longest: int) -> float:
        """The largest budget that survives whatever it admits, if no prompt and no prefill is longer than this."""
        lengths = {longest // parts for parts in range(1, 9)} | {longest * part // 64 for part in range(8, 65)}
        worst = max(self.activation(max(1, longest // each), each) for each in lengths if each > 0)
        return self.memory - worst
