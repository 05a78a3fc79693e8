"""The whole conversation."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from harness.workload.history.exchange import PastTurn, nothing_between
from harness.workload.request import Reply, Request


@dataclass(frozen=True)
class KeepAll:
    """The history grows until the conversation ends, or no longer fits."""

    def sent(self, said: Sequence[PastTurn]) -> Sequence[PastTurn]:
        return said

    def between(self, said: list[PastTurn]) -> Generator[Request, Reply, None]:
        return nothing_between()

    def __str__(self) -> str:
        return "keep_all"
