"""Rows of a CSV file as records: the header's names, and cells as texts."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import BinaryIO

from harness.errors import UsageError
from harness.workload.traces.row import Record
from harness.workload.traces.text_lines import text_lines


def csv_records(file: BinaryIO, name: str, header: list[str] | None = None) -> Iterator[Record]:
    """Cells that a row leaves out are absent from its record. header: where the file is read from the middle.

    Raises UsageError.
    """
    reader = csv.reader(text_lines(file, name), strict=True)
    try:
        header = _header(next(reader, []), name) if header is None else header
        for cells in reader:
            if len(cells) > len(header) and any(cells[len(header) :]):
                found = f"{len(cells)} cells under a header of {len(header)} columns"
                raise UsageError(found, where=f"{name}:{reader.line_num}")
            if cells:
                yield Record(dict(zip(header, cells)), reader.line_num, name)
    except csv.Error as error:
        raise UsageError(f"no CSV: {error}", where=f"{name}:{max(1, reader.line_num)}") from error


def _header(cells: list[str], name: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    twice = next((cell for cell in header if cell and header.count(cell) > 1), None)
    if twice is not None:
        raise UsageError(f"two columns are called {twice[:60]!r}", where=f"{name}:1")
    return header
