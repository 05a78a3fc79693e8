"""As many of the latest turns as fit N tokens."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from harness.workload.history.exchange import PastTurn, nothing_between
from harness.workload.request import Reply, Request


@dataclass(frozen=True)
class KeepTokens:
    """Whole turns, the latest first, that have at most `most` tokens together. The system prompt is not among them."""

    most: int

    def sent(self, said: Sequence[PastTurn]) -> Sequence[PastTurn]:
        left, first = self.most, len(said)
        while first and said[first - 1].tokens <= left:
            first -= 1
            left -= said[first].tokens
        return said[first:]

    def between(self, said: list[PastTurn]) -> Generator[Request, Reply, None]:
        return nothing_between()

    def __str__(self) -> str:
        return f"tokens({self.most})"
