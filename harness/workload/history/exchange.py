"""PastTurn, a question with its answer, and the protocol of a history."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.workload.request import Message, Reply, Request


@dataclass(frozen=True)
class PastTurn:
    """A question with its answer. tokens: of both, the answer's by the server's own count where it tells one."""

    question: str
    answer: str
    tokens: int

    @property
    def messages(self) -> tuple[Message, Message]:
        return Message("user", self.question), Message("assistant", self.answer)


class History(Protocol):
    """What of a conversation goes with the next question. str(): as locustfiles write it."""

    def sent(self, said: Sequence[PastTurn]) -> Sequence[PastTurn]:
        """Of all that was said, in order, what is sent."""
        ...

    def between(self, said: list[PastTurn]) -> Generator[Request, Reply, None]:
        """What is asked between two turns for the history's own sake; may change what was said. Mostly nothing."""
        ...

    def __str__(self) -> str: ...


def nothing_between() -> Generator[Request, Reply, None]:
    """For histories that cost no request of their own."""
    return
    yield
