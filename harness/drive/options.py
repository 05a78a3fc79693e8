"""Options that several commands take, from text to value."""

from __future__ import annotations

from harness.errors import UsageError
from harness.units import parse_duration


def seconds(text: str, option: str, *, zero: bool = False) -> float:
    """A duration. option: as the user wrote it. zero: 0 means something. Raises UsageError."""
    try:
        found = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{error}, found {text!r}", where=option) from error
    if found == 0 and not zero:
        raise UsageError("a duration of 0 measures nothing", where=option)
    return found
