"""Conversations of a trace whose rows only share a name: which turn a row is, and how long its user waited before."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.workload.traces.clock import NANO


@dataclass
class Sessions:
    """Counts turns as rows pass by, in the order of the file."""

    turns: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)

    def turn(self, session_id: str | None) -> int | None:
        """The place of the next row of this conversation, from 1; None without one."""
        if session_id is None:
            return None
        self.turns[session_id] = self.turns.get(session_id, 0) + 1
        return self.turns[session_id]

    def delay(self, session_id: str | None, moment: int | None, answered: float | None) -> float | None:
        """Seconds between the answer of the turn before and this moment (nanoseconds); None where that is not known.

        answered: seconds that this row's own answer took.
        """
        if session_id is None or moment is None:
            return None
        before = self.ended.pop(session_id, None)
        if answered is not None:
            self.ended[session_id] = moment + round(answered * NANO)
        return None if before is None else max(0.0, (moment - before) / NANO)
