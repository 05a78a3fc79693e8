"""Figures of conversations: how they ended, and TTFT as they grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.measure.client import SessionCount
from harness.measure.records import COMPLETED, MISSING, Ints, Records
from harness.stats.figure import or_none
from harness.stats.metrics import ttft
from harness.stats.quantile import quantile

ENDS = ("completed", "history_full", "failed", "cut")
HISTORY_FIRST = 1024  # tokens: the first bound of the histories; each further one is twice as long


@dataclass(frozen=True)
class TtftOf:
    """TTFT of the completed requests from `low` to `high`, both included, of what is counted. Seconds."""

    low: int
    high: int
    n: int
    p50: float
    p95: float

    def as_dict(self, what: str) -> dict[str, Any]:
        return {f"{what}_from": self.low, f"{what}_to": self.high, "n": self.n, **self.quantiles()}

    def quantiles(self) -> dict[str, float | None]:
        return {"p50": or_none(self.p50), "p95": or_none(self.p95)}


@dataclass(frozen=True)
class Conversations:
    """begun: conversations of the level; ended: how they did, as far as it was noted. turns: the most that one had.

    by_turn, by_history: TTFT of the requests in the window, by their turn, and by the tokens that were said before the
    question (the harness's count; the answers' tokens by the server's).
    """

    begun: int
    ended: dict[str, int]
    turns: int
    by_turn: tuple[TtftOf, ...]
    by_history: tuple[TtftOf, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "begun": self.begun,
            "ended": self.ended,
            "turns_max": self.turns,
            "ttft_by_turn": [each.as_dict("turn") for each in self.by_turn],
            "ttft_by_history": [each.as_dict("history_tokens") for each in self.by_history],
        }


def conversations(
    records: Records, inside: Records, levels: Sequence[int], sessions: Sequence[SessionCount]
) -> Conversations | None:
    """None where no request went on with an answer. records: of the levels; inside: those in their windows."""
    if not np.any(records.history_tokens != MISSING):
        return None
    asked = records.select((records.history_tokens != MISSING) & (records.turn != MISSING))
    done = inside.select(inside.having(COMPLETED) & (inside.turn != MISSING) & (inside.history_tokens != MISSING))
    counted = {end: sum(s.count for s in sessions if s.ended == end and s.level in levels) for end in ENDS}
    return Conversations(
        begun=len(set(zip(asked.level.tolist(), asked.session_id.tolist(), strict=True))),
        ended=counted,
        turns=int(asked.turn.max(initial=0)),
        by_turn=_by(done, done.turn, 1, 1),
        by_history=_by(done, done.history_tokens, 0, HISTORY_FIRST),
    )


def _by(done: Records, of: Ints, low: int, high: int) -> tuple[TtftOf, ...]:
    """In classes whose bounds double: from `low` to `high`, to twice as much, and so on; empty ones are left out."""
    values = ttft(done)
    where = of[values.request]
    found = []
    while low <= where.max(initial=0) and len(where):
        inside = values.samples[(where >= low) & (where <= high)]
        if len(inside):
            found.append(TtftOf(low, high, len(inside), quantile(inside, 0.5), quantile(inside, 0.95)))
        low, high = high + 1, high * 2
    return tuple(found)
