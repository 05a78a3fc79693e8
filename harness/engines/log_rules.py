"""Rules for reading a start's log: the first pattern found in a line acts on the log."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from harness.engines.base import StartLog

Act = Callable[[Any, "re.Match[str]"], None]
Rules = Sequence[tuple["re.Pattern[str]", Act]]


def rules(*table: tuple[str, Act]) -> Rules:
    """Patterns, searched in one line each, and what each does."""
    return [(re.compile(pattern), act) for pattern, act in table]


def apply(log: StartLog, line: str, table: Rules) -> None:
    """The first rule of the table that the line is a case of acts on the log."""
    for pattern, act in table:
        match = pattern.search(line)
        if match is not None:
            act(log, match)
            return


def phase(name: str, detail: str = "") -> Act:
    """Enters a phase. detail: may hold groups of the pattern, such as `\\1`."""

    def act(log: StartLog, match: re.Match[str]) -> None:
        log.enter(name, match.expand(detail) if detail else "")

    return act


def number(name: str) -> Act:
    """Keeps the first group, a whole number that may have thousands separators, as this attribute of the log."""

    def act(log: StartLog, match: re.Match[str]) -> None:
        setattr(log, name, int(match[1].replace(",", "")))

    return act


def each(*acts: Act) -> Act:
    """Does several things."""

    def act(log: StartLog, match: re.Match[str]) -> None:
        for one in acts:
            one(log, match)

    return act
