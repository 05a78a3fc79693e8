"""The latest N turns."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from harness.workload.history.exchange import PastTurn, nothing_between
from harness.workload.request import Reply, Request


@dataclass(frozen=True)
class KeepLast:
    """The latest N turns, each a question with its answer. What leaves at the front moves all the rest, so that an
    engine's prefix cache finds the system prompt at most.
    """

    turns: int

    def sent(self, said: Sequence[PastTurn]) -> Sequence[PastTurn]:
        return said[-self.turns :]

    def between(self, said: list[PastTurn]) -> Generator[Request, Reply, None]:
        return nothing_between()

    def __str__(self) -> str:
        return f"last({self.turns})"
