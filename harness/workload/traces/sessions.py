"""Conversations of a trace whose rows only share a name: which turn each row is."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Sessions:
    """Counts turns as rows pass by, in the order of the file."""

    turns: dict[str, int] = field(default_factory=dict)

    def turn(self, session_id: str | None) -> int | None:
        """The place of the next row of this conversation, from 1; None without one."""
        if session_id is None:
            return None
        self.turns[session_id] = self.turns.get(session_id, 0) + 1
        return self.turns[session_id]
