"""A flash engine that dies with so many tokens in flight, wherever its cache ends: how many are they?

Filling the cache in steps tells that coarsely. A start of its own then lets answers grow from what surely held to what
killed, one token of each chat at a time; where it is not growth that kills, prompts fill it in small steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.engines.base import EngineFacts
from harness.probe import loads
from harness.probe.flash_evidence import dies_when_full, ignores_fraction
from harness.probe.memory_fraction import caches_by_fraction, fraction_for
from harness.probe.setting import CHUNK, Load, LoadResult, Setting, Shape, effective_prefill
from harness.probe.state import SearchState

KNOWN = 0.005  # share between what held and what killed, below which more need not be known
NEARLY_ALL = 0.95  # of a cache: what kills beyond it may be its last blocks
WIDE = 0.05  # the same, above which it is no matter of the last blocks alone
PACKED = 0.8  # of what held, that one chat may have here
FINE = 0.003  # of a size, from step to step
STEPPING = 120.0  # seconds for all steps
MOST_STARTS = 3
LEAST_ROWS, MOST_ROWS = 4, 32  # chats whose answers grow together
TOKENS_A_ROW = 1000  # of what is sought, for each of them: it is known to one token of each
GROWTH = 900  # tokens of an answer that one chat may grow


def is_sought(state: SearchState) -> bool:
    """Whether a start that only looks for the boundary is worth it."""
    evidence = state.evidence
    died, gap = evidence.tokens.smallest_failed, evidence.tokens.gap
    whole = max(_caches(state).values(), default=0)
    looked = sum(each.setting.purpose == "explore" for each in evidence.outcomes)
    return (
        died is not None
        and (gap is None or gap > KNOWN)
        and (died <= NEARLY_ALL * whole or gap is None or gap > WIDE)
        and looked < MOST_STARTS
        and state.wish.max_starts - evidence.starts > 1
        and not dies_when_full(evidence)
    )


def exploring(state: SearchState) -> Setting:
    """The recommended limits with a cache somewhat larger than what killed, which also tells how it follows the memory
    fraction; chats that are shorter than what held, so that it starts in any case.
    """
    evidence, better = state.evidence, state.advice.setting
    died, caches = evidence.tokens.smallest_failed or 0, _caches(state)
    whole = max(caches.values(), default=died)
    fraction = None if ignores_fraction(evidence) else fraction_for(caches, (died + whole) / 2, state.prior)
    total = max(2, min(better.max_total_tokens or 2, int(PACKED * (evidence.tokens.largest_ok or died / 2))))
    prompt = max(1, min(better.max_input_tokens or total, total - 1))
    return replace(
        better,
        max_input_tokens=prompt,
        max_total_tokens=total,
        max_batch_prefill_tokens=min(better.max_batch_prefill_tokens or total, whole),
        max_concurrent_requests=loads.ROWS_CAP,
        cuda_memory_fraction=fraction if fraction != 1.0 else None,
        purpose="explore",
    )


def next_load(
    before: SearchState, started: EngineFacts, setting: Setting, results: Sequence[LoadResult]
) -> Load | None:
    """before: what was known when this start began."""
    known, loaded = before.evidence.tokens, [r for each in before.evidence.outcomes for r in each.loads]
    top = min((known.smallest_failed or 0) + 1, started.usable or 0)
    held = min(known.largest_ok or top // 2, top - 1)
    shape = _Chats(started.prefill_tokens or 4096, setting.max_input_tokens or top, setting.max_total_tokens or top)
    plan = [] if any(each.load.kind == "write" for each in loaded) else [_grown(held, top, shape)]
    if len(results) >= len(plan):
        seen = max([held, *(each.carried or 0 for each in results[: len(plan)])])
        pace = max((r.seconds / r.load.tokens for r in loaded if r.load.kind == "fill"), default=0.0)
        steps = math.ceil((top - seen) / (FINE * top))
        steps = min(steps, max(2, int(STEPPING / (pace * top)))) if pace else steps
        plan += [_packed(seen + (top - seen) * part // steps, shape) for part in range(1, steps + 1)]
    return plan[len(results)] if len(results) < len(plan) else None


@dataclass(frozen=True)
class _Chats:
    """How they can be. prefill: tokens that are read between two answer tokens of those that run."""

    prefill: int
    prompt: int
    total: int

    def rounds(self, tokens: int) -> int:
        return 2 * math.ceil(tokens / max(1, self.prefill))


def _grown(held: int, top: int, chats: _Chats) -> Load:
    """Chats whose prompts take what surely held and whose answers take it up to `top`."""
    rows = max(LEAST_ROWS, min(MOST_ROWS, top // TOKENS_A_ROW), math.ceil((top - held) / GROWTH))
    rows = max(rows, math.ceil(top / chats.total))
    spare = chats.rounds(held) + loads.SPARE  # answered while the others are read
    prompt = max(1, min(held // rows - spare, chats.prompt, chats.total - 1))
    answer = max(1, min(math.ceil(top / rows) - prompt, chats.total - prompt, CHUNK))
    return loads.varied(Load("write", ((Shape(prompt, answer),) * rows,), budget=top))


def _packed(size: int, chats: _Chats) -> Load:
    """As few chats as take `size` tokens, with next to nothing left to write when the last is read."""
    count = max(2, math.ceil(size / chats.total))
    each, more = divmod(size, count)
    shapes = []
    for index in range(count):
        whole = each + (index < more)
        answer = min(chats.rounds((count - index - 1) * each) + loads.SPARE, whole - 1)
        shapes.append(Shape(min(whole - answer, chats.prompt), answer))
    load = Load("fill", (tuple(shapes),), budget=size, history=shapes[-1].input_tokens, leave_after_tokens=2)
    return replace(load, target_tokens_in_flight=load.tokens)


def _caches(state: SearchState) -> dict[float, int]:
    """With the prefill budget that is recommended, else with the one that was run: a smaller one leaves no less."""
    last = state.evidence.last_up
    ran = effective_prefill(last) if last is not None else None
    known = caches_by_fraction(state.evidence, state.advice.setting.max_batch_prefill_tokens or 0)
    return known or caches_by_fraction(state.evidence, ran or 0)
