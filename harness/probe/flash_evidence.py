"""What the starts of a flash engine have shown of its KV cache: how large it is, and which loads kill it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.probe.evidence import Evidence
from harness.probe.fills import died_early
from harness.probe.setting import LoadResult, effective_prefill

HEEDED = 0.5  # of a memory fraction that was taken away, by which the cache falls at least where the engine heeds it
FULL = 0.98  # of a cache
TELLING = 0.005  # taken away from the memory fraction, from which on a cache that is hardly smaller is no chance


def last_up_own_prefill(evidence: Evidence) -> bool:
    """Whether the prefill budget in use is one that the engine once chose by itself."""
    up = evidence.last_up
    own = {
        effective_prefill(each)
        for each in evidence.outcomes
        if each.came_up and each.setting.max_batch_prefill_tokens is None
    }
    return up is not None and effective_prefill(up) in own


def ignores_fraction(evidence: Evidence) -> bool:
    """Whether a start with a smaller memory fraction found as large a cache as one without. A cache is at most the
    whole GPU, so it falls by at least the share by which the fraction did.
    """
    for each in evidence.outcomes:
        taken = 1 - (each.setting.cuda_memory_fraction or 1.0)
        whole = max(budgets_at(evidence, effective_prefill(each), None), default=None)
        left = each.started.budget if each.came_up and each.started is not None else None
        if whole and left and taken > 0:
            least = (1 - HEEDED * taken) * whole if taken >= TELLING else whole
            if left >= least:
                return True
    return False


def deadly_prefill(evidence: Evidence) -> int | None:
    """The smallest prefill budget that killed a flash engine by being read beside running chats; None where none
    did: with its cache far from full, or again after there were fewer chats.
    """
    early = [effective_prefill(each) for each in evidence.outcomes if any(died_early(each, r) for r in each.loads)]
    joined = [
        effective_prefill(each)
        for each in evidence.outcomes
        if any(r.load.kind == "onto" and r.verdict == "died" for r in each.loads)
    ]
    return min((prefill for prefill in early + joined[1:] if prefill is not None), default=None)


def dies_when_full(evidence: Evidence) -> bool:
    """Whether a flash engine died of a full cache again after it had been given a smaller one: what kills it is the
    last blocks, however many there are.
    """
    held = max(
        (min(r.load.size, r.carried or r.load.size) for each in evidence.outcomes for r in each.loads if _filled(r)),
        default=0,
    )
    return any(
        result.verdict == "died"
        and result.load.kind == "fill"
        and each.setting.cuda_memory_fraction is not None
        and result.load.size >= FULL * (each.started.usable or 0 if each.started else 0)
        and result.load.size <= held
        for each in evidence.outcomes
        for result in each.loads
    )


def share_that_held(evidence: Evidence) -> float:
    """The largest share of a flash engine's cache that held while a larger one killed it; 1 where nothing died."""
    shares = [  # the last token of a chat needs no slot
        ((result.load.size - result.load.rows) / each.started.usable, result.verdict)
        for each in evidence.outcomes
        for result in each.loads
        if result.load.kind in ("fill", "longest") and each.started and each.started.usable
    ]
    died = min((share for share, verdict in shares if verdict == "died"), default=None)
    if died is None:
        return 1.0
    return max((share for share, verdict in shares if verdict == "held" and share < died), default=0.85 * died)


def has_prefix_cache(evidence: Evidence) -> bool:
    """Whether a start that was not told to leave it off had one."""
    return any(
        each.started is not None and each.started.prefix_caching and each.setting.prefix_caching is not False
        for each in evidence.outcomes
    )


def blocks_itself(evidence: Evidence) -> bool:
    """Whether a chat waited for ever behind another that began like it."""
    return any(r.load.kind == "alike" and r.verdict == "stalled" for each in evidence.outcomes for r in each.loads)


@dataclass(frozen=True)
class MeasuredCache:
    """What a start's log told, a failed one's too. fraction: of the memory that it might take. prefill: its budget.
    usable: tokens.
    """

    fraction: float
    prefill: int
    usable: int


def measured_caches(evidence: Evidence) -> list[MeasuredCache]:
    """In the order of the starts."""
    return [
        MeasuredCache(each.setting.cuda_memory_fraction or 1.0, prefill, each.started.usable)
        for each in evidence.outcomes
        if each.started is not None and each.started.kind == "flash" and each.started.usable
        if (prefill := effective_prefill(each)) is not None
    ]


def caches(evidence: Evidence) -> list[tuple[int, int]]:
    """(prefill budget, usable tokens) of those with the whole memory."""
    return [(each.prefill, each.usable) for each in measured_caches(evidence) if each.fraction == 1.0]


def budgets_at(evidence: Evidence, prefill: int | None, fraction: float | None) -> list[int]:
    """Budgets found by starts with this prefill budget and memory fraction."""
    return [
        each.started.budget
        for each in evidence.outcomes
        if each.started is not None
        and each.started.budget is not None
        and effective_prefill(each) == prefill
        and each.setting.cuda_memory_fraction == fraction
    ]


def _filled(result: LoadResult) -> bool:
    return result.verdict == "held" and result.load.kind == "fill"
