"""TraceRow: one request as it was recorded; Record: the record of the file that it was read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.errors import UsageError


class Record(NamedTuple):
    """One entry of a file: a line, an item of a JSON list, a row of a table. line: its number, from 1."""

    fields: Mapping[str, Any]
    line: int
    file: str

    def wrong(self, column: str | None, expected: str, found: Any) -> UsageError:
        """The error for a value that cannot be what it should be."""
        place = f"{self.file}:{self.line}" + (f": column {column}" if column else "")
        shown = "nothing" if found is None or found == "" else repr(found)[:60]
        return UsageError(f"expected {expected}, found {shown}", where=place)


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request.

    offset: when it is due, in seconds from the beginning of what is sent; 0 where the file tells no moments.
    input_tokens: None where there is a text that nobody has counted. output_tokens: None where none was recorded.
    blocks: the prompt's beginning, a number for each block; equal numbers from the start on are an equal beginning.
    session_id: the conversation; `a/b` is a sub-agent's, started by conversation a. turn: its place there, from 1.
    delay: seconds between the answer of the turn before and this one (a user who thinks, a tool that runs), where the
    trace says so in words. text: what to ask, where the file holds it. repeat: how often the trace had been sent whole
    before this row, where it is sent again and again. answered: seconds until its answer was whole, as recorded; None
    where the trace does not tell. All at the pace of the replay.
    """

    offset: float
    input_tokens: int | None
    output_tokens: int | None
    blocks: tuple[int, ...] = ()
    session_id: str | None = None
    turn: int | None = None
    delay: float | None = None
    text: str | None = None
    repeat: int = 0
    answered: float | None = None


Timed = tuple[int | None, TraceRow]
"""The moment of a row in nanoseconds, of whatever clock the file has, and the row, its offset still to be set."""
