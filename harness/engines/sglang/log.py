"""Reads SGLang's start-up log: its phase, and the limits in its one line that has them all.

Texts of 0.4.6 to 0.5.23 (srt/managers/scheduler.py, model_executor/, mem_cache/memory_pool.py). Lines begin with the
time and the rank, and have no level.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.catalog.limits import Limits
from harness.engines.base import StartLog
from harness.engines.log_rules import apply, phase, rules

BELOW_CONTEXT = 2  # tokens that a request stays below context and pool


@dataclass(eq=False)
class SglangLog(StartLog):
    """What the log has said so far. pool: tokens of the KV cache. step: of one prefill chunk; None where prompts are
    read in one piece. rows: requests that run at once. context: that the server was given, or the model's own.
    """

    pool: int | None = None
    step: int | None = None
    rows: int | None = None
    context: int | None = None

    def __post_init__(self) -> None:
        super().__init__()

    @property
    def longest(self) -> int | None:
        """Tokens of one request at most; see facts.py."""
        known = [each for each in (self.context, self.pool) if each is not None]
        return min(known) - BELOW_CONTEXT if known else None

    @property
    def limits(self) -> Limits:
        return Limits(
            max_total_tokens=self.longest if self.context is not None else None,
            max_batch_prefill_tokens=self.step,
            max_batch_total_tokens=self.pool,
            max_batch_size=self.rows,
        )

    def understand(self, line: str) -> None:
        apply(self, line, _RULES)


def _limits(log: SglangLog, match: re.Match[str]) -> None:
    log.pool, log.rows, log.context = int(match[1]), int(match[4]), int(match[5])
    log.step = int(match[2]) if match[2].isdigit() else None
    log.enter("warming up", f"KV cache of {int(match[1]):,} tokens")


def _pool(log: SglangLog, match: re.Match[str]) -> None:
    log.pool = int(match[1])
    log.enter("warming up", f"KV cache of {int(match[1]):,} tokens")


_RULES = rules(
    (
        r"max_total_num_tokens=(\d+), chunked_prefill_size=(-?\d+|None), max_prefill_tokens=(\d+),"
        r" max_running_requests=(\d+), context_len=(\d+)",
        _limits,
    ),
    (r"KV Cache is (?:allocated|VA upper bound)[^#]*#tokens: (\d+)", _pool),
    # No line says what is fetched, nor whether anything is.
    (r"server_args=ServerArgs\(", phase("downloading", "weights that are not in the cache")),
    (r"Load weight begin", phase("loading")),
    (r"(?:Loading|Multi-thread loading) \S* ?(?:checkpoint )?shards:\s+\S+ Completed \| (\d+)/(\d+)",
     phase("loading", r"file \1 of \2")),
    (r"Load weight end", phase("warming up", "the weights are loaded")),
    (r"Capture (?:target \w+ )?(?:cuda|CUDA) graph begin", phase("warming up", "capturing CUDA graphs")),
    (r"Capture (?:target \w+ )?(?:cuda|CUDA) graph end", phase("warming up", "CUDA graphs are captured")),
    (r"The server is fired up and ready to roll", phase("connected")),
)  # fmt: skip
