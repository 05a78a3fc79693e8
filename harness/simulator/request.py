"""A request's state inside the engine."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.simulator.kv_cache import Allocation

_NO_BLOCKS = array("i")


@dataclass(slots=True, eq=False)
class EngineRequest:
    """One queue entry of the engine: one chunk of at most 1024 new tokens (continuation.py makes the next).

    id: unique among the requests of one scheduler. tokens: prompt token ids, on which the prefix cache matches.
    max_new_tokens: of this chunk. cacheable: False where prefill details are asked for; such a request neither reads
    nor fills the prefix cache. answer_tokens: length of the answer where it is known beforehand (virtual time).

    State, kept by the scheduler: generated: tokens so far. cached_tokens: prompt tokens taken from the prefix cache.
    computed: prompt tokens whose keys and values exist, the cached ones included. chunk: tokens of its next forward.
    queued_at, taken_at, first_token_at: moments on the caller's clock. gone: the client went away, not yet noticed.
    first_tick: the run's forward in which it got its first token (Scheduler.tick).
    """

    id: int | str
    tokens: Sequence[int]
    max_new_tokens: int
    cacheable: bool = True
    answer_tokens: int | None = None
    input_length: int = field(init=False)
    generated: int = 0
    cached_tokens: int = 0
    computed: int = 0
    chunk: int = 0
    allocation: Allocation | None = None
    queued_at: float = 0.0
    taken_at: float | None = None
    first_token_at: float | None = None
    first_tick: int = -1
    place: int = 0
    gone: bool = False

    def __post_init__(self) -> None:
        self.input_length = len(self.tokens)

    @property
    def blocks(self) -> Sequence[int]:
        """The block ids that it holds; empty before it is taken, after it ended, and on padded models."""
        return self.allocation.blocks if self.allocation is not None else _NO_BLOCKS

    @property
    def expected_tokens(self) -> int:
        """New tokens after which it ends, if nothing but its known length ends it."""
        return self.max_new_tokens if self.answer_tokens is None else min(self.answer_tokens, self.max_new_tokens)

    @property
    def prefilling(self) -> bool:
        """Some of the prompt is not yet computed."""
        return self.computed < self.input_length
