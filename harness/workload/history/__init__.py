"""HISTORIES: policies for how much of a conversation is sent with the next question; a file of this folder each."""

from __future__ import annotations

import re
from collections.abc import Callable

from harness.errors import UsageError
from harness.workload.history.exchange import History, PastTurn
from harness.workload.history.keep_all import KeepAll
from harness.workload.history.last import KeepLast
from harness.workload.history.summary import KeepSummary
from harness.workload.history.tokens import KeepTokens
from harness.workload.tokens import parse_tokens

__all__ = ["HISTORIES", "History", "KeepAll", "PastTurn", "parse_history"]

HISTORIES: dict[str, tuple[str, Callable[[int], History]]] = {
    "keep_all": ("keep_all", lambda number: KeepAll()),
    "last": ("last(TURNS)", KeepLast),
    "tokens": ("tokens(4k)", KeepTokens),
    "summary": ("summary(300)", KeepSummary),
}
"""Name -> how it is written, and what is made of the number in its brackets."""

_WRITTEN = re.compile(r"(\w+)\s*(?:\(\s*([^()]*?)\s*\))?")


def parse_history(text: str, where: str | None = None) -> History:
    """`keep_all`, `last(6)`, `tokens(4k)`, `summary(300)`. Raises UsageError."""
    match = _WRITTEN.fullmatch(text.strip())
    known = HISTORIES.get(match[1]) if match else None
    if match is None or known is None:
        forms = ", ".join(form for form, _ in HISTORIES.values())
        raise UsageError(f"unknown history {text!r}", where=where, advice=f"Known: {forms}.")
    form, make = known
    if ("(" in form) != (match[2] is not None):
        raise UsageError(f"expected {form}, found {text!r}", where=where)
    try:
        return make(parse_tokens(match[2]) if match[2] is not None else 0)
    except ValueError as error:
        raise UsageError(f"{error}, in {text!r}", where=where, advice=f"Write {form}.") from error
