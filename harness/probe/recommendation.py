"""Recommendation: limits with their reasons, and the rules that all kinds of engines share.

Goals: `balanced`: a history not below what the engine's own prefill budget allows, then the most chats that survive;
`history`: the longest one; `chats`: the most at once; `latency`: as many as hold the SLO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.probe.evidence import Evidence
from harness.probe.loads import ROWS_CAP, SHORT, slots
from harness.probe.setting import CHUNK, Goal, Prior, ProbeGoal, Setting, effective_prefill

MARGIN = 0.005  # of the budget, left free so that the same flags start again when a little less memory is free
UNSURE = 0.9  # of a cache that was only estimated
SURE_OF_ROWS = 0.7  # of the chats that held where somewhat more died
OWN_DEFAULT = 128  # requests that TGI takes at once where nothing is said (launcher/src/main.rs)
DEFAULT_PREFILL = 4096  # TGI's own where nothing else is known
LOW_PREFILL = 1024  # keeps a GPU busy and frees nearly all activation memory
CONTEXT = "the model's context"
PIECE = "the prefill budget, which must hold a whole prompt"


@dataclass(frozen=True)
class Flag:
    """One recommended limit: why this value, and what it costs. brief: the reason in a few words, for a comment."""

    name: str
    value: int | float
    reason: str
    cost: str = ""
    brief: str = ""


@dataclass(frozen=True)
class Recommendation:
    """A setting to prove, and what it means. history: the longest prompt of one chat that leaves the answer free.

    capacity: tokens in flight that the setting can have at most; None where only the concurrency limit bounds them.
    """

    setting: Setting
    flags: tuple[Flag, ...]
    history: int
    answer: int
    capacity: int | None
    bound_by: str


def answer_room(answer_tokens: int, version: tuple[int, int, int]) -> int:
    """Tokens to keep for an answer: from 3.1.1 on TGI generates in pieces of 1024 and never shortens the last one
    (router/src/infer/mod.rs:164), so a longer answer needs room for whole pieces.
    """
    if answer_tokens <= CHUNK or version < (3, 1, 1):
        return answer_tokens
    return math.ceil(answer_tokens / CHUNK) * CHUNK


def first_prefill(goal: Goal) -> int | None:
    """The prefill budget of the first start; None leaves it to the engine, because `balanced` is defined by it."""
    return None if goal == "balanced" else LOW_PREFILL


def own_prefill(evidence: Evidence, goal: Goal) -> int | None:
    """The engine's own prefill budget, as far as the first start that came up told it: where another goal began with a
    small one, what TGI takes by default.
    """
    first = next((each for each in evidence.outcomes if each.came_up), None)
    if first is None:
        return None
    if first_prefill(goal) is None and first.setting.max_batch_prefill_tokens == LOW_PREFILL:
        return DEFAULT_PREFILL
    return effective_prefill(first)


def context_length(evidence: Evidence, prior: Prior) -> int | None:
    """The model's own maximum: from the catalogue, else from an engine that chose less than its memory allows."""
    if prior.context is not None:
        return prior.context
    for each in evidence.outcomes:
        seen = each.started
        if (
            each.came_up
            and seen is not None
            and each.setting.max_total_tokens is None
            and seen.max_total_tokens is not None
            and seen.chunking
            and seen.budget is not None
            and seen.max_total_tokens < seen.budget
        ):
            return seen.max_total_tokens
    return None


def short_chats(evidence: Evidence, usable: int, answer: int, asked: ProbeGoal, fast_rows: int | None) -> int:
    """As many chats as could be in flight at once if each had a short prompt, less where so many did not survive."""
    block = evidence.started.block_size if evidence.started is not None else 1
    fitting = max(1, usable // slots(answer + SHORT, block))
    survived_rows = evidence.rows.largest_ok or 0
    chats = min(ROWS_CAP, max(fitting, min(OWN_DEFAULT, survived_rows)))
    if evidence.rows.smallest_failed is not None:
        survived = evidence.rows.largest_ok or evidence.rows.smallest_failed // 2
        # Well below what held alone, because other loads come on top; not below half of what may survive.
        chats = min(chats, survived, max(int(survived * SURE_OF_ROWS), evidence.rows.smallest_failed // 2 + 1))
    if asked.goal == "latency" and fast_rows is not None:
        chats = min(chats, fast_rows)
    return max(1, chats)
