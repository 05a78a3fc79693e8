"""Writes requests to disk as they happen: an append-only log per load process that survives a kill at any byte.

A log is a magic line, then entries: kind (1 byte), length of the payload (4), CRC-32 of kind and payload (4), payload.
Kinds: BEGIN when a request is sent, TOKENS while its answer comes, END with all of it when its outcome is known, NOTE
for what the process says about itself; `counting` among them, whether each event's tokens are known. A reader stops at
the first entry that is cut or damaged; requests that began and have no END were in flight, with the tokens that were
noted until then.
The writer runs in the load process: no numpy, no pyarrow, no JSON per request.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.input_files import brief
from harness.measure.record import STATUSES, RequestRecord

if TYPE_CHECKING:
    from harness.measure.records import Records

MAGIC = b"harness journal 1\n"
BEGIN, END, NOTE, TOKENS = 1, 2, 3, 4

_ENTRY = struct.Struct("<BII")
_BEGIN = struct.Struct("<idd")
_TOKENS = struct.Struct("<I")
# level, status, scheduled_at, sent_at, first_byte_at, finished_at, queue_time, six counts, glued events, events
_END = struct.Struct("<iB5d6iII")
_NAN = float("nan")

FLUSH_EVERY = 0.5  # seconds: half of what a kill may lose, so that a late tick still keeps the promise
FLUSH_BYTES = 1 << 20


class JournalWriter:
    """The log of one load process.

    begin, tokens, end and note only fill a buffer; flush hands it to the kernel, from where it survives the end of this
    process. They flush by themselves when half a second has passed or 1 MiB waits, but where no call comes nothing is
    flushed: the owner calls flush at least every half second while requests are open.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._buffer = bytearray()
        if os.fstat(self._file).st_size == 0:
            self._buffer += MAGIC
        self._flushed = time.monotonic()

    def begin(self, record_id: str, level: int, scheduled_at: float, sent_at: float) -> None:
        """A request is being sent; if nothing more is heard of it, it was in flight."""
        self._append(BEGIN, _BEGIN.pack(level, scheduled_at, sent_at) + record_id.encode("ascii"))

    def tokens(self, record_id: str, at: bytes, count: bytes) -> None:
        """What a request that is in flight got since the last time: moments as float64, tokens of each as int32."""
        self._append(TOKENS, b"".join((_TOKENS.pack(len(count) // 4), at, count, record_id.encode("ascii"))))

    def end(self, record: RequestRecord) -> None:
        """A request's outcome. A dropped one has no begin."""
        self._append(END, pack_record(record))

    def note(self, kind: str, content: Mapping[str, Any]) -> None:
        """What this process says of itself, such as a ClientSample as a mapping under the kind `sample`."""
        self._append(NOTE, json.dumps({"kind": kind, **content}).encode())

    def flush(self) -> None:
        """Hand all that waits to the kernel."""
        waiting = memoryview(self._buffer)
        self._buffer = bytearray()
        while waiting:
            waiting = waiting[os.write(self._file, waiting) :]
        self._flushed = time.monotonic()

    def close(self) -> None:
        self.flush()
        os.close(self._file)

    def _append(self, kind: int, payload: bytes) -> None:
        buffer = self._buffer
        buffer += _ENTRY.pack(kind, len(payload), zlib.crc32(payload, kind))
        buffer += payload
        if len(buffer) >= FLUSH_BYTES or time.monotonic() - self._flushed >= FLUSH_EVERY:
            self.flush()


def pack_record(record: RequestRecord) -> bytes:
    """One request as bytes: fixed part, moments and counts of the events, then the texts parted by zero bytes."""
    fixed = _END.pack(
        record.level,
        STATUSES.index(record.status),
        record.scheduled_at,
        _NAN if record.sent_at is None else record.sent_at,
        _NAN if record.first_byte_at is None else record.first_byte_at,
        _NAN if record.finished_at is None else record.finished_at,
        _NAN if record.queue_time is None else record.queue_time,
        -1 if record.input_tokens is None else record.input_tokens,
        -1 if record.output_tokens is None else record.output_tokens,
        -1 if record.http_status is None else record.http_status,
        -1 if record.turn is None else record.turn,
        -1 if record.asked_input_tokens is None else record.asked_input_tokens,
        -1 if record.asked_output_tokens is None else record.asked_output_tokens,
        record.glued_events,
        len(record.token_at),
    )
    share = None if record.first_share is None else repr(record.first_share)
    history = None if record.history_tokens is None else str(record.history_tokens)
    texts = (record.request_id, record.finish_reason, record.error_kind, record.session_id,
             record.count_told, record.notes, share, record.error_message, history)  # fmt: skip
    return b"".join(
        (
            fixed,
            array("d", record.token_at).tobytes(),
            array("i", record.token_count).tobytes(),
            "\0".join((text or "").replace("\0", " ") for text in texts).encode("utf-8", "replace"),
        )
    )


def unpack_record(payload: bytes) -> RequestRecord:
    """The reverse of pack_record."""
    fixed = _END.unpack_from(payload)
    level, status, scheduled_at, sent_at, first_byte_at, finished_at, queue_time, *counts, glued, events = fixed
    at, count = array("d"), array("i")
    middle = _END.size + 8 * events
    last = middle + 4 * events
    at.frombytes(payload[_END.size : middle])
    count.frombytes(payload[middle:last])
    texts: list[Any] = [text or None for text in payload[last:].decode().split("\0")]
    request_id, finish_reason, error_kind, session_id = texts[:4]
    count_told, notes, share, message, history = [*texts[4:9], None, None, None, None, None][:5]  # earlier: not noted
    names = ("input_tokens", "output_tokens", "http_status", "turn", "asked_input_tokens", "asked_output_tokens")
    return RequestRecord(
        request_id=request_id,
        level=level,
        scheduled_at=scheduled_at,
        status=STATUSES[status],
        sent_at=_known(sent_at),
        first_byte_at=_known(first_byte_at),
        token_at=at,  # type: ignore[arg-type]  # arrays: a tenth of the memory of lists, and read the same
        token_count=count,  # type: ignore[arg-type]
        finished_at=_known(finished_at),
        finish_reason=finish_reason,
        error_kind=error_kind,
        session_id=session_id,
        glued_events=glued,
        queue_time=_known(queue_time),
        count_told=count_told,
        first_share=None if share is None else float(share),
        history_tokens=None if history is None else int(history),
        notes=notes,
        error_message=message,
        **{name: None if value == -1 else value for name, value in zip(names, counts, strict=True)},
    )


@dataclass(frozen=True)
class Journal:
    """What the logs of a run hold. notes: of all processes, in the order of their logs; each has a `kind`."""

    records: Records
    notes: tuple[Mapping[str, Any], ...]


def read_journal(folder: Path) -> Journal:
    """All logs of a run's folder, whole or cut; requests without an outcome are in flight.

    Raises UsageError where a log is of another format.
    """
    return JournalReader(folder).read()


class JournalReader:
    """Reads a run's logs piece by piece, each as far as it was written since the last time: what a level wrote is then
    read once, however many were before it. A request that has not ended by then is in flight, and is in the piece
    in which it ends again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read_to: dict[Path, int] = {}
        self._count_told: dict[Path, Any] = {}

    def read(self) -> Journal:
        """Raises UsageError where a log is of another format."""
        from harness.measure.records import Records

        reading = _Reading()
        for path in sorted(self._folder.glob("journal-*.log")):
            reading.count_told = self._count_told.get(path)
            for kind, payload, end in read_entries(path, self._read_to.get(path, 0)):
                self._read_to[path] = end
                try:
                    reading.take(kind, payload)
                except (struct.error, ValueError, IndexError, RecursionError) as error:
                    # Its checksum holds, so no crash cut it: another program, or another version, wrote it.
                    found = f"holds an entry that is not as expected: {brief(error)}"
                    raise UsageError(found, where=str(path)) from error
            self._count_told[path] = reading.count_told
        try:
            records = Records.from_list(reading.records())
        except OverflowError as error:
            raise UsageError(f"holds a number beyond all bounds: {brief(error)}", where=str(self._folder)) from error
        if mistake := records.mistake():
            raise UsageError(f"its journals are not as expected: {mistake}", where=str(self._folder))
        return Journal(records.sorted(), tuple(reading.notes))


class _Reading:
    """What the entries of all logs amount to so far."""

    def __init__(self) -> None:
        self.ended: list[RequestRecord] = []
        self.notes: list[Mapping[str, Any]] = []
        self.begun: dict[str, RequestRecord] = {}
        self.count_told: Any = None

    def take(self, kind: int, payload: bytes) -> None:
        """Raises what unpacking raises where the payload is not what its kind says."""
        if kind == BEGIN:
            record = _in_flight(payload)
            record.count_told = self.count_told
            self.begun[record.request_id] = record
        elif kind == TOKENS:
            _take_tokens(self.begun, payload)
        elif kind == END:
            self.ended.append(unpack_record(payload))
        elif kind == NOTE:
            note = json.loads(payload)
            if not isinstance(note, dict) or not isinstance(note.get("kind"), str):
                raise ValueError("a note without a kind")
            self.notes.append(note)
            told = note.get("count_told", self.count_told)
            if told not in (None, "per_event", "per_answer"):
                raise ValueError("count_told of a note")
            self.count_told = told

    def records(self) -> list[RequestRecord]:
        for record in self.ended:
            self.begun.pop(record.request_id, None)
        return [*self.ended, *self.begun.values()]


def read_entries(path: Path, start: int = 0) -> Iterator[tuple[int, bytes, int]]:
    """Kind and payload of each whole entry, up to the first that is cut or damaged, and where it ends in the file.
    start: where an entry ended, or 0.
    """
    with path.open("rb") as file:
        file.seek(start)
        content = file.read()
    if start == 0 and not content.startswith(MAGIC):
        if MAGIC.startswith(content):
            return  # killed before the first line was written
        raise UsageError("is not a journal of this version", where=str(path))
    at = len(MAGIC) if start == 0 else 0
    while at + _ENTRY.size <= len(content):
        kind, length, checksum = _ENTRY.unpack_from(content, at)
        payload = content[at + _ENTRY.size : at + _ENTRY.size + length]
        if len(payload) < length or zlib.crc32(payload, kind) != checksum:
            return
        at += _ENTRY.size + length
        yield kind, payload, start + at


def _in_flight(payload: bytes) -> RequestRecord:
    level, scheduled_at, sent_at = _BEGIN.unpack_from(payload)
    request_id = payload[_BEGIN.size :].decode("ascii")
    arrays: Any = {"token_at": array("d"), "token_count": array("i")}
    return RequestRecord(request_id, level, scheduled_at, "in_flight", sent_at=_known(sent_at), **arrays)


def _take_tokens(begun: Mapping[str, RequestRecord], payload: bytes) -> None:
    """Tokens of a request that is in flight so far; its END, where there is one, has them too."""
    (events,) = _TOKENS.unpack_from(payload)
    middle = _TOKENS.size + 8 * events
    last = middle + 4 * events
    record = begun.get(payload[last:].decode("ascii"))
    if record is not None:
        record.token_at.extend(array("d", payload[_TOKENS.size : middle]))
        record.token_count.extend(array("i", payload[middle:last]))


def _known(value: float) -> float | None:
    return None if value != value else value
