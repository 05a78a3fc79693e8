"""Lines of a text in UTF-8, with their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from harness.errors import UsageError

LONGEST = 256 << 20
"""Bytes of one line or item: the longest conversations known have some megabytes."""


def text_lines(file: BinaryIO, name: str) -> Iterator[str]:
    """Raises UsageError, with the line, for bytes that are not UTF-8 and for a line that never ends."""
    number = 0
    while raw := file.readline(LONGEST):
        number += 1
        if len(raw) >= LONGEST:
            raise too_long(name, number)
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"not UTF-8 at byte {error.start} of the line", where=f"{name}:{number}") from error


def too_long(name: str, line: int) -> UsageError:
    return UsageError(f"more than {LONGEST >> 20} MiB in one line or item", where=f"{name}:{line}")
