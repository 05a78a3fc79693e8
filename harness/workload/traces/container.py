"""Reads the records of a file, whatever they hold: CSV, JSON lines, a JSON list or document, Parquet; gzip and zstd
too.

Which it is, the first bytes say, not the name. Records are read one by one: what is not asked for is not read.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

from harness.errors import UsageError
from harness.workload.traces.csv_rows import csv_records
from harness.workload.traces.json_items import first_line_is_whole, json_items, json_lines
from harness.workload.traces.parquet_rows import parquet_records
from harness.workload.traces.row import Record

FileKind = Literal["csv", "jsonl", "json", "parquet"]

_HEAD_BYTES = 1 << 16
_HEAD_RECORDS = 100
_UNREADABLE = {
    b"PK\x03\x04": "is a zip archive: unpack it and name the file",
    b"\xff\xfe": "is UTF-16, not UTF-8",
    b"\xfe\xff": "is UTF-16, not UTF-8",
    b"BZh": "is compressed with bzip2: unpack it, or use gzip or zstd",
    b"\xfd7zXZ": "is compressed with xz: unpack it, or use gzip or zstd",
}
_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"


@dataclass(frozen=True)
class Container:
    """A file whose records can be read, from its beginning, as often as wanted.

    name: how messages call it. beginning: its first bytes, unpacked. packed: it is compressed.
    """

    path: Path
    name: str
    kind: FileKind
    beginning: bytes
    packed: bool = False

    def records(self) -> Iterator[Record]:
        """Raises UsageError, with the line, where the file is damaged."""
        if self.kind == "parquet":
            yield from parquet_records(self.path, self.name)
            return
        with unpacked(self.path, self.name) as file:
            read = {"csv": csv_records, "jsonl": json_lines, "json": json_items}[self.kind]
            yield from read(file, self.name)


@dataclass(frozen=True)
class Head:
    """What the beginning of a file looks like. records: its first ones, at least one."""

    kind: FileKind
    records: tuple[Record, ...]
    name: str

    @property
    def names(self) -> frozenset[str]:
        """Columns or keys of the first record, in lower case."""
        return frozenset(each.lower() for each in self.records[0].fields)

    def column(self, *names: str) -> str | None:
        """How the file spells the first of these names that any of its first records has."""
        for wanted in names:
            for record in self.records:
                for spelled in record.fields:
                    if spelled.lower() == wanted:
                        return spelled
        return None


def open_container(path: Path, name: str) -> Container:
    """Raises UsageError: no such file, a folder, nothing in it, nothing that holds records."""
    with unpacked(path, name) as file:
        beginning = file.read(_HEAD_BYTES)
    with path.open("rb") as plain:
        packed = plain.read(4).startswith((_GZIP, _ZSTD))
    return Container(path, name, _kind(beginning, name), beginning, packed)


def _kind(beginning: bytes, name: str) -> FileKind:
    if beginning.startswith(_PARQUET):
        return "parquet"
    for magic, found in _UNREADABLE.items():
        if beginning.startswith(magic):
            raise UsageError(found, where=name)
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise UsageError("holds nothing", where=name)
    if text.startswith(b"{"):
        return "jsonl" if first_line_is_whole(text) else "json"
    return "json" if text.startswith(b"[") else "csv"


def read_head(container: Container) -> Head:
    """The first records. Raises UsageError where there is none."""
    records: tuple[Record, ...] = ()
    if container.kind == "jsonl":
        # A line may be a conversation of megabytes: no more of them than were read anyway, but one.
        lines, _, _ = container.beginning.rpartition(b"\n")
        records = tuple(islice(json_lines(io.BytesIO(lines), container.name), _HEAD_RECORDS))
    records = records or tuple(islice(container.records(), 1 if container.kind == "jsonl" else _HEAD_RECORDS))
    if not records:
        raise UsageError("holds no request", where=container.name)
    return Head(container.kind, records, container.name)


@contextmanager
def unpacked(path: Path, name: str) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked. Raises UsageError where it cannot be read, at its beginning or later on."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=name, advice="Name a trace file.") from error
    except ValueError as error:  # a NUL in the name
        raise UsageError("is not a file's name", where=name) from error
    if stat.S_ISDIR(found.st_mode):
        raise UsageError("is a directory", where=name, advice="Name a file in it.")
    if not stat.S_ISREG(found.st_mode):
        raise UsageError("is not a regular file", where=name, advice="Name a file: it is read more than once.")
    try:
        with _opened(path) as file:
            yield file
    except EOFError as error:
        advice = "Fetch the file again."
        raise UsageError("ends in the middle of its compressed data", where=name, advice=advice) from error
    except (OSError, zlib.error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise UsageError(f"cannot be read: {reason}", where=name, advice="Fetch the file again.") from error


def _opened(path: Path) -> BinaryIO:
    file = path.open("rb")
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(_GZIP):
        file.close()
        return gzip.open(path)  # type: ignore[return-value]
    if magic == _ZSTD:
        file.close()
        return _zstd(path)
    return file


def _zstd(path: Path) -> BinaryIO:
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
