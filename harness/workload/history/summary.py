"""The latest turn, and a summary of those before, which the model writes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from harness.workload.history.exchange import PastTurn
from harness.workload.request import Message, Reply, Request

_ASK = "Summarise what we said so far, so that we can go on from your summary alone."
_ASK_TOKENS = 16


@dataclass(frozen=True)
class KeepSummary:
    """After each turn from the second on the model is asked for a summary of at most this many tokens, of the summary
    before and the turn that leaves. It is kept in the history in the model's own words. Such a request has a record of
    its own, with the note `summary` and without a turn; the user waits for it. One that fails leaves the history as it
    is.
    """

    most: int

    def sent(self, said: Sequence[PastTurn]) -> Sequence[PastTurn]:
        return said

    def between(self, said: list[PastTurn]) -> Generator[Request, Reply, None]:
        if len(said) < 2:
            return
        *old, latest = said
        before = sum(each.tokens for each in old)
        reply = yield Request(
            _ASK,
            before + _ASK_TOKENS,
            self.most,
            counted=False,
            messages=tuple(Message(*message) for each in old for message in each.messages),
            history_tokens=before,
            wants_answer=True,
            purpose="summary",
        )
        if reply.error is None:
            tokens = self.most if reply.output_tokens is None else reply.output_tokens
            said[:] = [PastTurn(_ASK, reply.text, tokens + _ASK_TOKENS), latest]

    def __str__(self) -> str:
        return f"summary({self.most})"
