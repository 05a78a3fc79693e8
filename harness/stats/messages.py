"""The service's own messages about failed requests: per error kind, the first and the most frequent."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.measure.records import MISSING, Records


@dataclass(frozen=True)
class ErrorMessage:
    """One message of one error kind. count: requests that got it. http_status: that it came with."""

    kind: str
    message: str
    count: int
    http_status: int | None

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "kind"}


def error_messages(records: Records) -> tuple[ErrorMessage, ...]:
    """The most frequent message of each kind, and the first one where it is another; kinds by name."""
    rows = np.flatnonzero([message is not None for message in records.error_message])
    counts = Counter((str(records.error_kind[row]), str(records.error_message[row])) for row in rows)
    first: dict[tuple[str, str], int] = {}
    for row in rows[np.argsort(records.scheduled_at[rows], kind="stable")]:
        first.setdefault((str(records.error_kind[row]), str(records.error_message[row])), int(row))
    chosen: list[ErrorMessage] = []
    for kind in sorted({kind for kind, _ in counts}):
        earliest = next(text for each, text in first if each == kind)
        commonest = max((key for key in first if key[0] == kind), key=lambda key: counts[key])[1]
        for text in dict.fromkeys((commonest, earliest)):
            status = int(records.http_status[first[kind, text]])
            chosen.append(ErrorMessage(kind, text, counts[kind, text], None if status == MISSING else status))
    return tuple(chosen)


def messages_as_dict(messages: tuple[ErrorMessage, ...]) -> dict[str, list[dict[str, Any]]]:
    """By kind, the most frequent first."""
    return {
        kind: [each.as_dict() for each in messages if each.kind == kind]
        for kind in dict.fromkeys(each.kind for each in messages)
    }
