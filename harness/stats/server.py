"""The engine's gauges over one level: how full it was, and what would falsify the figures.

Two things an engine does in silence: it preempts (SGLang: retracts) running chats when its KV cache is full,
which shows as long gaps, and it answers parts of prompts from its prefix cache, which shows as short first tokens.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.measure.server import ServerSamples


@dataclass(frozen=True)
class ServerFigures:
    """Over one level, None where the engine does not tell. running, waiting: most requests that it had at a reading;
    running_mean: of all readings.

    kv_used: the largest share of the KV cache in use. preempted: requests. prompt_tokens_looked_up,
    prompt_tokens_from_cache: of the prefix cache.
    """

    running: float | None = None
    waiting: float | None = None
    running_mean: float | None = None
    kv_used: float | None = None
    preempted: float | None = None
    prompt_tokens_looked_up: float | None = None
    prompt_tokens_from_cache: float | None = None

    @property
    def cache_share(self) -> float | None:
        """Of the prompt tokens, how many the prefix cache answered; None where none were looked up."""
        asked, found = self.prompt_tokens_looked_up, self.prompt_tokens_from_cache
        return None if not asked or found is None else min(1.0, found / asked)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "prefix_cache_share": self.cache_share}


NOTHING_TOLD = ServerFigures()


def server_figures(samples: ServerSamples, start: float, end: float) -> ServerFigures:
    """start, end: the level's first and last moment in seconds since the run's start, its warm-up included."""

    running = samples.values("running", start, end)

    def most(name: str) -> float | None:
        values = samples.values(name, start, end)
        return float(np.max(values)) if len(values) else None

    return ServerFigures(
        running=most("running"),
        waiting=most("waiting"),
        running_mean=float(running.mean()) if len(running) else None,
        kv_used=most("kv_used"),
        preempted=samples.growth("preempted", start, end),
        prompt_tokens_looked_up=samples.growth("cache_queries", start, end),
        prompt_tokens_from_cache=samples.growth("cache_hits", start, end),
    )
