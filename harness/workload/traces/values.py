"""Single values of a record: tokens, block hashes, names, texts. Each wrong one is told with its line and column."""

from __future__ import annotations

import math
import re
from typing import Any

from harness.workload.tokens import MOST_TOKENS
from harness.workload.traces.row import Record
from harness.workload.traces.tally import Tally

_WHOLE = re.compile(r"(\d{1,12})(?:\.0*)?", re.ASCII)
_LONGEST_NAME = 256
_LARGEST_HASH = 2**64


def tokens(record: Record, column: str) -> int:
    """A number of tokens, 0 included. Raises UsageError, for more than any model reads too."""
    value = record.fields.get(column)
    if type(value) is str and value.isascii() and value.isdecimal() and len(value) <= 8:
        count: int | None = int(value)  # nearly all of them
    else:
        count = value if type(value) is int else _whole(value)
    if count is None or count < 0:
        raise record.wrong(column, "a number of tokens", value)
    if count > MOST_TOKENS:
        raise record.wrong(column, f"at most {MOST_TOKENS:,} tokens", value)
    return count


def optional_tokens(record: Record, column: str | None) -> int | None:
    """None where the record says nothing."""
    if column is None or record.fields.get(column) in (None, ""):
        return None
    return tokens(record, column)


def _whole(value: Any) -> int | None:
    if isinstance(value, str):
        match = _WHOLE.fullmatch(value.strip())
        return int(match[1]) if match else None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value.is_integer() else None
    return None


def hashes(record: Record, column: str | None) -> tuple[int, ...]:
    """Block hashes; none where the record has none."""
    value = record.fields.get(column) if column else None
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)) or not all(
        type(each) is int and 0 <= each < _LARGEST_HASH for each in value
    ):
        raise record.wrong(column, "a list of whole numbers", value)
    return tuple(value)


def name(record: Record, column: str | None) -> str | None:
    """An identifier, as text; None where the record has none."""
    value = record.fields.get(column) if column else None
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)) or len(text := str(value)) > _LONGEST_NAME:
        raise record.wrong(column, f"a name of at most {_LONGEST_NAME} characters", value)
    return printable(text)


def seconds(record: Record, column: str | None, unit: float = 1.0) -> float | None:
    """A length of time, given in units of this many seconds; None where the record has none."""
    value = record.fields.get(column) if column else None
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= 1e12:
        raise record.wrong(column, "a length of time", value)
    return number * unit


def printable(text: str) -> str:
    """The text with halves of surrogate pairs replaced: JSON can spell them, and UTF-8 cannot carry them."""
    return text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text


def text(record: Record, column: str | None, tally: Tally) -> str | None:
    """A text to ask; None where the record has none."""
    value = record.fields.get(column) if column else None
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise record.wrong(column, "a text", value)
    return whole_text(value, tally)


def whole_text(value: str, tally: Tally) -> str:
    """The text as UTF-8 can carry it."""
    shown = printable(value)
    if shown != value:
        tally.alter("halves of surrogate pairs in their text, which UTF-8 cannot carry, are replaced")
    return shown
