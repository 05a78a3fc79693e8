"""Where in a long file to begin, for a part of a trace that lies far from its beginning.

Lines of a file that is not packed can be found by bisection, since rows stand in the order of their moments but for
small disorder. What cannot be found so is read from the beginning.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from harness.errors import UsageError
from harness.workload.traces.clock import Clock
from harness.workload.traces.container import Container, Head, unpacked
from harness.workload.traces.csv_rows import csv_records
from harness.workload.traces.json_items import json_lines
from harness.workload.traces.row import Record

_NEAR = 1 << 16  # bytes; so close it is read rather than searched, and so far before it for rows out of order


@dataclass(frozen=True)
class Place:
    """A line's place in a file, in bytes, and the moment that the trace's moments count from, in nanoseconds."""

    byte: int
    zero: int


def find_place(container: Container, head: Head, clock: Clock, offset: int) -> Place | None:
    """A line somewhat before the first row with this offset (nanoseconds) from the file's first row.

    None where the file has to be read from its beginning.
    """
    if container.kind not in ("csv", "jsonl") or container.packed or clock.column not in head.records[0].fields:
        return None
    zero = clock.read(head.records[0])
    columns = list(head.records[0].fields) if container.kind == "csv" else None
    low, high = 0, container.path.stat().st_size
    with unpacked(container.path, container.name) as file:
        while high - low > 2 * _NEAR:
            middle = (low + high) // 2
            record = _record_after(file, middle, columns, container.name)
            if record is None:
                return None
            try:
                moment = clock.read(record)
            except UsageError:
                return None
            low, high = (middle, high) if moment - zero < offset else (low, middle)
        begin = low - _NEAR
        if begin <= 0:
            return None
        file.seek(begin)
        file.readline()
        return Place(file.tell(), zero)


def skip_before(records: Iterator[Record], clock: Clock, moment: int) -> Iterator[Record]:
    """Those from this moment on (nanoseconds); of the others nothing but the moment is looked at."""
    return (record for record in records if clock.read(record) >= moment)


def records_from(container: Container, head: Head, place: Place) -> Iterator[Record]:
    """The records from a line on. Raises UsageError, with lines counted from there."""
    name = f"{container.name} from byte {place.byte:,} on"
    with unpacked(container.path, container.name) as file:
        file.seek(place.byte)
        if container.kind == "csv":
            yield from csv_records(file, name, header=list(head.records[0].fields))
        else:
            yield from json_lines(file, name)


def _record_after(file: BinaryIO, byte: int, columns: list[str] | None, name: str) -> Record | None:
    """The first whole record behind this place; None where there is none, or it is no record by itself."""
    file.seek(byte)
    file.readline(_NEAR)
    line = file.readline(_NEAR)
    try:
        if columns is None:
            return next(json_lines(io.BytesIO(line), name), None)
        cells = next(csv.reader([line.decode("utf-8")], strict=True), [])
    except (UsageError, UnicodeDecodeError, csv.Error):
        return None
    return Record(dict(zip(columns, cells)), 0, name) if len(cells) == len(columns) else None
