"""How many tokens in flight kill a flash engine, wherever its cache ends.

Filling the cache in steps tells that coarsely. A start of its own then fills it in small steps from what surely held to
what killed, by prompts with next to nothing left to write, because an engine may take memory for what is written or for
what is reserved. Where so many fills would take too long, answers grow from the one to the other, one token of each
chat at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from harness.engines.base import EngineFacts
from harness.probe import loads
from harness.probe.flash_evidence import dies_when_full, ignores_fraction
from harness.probe.flash_limits import COSTLY, safe_prefill
from harness.probe.memory_fraction import caches_at, fraction_for
from harness.probe.setting import CHUNK, Load, LoadResult, Setting, Shape
from harness.probe.state import SearchState

KNOWN = 0.008  # share between what held and what killed, below which more need not be known
NEARLY_ALL = 0.95  # of a cache: what kills beyond it may be its last blocks
WIDE = 0.012  # the same, above which it is no matter of the last blocks alone
PACKED = 0.8  # of what held, that one chat may have here
FINE = 0.0025  # of a size, from step to step
STEPPING = 90.0  # seconds for all steps
TIGHT = 0.003  # of a size, that may still be unwritten when the last prompt is read
CORRECTIONS = 3  # of how long answers are, in one start
A_ROUND = 2.0  # tokens that a chat answers while one prefill is read, until seen
MOST_STEPS = 120
EARLY_ENDS = 1.5  # times as many answer tokens, where some chats ended before the last began
JUST_BELOW = 0.99  # of a cache: one that is still larger than what kills, if that was close to the whole
MOST_STARTS = 3  # each is content with a wider bracket than the one before
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
        and (gap is None or gap > KNOWN * (1 + looked))
        and (died <= NEARLY_ALL * whole or gap is None or gap > WIDE)
        and looked < MOST_STARTS
        and state.asked.max_starts - evidence.starts > 1
        and not dies_when_full(evidence)
    )


def exploring(state: SearchState) -> Setting:
    """The recommended limits with a cache somewhat larger than what killed, which also tells how it follows the memory
    fraction; chats that are shorter than what held, so that it starts in any case.
    """
    evidence, better = state.evidence, state.advice.setting
    died, caches = evidence.tokens.smallest_failed or 0, _caches(state)
    whole, held = max(caches.values(), default=died), evidence.tokens.largest_ok or died // 2
    wanted = max((died + whole) / 2 if died < JUST_BELOW * whole else JUST_BELOW * whole, (held + whole) / 2)
    fraction = None if ignores_fraction(evidence) else fraction_for(caches, wanted, state.prior)
    prefill = min(better.max_batch_prefill_tokens or whole, whole)
    total = max(2, min(better.max_total_tokens or 2, int(PACKED * held)))
    chunked = evidence.started is not None and evidence.started.chunking
    prompt = max(1, total - 1 if chunked else min(total - 1, prefill))
    return replace(
        better,
        max_input_tokens=prompt,
        max_total_tokens=total,
        max_batch_prefill_tokens=safe_prefill(prefill, total, prompt, held),
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
    chats = _Chats(started.prefill_tokens or 4096, setting.max_input_tokens or top, setting.max_total_tokens or top)
    held_fills = (r for r in loaded if r.load.kind == "fill" and r.verdict == "held")
    pace = min((r.seconds / r.load.tokens for r in held_fills), default=0.0)
    affordable = min(MOST_STEPS, max(2, int(STEPPING / (pace * top)))) if pace else MOST_STEPS
    grows = (top - held) / affordable > KNOWN * top and not any(r.load.kind == "write" for r in loaded)
    if grows and not results:
        return _grown(held, top, chats)
    grown = [r for r in results if r.load.kind == "write"]
    seen = max([held, *(r.carried or 0 for r in grown)])
    steps = min(affordable, math.ceil((top - seen) / (FINE * top)))
    sizes = [seen + (top - seen) * part // steps for part in range(1, steps + 1)]
    return _next_packed(sizes, results[len(grown) :], chats)


@dataclass(frozen=True)
class _Chats:
    """How they can be. prefill: tokens that are read between two answer tokens of those that run."""

    prefill: int
    prompt: int
    total: int

    def rounds(self, tokens: int) -> int:
        return math.ceil(tokens / max(1, self.prefill))


def _grown(held: int, top: int, chats: _Chats) -> Load:
    """Chats whose prompts take what surely held and whose answers take it up to `top`."""
    rows = max(LEAST_ROWS, min(MOST_ROWS, top // TOKENS_A_ROW), math.ceil((top - held) / GROWTH))
    rows = max(rows, math.ceil(top / chats.total))
    spare = int(A_ROUND * chats.rounds(held)) + loads.SPARE  # answered while the others are read
    prompt = max(1, min(held // rows - spare, chats.prompt, chats.total - 1))
    answer = max(1, min(math.ceil(top / rows) - prompt, chats.total - prompt, CHUNK))
    return loads.varied(Load("write", ((Shape(prompt, answer),) * rows,), budget=top))


def _next_packed(sizes: Sequence[int], results: Sequence[LoadResult], chats: _Chats) -> Load | None:
    """Each size in turn; at first once more where its answers were too long to be written, or too short to last."""
    a_round, left = A_ROUND, list(sizes)
    tried: list[tuple[int, float]] = []  # tokens that were not written, with so many answered in a round
    for result in results:
        unwritten = result.load.size - (result.carried or 0)
        ended = result.beside is not None and result.beside < result.load.rows
        loose = ended or unwritten > max(TIGHT * result.load.size, 2 * loads.SPARE * result.load.rows)
        if loose and len(tried) < CORRECTIONS:
            tried.append((unwritten, a_round))
            a_round = a_round * EARLY_ENDS if ended else _answered(result, chats)
            if len(tried) == CORRECTIONS:
                a_round = min(tried)[1]
        else:
            left.pop(0)
    return _packed(left[0], chats, a_round) if left else None


def _packed(size: int, chats: _Chats, a_round: float) -> Load:
    """As few chats as take `size` tokens, with next to nothing left to write when the last is read. a_round: tokens
    that each answers while one prefill is read.
    """
    count = max(2, math.ceil(size / min(chats.total, chats.prompt + loads.SPARE)))
    shapes = []
    for index, whole in enumerate(loads.even(size, count)):
        later = chats.rounds(whole * (count - index - 1))
        answer = max(1, min(math.ceil(a_round * later) + loads.SPARE, whole - 1))
        shapes.append(Shape(min(whole - answer, chats.prompt), answer))
    load = Load("fill", (tuple(shapes),), budget=size, history=shapes[-1].input_tokens, leave_after_tokens=2)
    return loads.varied(load)


def _answered(result: LoadResult, chats: _Chats) -> float:
    """Tokens that each chat answered while one prefill was read."""
    shapes = result.load.shapes
    written = sum(shape.max_new_tokens for shape in shapes) - (result.load.size - (result.carried or 0))
    after = accumulate((shape.total for shape in reversed(shapes[1:])), initial=0)
    return max(0.0, written / max(1, sum(chats.rounds(tokens) for tokens in after)))


def _caches(state: SearchState) -> dict[float, int]:
    """With the prefill budget that is recommended."""
    return caches_at(state.evidence, state.advice.setting.max_batch_prefill_tokens or 0, state.prior, COSTLY)
