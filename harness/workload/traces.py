"""Traces of real requests: when each came, how long it was, and which beginnings were equal. None holds any text.

    Azure      CSV    TIMESTAMP, ContextTokens, GeneratedTokens                 (Patel et al., Splitwise, ISCA 2024)
    Mooncake   JSONL  timestamp (ms), input_length, output_length, hash_ids     (Qin et al., Mooncake, FAST 2025)
    others     CSV    a moment, input and output tokens under the names in _COLUMNS

Which it is, the file itself tells. A wrong line is named with its number and column.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

from harness.errors import UsageError

MOONCAKE_BLOCK = 512
"""Tokens that one of Mooncake's hash_ids stands for."""

_COLUMNS = {
    "moment": ("timestamp", "arrived_at", "arrival_time", "time"),
    "input": ("contexttokens", "input_tokens", "request tokens", "num_prefill_tokens", "prompt_tokens", "input_length"),
    "output": (
        "generatedtokens",
        "output_tokens",
        "response tokens",
        "num_decode_tokens",
        "completion_tokens",
        "output_length",
    ),
}
_KNOWN = (
    "a CSV file with TIMESTAMP,ContextTokens,GeneratedTokens, or JSON lines with timestamp, input_length, output_length"
)
_NANO = 1_000_000_000
_NUMBER = re.compile(r"\d{1,15}(?:\.\d*)?(?:[eE][+-]?\d{1,2})?")
_DATE = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(\.\d+)?\s*(Z|[+-]\d\d:?\d\d)?")


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request. offset: seconds since the first row of the file. blocks: what its beginning shares with others."""

    offset: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Trace:
    """The rows to send, in the order of their moments. sha256: of the whole file."""

    path: str
    sha256: str
    rows: tuple[TraceRow, ...]
    block_tokens: int = 0


def read_trace(path: str | Path, duration: float | None = None) -> Trace:
    """The rows with 0 <= offset from the first row, and < duration seconds where one is given.

    Raises UsageError: no such file, not UTF-8, no known form, a wrong value with its line and column, no row at all.
    """
    text, digest = _read(Path(path))
    beginning = text.lstrip()[:1]
    if not beginning:
        raise UsageError("holds nothing", where=str(path), advice=f"Expected {_KNOWN}.")
    timed = _json_rows(text, str(path)) if beginning == "{" else _csv_rows(text, str(path))
    rows = tuple(sorted(_window(timed, duration), key=lambda row: row.offset))
    if not rows:
        raise UsageError("no request in this duration", where=str(path), advice="Give a longer --duration.")
    return Trace(str(path), digest, rows, MOONCAKE_BLOCK if any(row.blocks for row in rows) else 0)


def _read(path: Path) -> tuple[str, str]:
    try:
        content = path.read_bytes()
        return content.decode("utf-8-sig"), sha256(content).hexdigest()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path), advice="Name a trace file.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"not UTF-8 at byte {error.start}", where=str(path), advice=f"Expected {_KNOWN}.") from error


def _window(timed: Iterator[tuple[int, TraceRow]], duration: float | None) -> Iterator[TraceRow]:
    first: int | None = None
    for moment, row in timed:
        first = moment if first is None else first
        offset = (moment - first) / _NANO
        if 0 <= offset < (math.inf if duration is None else duration):
            yield TraceRow(offset, row.input_tokens, row.output_tokens, row.blocks)


def _json_rows(text: str, path: str) -> Iterator[tuple[int, TraceRow]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise _wrong(path, number, None, "a JSON object", line) from error
        if not isinstance(fields, dict):
            raise _wrong(path, number, None, "a JSON object", line)
        row = TraceRow(
            0.0,
            _tokens(fields.get("input_length"), path, number, "input_length"),
            _tokens(fields.get("output_length"), path, number, "output_length"),
            _blocks(fields.get("hash_ids", []), path, number),
        )
        yield _milliseconds(fields.get("timestamp"), path, number), row


def _milliseconds(value: Any, path: str, number: int) -> int:
    """Nanoseconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _wrong(path, number, "timestamp", "milliseconds", value)
    return round(value * 1_000_000)


def _blocks(value: Any, path: str, number: int) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(each, int) and each >= 0 for each in value):
        raise _wrong(path, number, "hash_ids", "a list of whole numbers", value)
    return tuple(value)


def _csv_rows(text: str, path: str) -> Iterator[tuple[int, TraceRow]]:
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        columns = _columns(next(reader), path)
        for cells in reader:
            if not cells:
                continue
            moment, inputs, outputs = ((name, cells[index] if index < len(cells) else None) for name, index in columns)
            line = reader.line_num
            row = TraceRow(0.0, _tokens(inputs[1], path, line, inputs[0]), _tokens(outputs[1], path, line, outputs[0]))
            yield _seconds(moment[1], path, line, moment[0]), row
    except csv.Error as error:
        raise UsageError(f"no CSV: {error}", where=f"{path}:{reader.line_num}", advice=f"Expected {_KNOWN}.") from error


def _columns(header: list[str], path: str) -> list[tuple[str, int]]:
    """Name and index of the moment, the input tokens and the output tokens."""
    names = [name.strip().lower() for name in header]
    found = []
    for what, known in _COLUMNS.items():
        index = next((names.index(name) for name in known if name in names), None)
        if index is None:
            raise UsageError(
                f"no column for the {what} of a request in the header {','.join(header)[:80]!r}",
                where=f"{path}:1",
                advice=f"Expected {_KNOWN}.",
            )
        found.append((header[index].strip(), index))
    return found


def _seconds(cell: str | None, path: str, line: int, column: str) -> int:
    """Nanoseconds, of a number of seconds or of a date and time. Whole numbers, so that no moment is moved."""
    text = (cell or "").strip()
    if _NUMBER.fullmatch(text):
        return round(Decimal(text) * _NANO)
    match = _DATE.fullmatch(text)
    if match is None:
        raise _wrong(path, line, column, "seconds, or a moment such as 2023-11-16 18:15:46.68", cell)
    date, fraction, zone = match.groups()
    try:
        offset = "+00:00" if zone in (None, "Z") else zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"
        moment = datetime.fromisoformat(date + offset).astimezone(timezone.utc)
    except ValueError as error:
        raise _wrong(path, line, column, "a moment such as 2023-11-16 18:15:46.68", cell) from error
    return int(moment.timestamp()) * _NANO + round(Decimal(fraction or 0) * _NANO)


def _tokens(value: Any, path: str, line: int, column: str) -> int:
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, bool) or not re.fullmatch(r"\d{1,9}(?:\.0*)?", str(text)):
        raise _wrong(path, line, column, "a number of tokens", value)
    return int(float(text))


def _wrong(path: str, line: int, column: str | None, expected: str, found: Any) -> UsageError:
    place = f"{path}:{line}" + (f": column {column}" if column else "")
    shown = "nothing" if found is None or found == "" else repr(found)[:60]
    return UsageError(f"expected {expected}, found {shown}", where=place)
