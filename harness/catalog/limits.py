"""Limits: the limits of a serving engine under one set of names for all engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Limits that an entry sets, that a running engine told, or that a probe found; None: left to the engine, or not
    told. Tokens, but for requests in the two that say so.

    max_input_tokens, max_total_tokens: of one request, prompt and prompt with answer. max_batch_prefill_tokens: prompt
    tokens that one step reads. max_batch_total_tokens: of all requests in flight. max_batch_size: requests that
    generate at once; max_concurrent_requests: with those that wait. cuda_memory_fraction: share of the GPU's memory
    that the engine may take.
    """

    max_input_tokens: int | None = None
    max_total_tokens: int | None = None
    max_batch_prefill_tokens: int | None = None
    max_batch_total_tokens: int | None = None
    max_concurrent_requests: int | None = None
    max_batch_size: int | None = None
    cuda_memory_fraction: float | None = None

    def known(self) -> Mapping[str, int | float]:
        """Those that are set, by name."""
        values = ((each.name, getattr(self, each.name)) for each in fields(Limits))
        return {name: value for name, value in values if value is not None}
