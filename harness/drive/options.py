"""Parses options that several commands share."""

from __future__ import annotations

from collections.abc import Collection

from harness.errors import UsageError
from harness.input_files import brief
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


def allowed(text: str | None, known: Collection[str], advice: str = "") -> frozenset[str]:
    """The keys of --allow, separated by commas. advice: what else to say of a key that is not known.
    Raises UsageError.
    """
    found = [part.strip() for part in (text or "").split(",") if part.strip()]
    for name in found:
        if name not in known:
            told = f"Known: {', '.join(known)}. {advice}".rstrip()
            raise UsageError(f"unknown key '{brief(name)}'", where="--allow", advice=told)
    return frozenset(found)
