"""Counts steps and answers, for the metrics of any engine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from harness.emulator.faces.answers import Generation, PoolEngine
from harness.emulator.faces.page import TOKENS, Page
from harness.simulator.policies import PoolCall
from harness.simulator.scheduler import Emission

GAUGES = {
    "running": "Requests in the running batch",
    "waiting": "Requests in the queue",
    "kv_share": "Share of the KV cache in use, 0 to 1",
    "kv_tokens": "Tokens of the KV cache in use",
}
COUNTERS = {
    "put_back": "Requests that lost their KV cache and went back to the queue",
    "queried": "Prompt tokens looked up in the prefix cache",
    "found": "Prompt tokens found in the prefix cache",
    "prompts": "Prompt tokens of requests that were begun",
    "cached": "Prompt tokens that were not computed",
    "tokens": "Tokens generated",
}
SECONDS = {
    "first": "Time to the first token, in seconds",
    "between": "Time between two tokens of an answer, in seconds",
    "per_token": "Mean time per token after the first, in seconds",
    "total": "Time of a whole request, in seconds",
    "queued": "Time in the queue, in seconds",
    "prefill": "Time from the queue to the first token, in seconds",
}
LENGTHS = {
    "step_tokens": "Tokens of one step",
    "prompt_tokens": "Prompt tokens of a request",
    "answer_tokens": "Generated tokens of a request",
}


class Counts:
    """Samples of one engine. names: what the engine calls each of the notions above that it has.

    computed: prompt tokens that steps computed; made: tokens generated.
    """

    def __init__(self, engine: PoolEngine, page: Page, names: Mapping[str, str]) -> None:
        self.engine, self.page = engine, page
        self.computed = self.made = 0
        self._looked_up = (0, 0)
        self._last: dict[Generation, float] = {}
        scheduler = engine.scheduler
        read = {
            "running": lambda: scheduler.running,
            "waiting": lambda: scheduler.queue_size,
            "kv_share": self.kv_share,
            "kv_tokens": lambda: scheduler.used_tokens,
        }
        for notion, text in GAUGES.items():
            if notion in names:
                page.gauge(names[notion], text, read[notion])
        self._counters = {key: page.counter(names[key], text) for key, text in COUNTERS.items() if key in names}
        self._histograms = {key: page.histogram(names[key], text) for key, text in SECONDS.items() if key in names}
        self._histograms |= {
            key: page.histogram(names[key], text, TOKENS) for key, text in LENGTHS.items() if key in names
        }

    def kv_share(self) -> float:
        return self.engine.scheduler.used_tokens / self.engine.scheduler.pool_tokens

    def count(self, notion: str, number: float) -> None:
        if number and notion in self._counters:
            self._counters[notion].inc(number)

    def observe(self, notion: str, value: float) -> None:
        if notion in self._histograms:
            self._histograms[notion].observe(value)

    def step(self, call: PoolCall, emissions: Sequence[Emission]) -> None:
        """A step is done, and its tokens are handed out."""
        scheduler, moment = self.engine.scheduler, time.monotonic()
        self.computed += call.prompt_tokens
        self.made += len(emissions)
        self.count("tokens", len(emissions))
        self.count("put_back", len(call.put_back))
        self.count("queried", scheduler.queried - self._looked_up[0])
        self.count("found", scheduler.found - self._looked_up[1])
        self._looked_up = (scheduler.queried, scheduler.found)
        self.observe("step_tokens", call.step.tokens)
        for request, _, finished in emissions:
            owner: Generation = request.owner  # type: ignore[attr-defined]
            before = self._last.get(owner)
            if before is not None:
                self.observe("between", moment - before)
            elif owner.generated == 1:
                self.observe("first", moment - owner.entered)
                self.count("prompts", owner.prompt_tokens)
                self.count("cached", owner.turn.cached_tokens)
            if finished is None:
                self._last[owner] = moment

    def ended(self, generation: Generation) -> None:
        """An answer is done, failed, or nobody wants it any more."""
        self._last.pop(generation, None)
        turn = generation.turn
        if not generation.complete or turn.taken_at is None:
            return
        first = turn.first_token_at or turn.taken_at
        self.observe("total", generation.ended_at - generation.entered)
        self.observe("queued", turn.taken_at - turn.queued_at)
        self.observe("prefill", first - turn.taken_at)
        self.observe("prompt_tokens", generation.prompt_tokens)
        self.observe("answer_tokens", generation.generated)
        if generation.generated > 1:
            self.observe("per_token", (generation.ended_at - first) / (generation.generated - 1))
