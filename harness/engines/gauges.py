"""Gauges: figures of an engine's pages, under names that all engines share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Gauges:
    """What an engine does now; None where it does not tell.

    running, waiting: requests. kv_used: share of the KV cache, 0 to 1. kv_tokens: the same in tokens. preempted:
    requests preempted (SGLang: retracted) since the start, a counter. cache_queries, cache_hits: prompt tokens looked
    up and found in the prefix cache since the start, counters. steps: forward passes since the start, a counter.

    By the engine's own clock, all counters: seconds that requests spent in one part of their way, and how many have
    passed it. validation: until they were queued. queue: until they were taken up. prefill: from there to the first
    token. first_token: from their arrival to the first token. inference: from being taken up to the last token.
    """

    running: float | None = None
    waiting: float | None = None
    kv_used: float | None = None
    kv_tokens: float | None = None
    preempted: float | None = None
    cache_queries: float | None = None
    cache_hits: float | None = None
    steps: float | None = None
    validation_seconds: float | None = None
    validation_count: float | None = None
    queue_seconds: float | None = None
    queue_count: float | None = None
    prefill_seconds: float | None = None
    prefill_count: float | None = None
    first_token_seconds: float | None = None
    first_token_count: float | None = None
    inference_seconds: float | None = None
    inference_count: float | None = None

    def known(self) -> Mapping[str, float]:
        """Those that were told, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


NOTHING_TOLD = Gauges()
