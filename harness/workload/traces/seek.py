"""Finds where to begin in a long file, for a part of a trace that is far from its beginning.

Rows are in the order of their moments but for small disorder. So lines can be found by bisection, and in a packed
file, which has to be unpacked from its beginning, by one line of each block. What cannot be found so is read row by
row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from harness.errors import UsageError
from harness.workload.traces.clock import Clock
from harness.workload.traces.container import Container, Head, unpacked
from harness.workload.traces.csv_rows import csv_records
from harness.workload.traces.json_items import json_lines
from harness.workload.traces.row import Record

_NEAR = 1 << 16  # bytes; so close it is read rather than searched, and so far before it for rows out of order
_BLOCK = 1 << 20  # bytes of a packed file of which one line is looked at


@dataclass(frozen=True)
class Place:
    """A line's place in the unpacked file, in bytes, and the moment that the trace's moments count from, in
    nanoseconds.
    """

    byte: int
    zero: int


def find_place(container: Container, head: Head, clock: Clock, offset: int) -> Place | None:
    """A line somewhat before the first row with this offset (nanoseconds) from the file's first row.

    None where the file has to be read from its beginning.
    """
    if container.kind not in ("csv", "jsonl") or clock.column not in head.records[0].fields:
        return None
    zero = clock.read(head.records[0])
    columns = list(head.records[0].fields) if container.kind == "csv" else None

    def is_before(line: bytes) -> bool | None:
        """None for what is not a row by itself."""
        try:
            record = _record(line, columns, container.name)
            return None if record is None else clock.read(record) - zero < offset
        except UsageError:
            return None

    with unpacked(container.path, container.name) as file:
        if container.packed:
            byte = _by_blocks(file, is_before)
        else:
            byte = _by_halves(file, container.path.stat().st_size, is_before)
    return None if byte is None else Place(byte, zero)


def _by_halves(file: BinaryIO, size: int, is_before: Callable[[bytes], bool | None]) -> int | None:
    low, high = 0, size
    while high - low > 2 * _NEAR:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline(_NEAR)
        before = is_before(file.readline(_NEAR))
        if before is None:
            return None
        low, high = (middle, high) if before else (low, middle)
    if low <= _NEAR:
        return None
    file.seek(low - _NEAR)
    file.readline()
    return file.tell()


def _by_blocks(file: BinaryIO, is_before: Callable[[bytes], bool | None]) -> int | None:
    """A line before the first block whose last whole line is not before."""
    at, kept = 0, b""  # what was passed over, and the end of that
    while block := file.read(_BLOCK):
        last = block.rfind(b"\n")
        first = block.rfind(b"\n", 0, max(0, last))
        before = is_before(block[first + 1 : last + 1]) if 0 <= first < last else None
        if before is None and len(block) == _BLOCK:
            return None
        if not before:  # in this block, or in the last one, which may be short
            break
        at, kept = at + len(block), block[-_NEAR:]
    return at - len(kept) + kept.find(b"\n") + 1 if at else None


def skip_before(records: Iterator[Record], clock: Clock, moment: int) -> Iterator[Record]:
    """Those from this moment on (nanoseconds); of the others nothing but the moment is looked at."""
    return (record for record in records if clock.read(record) >= moment)


def records_from(container: Container, head: Head, place: Place) -> Iterator[Record]:
    """The records from a line on. Raises UsageError, with lines counted from there."""
    name = f"{container.name} from byte {place.byte:,} on"
    with unpacked(container.path, container.name) as file:
        if container.packed:  # not all of these can seek
            left = place.byte
            while left and (passed := file.read(min(left, _BLOCK))):
                left -= len(passed)
        else:
            file.seek(place.byte)
        if container.kind == "csv":
            yield from csv_records(file, name, header=list(head.records[0].fields))
        else:
            yield from json_lines(file, name)


def _record(line: bytes, columns: list[str] | None, name: str) -> Record | None:
    """None where the line is not a record by itself."""
    try:
        if columns is None:
            return next(json_lines(io.BytesIO(line), name), None)
        cells = next(csv.reader([line.decode("utf-8")], strict=True), [])
    except (UsageError, UnicodeDecodeError, csv.Error):
        return None
    return Record(dict(zip(columns, cells)), 0, name) if len(cells) == len(columns) else None
