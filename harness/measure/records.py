"""Records: all requests of a run as columns, for statistics, and the schema of records.parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.errors import UsageError
from harness.input_files import brief, out_of_memory
from harness.measure.record import STATUSES, RequestRecord
from harness.measure.run_folder import MOST_SECONDS, naming

if TYPE_CHECKING:
    import pyarrow as pa

COMPLETED, FAILED, DROPPED, IN_FLIGHT = range(4)
MISSING = -1  # an integer that is null
MOST_TOKENS = 2**40  # of one request
FEW_PIECES = 8  # requests in a piece of neighbours, on average, from which on pieces are copied rather than events

_FLOATS = ("scheduled_at", "sent_at", "first_byte_at", "finished_at", "queue_time", "first_share")
_COUNTS = (
    "input_tokens", "output_tokens", "http_status", "turn",
    "asked_input_tokens", "asked_output_tokens", "history_tokens",
)  # fmt: skip
_NEEDED = ("request_id", "level", "scheduled_at", "status", "token_at", "token_count")  # of every table of records
# The contract's columns: of those besides a request may have none, but a table without one is another program's.
_THERE = (
    *_NEEDED, "sent_at", "first_byte_at", "finished_at", "input_tokens", "output_tokens", "finish_reason", "error_kind",
    "session_id", "turn",
)  # fmt: skip
_TEXTS = ("finish_reason", "error_kind", "session_id", "count_told", "notes", "error_message")

_RAGGED = ("token_at", "token_count", "offsets")  # not one entry per request
_COUNTED = "token_count.list.element"  # its values by their path in the file
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = NDArray[np.signedinteger[Any]]  # of requests: half as wide where there are millions


@dataclass(frozen=True)
class Records:
    """One entry per request in each array; token events of request i are `token_at[offsets[i]:offsets[i + 1]]`.

    Moments are seconds since the run's start, NaN where they never came. Integer columns are MISSING (-1) where null.
    status holds indices into STATUSES. Text columns are arrays of str or None.
    """

    request_id: NDArray[np.object_]
    level: Ints
    scheduled_at: Floats
    sent_at: Floats
    first_byte_at: Floats
    token_at: Floats
    token_count: NDArray[np.int32]
    offsets: Ints
    finished_at: Floats
    input_tokens: Ints
    output_tokens: Ints
    finish_reason: NDArray[np.object_]
    status: NDArray[np.int8]
    error_kind: NDArray[np.object_]
    session_id: NDArray[np.object_]
    turn: Ints
    http_status: Ints
    asked_input_tokens: Ints
    asked_output_tokens: Ints
    history_tokens: Ints
    glued_events: Ints
    queue_time: Floats
    count_told: NDArray[np.object_]
    first_share: Floats
    notes: NDArray[np.object_]
    error_message: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.request_id)

    @cached_property
    def event_counts(self) -> Ints:
        """Token events of each request."""
        return np.diff(self.offsets)

    def having(self, status: int) -> NDArray[np.bool_]:
        """Which requests have this status, one of COMPLETED, FAILED, DROPPED, IN_FLIGHT."""
        return self.status == status

    def noted(self, word: str) -> NDArray[np.bool_]:
        """Which requests have this word among their notes."""
        holds = {
            notes: notes is not None and word in (note.partition(":")[0] for note in notes.split(","))
            for notes in set(self.notes.tolist())
        }
        if not any(holds.values()):
            return np.zeros(len(self), dtype=bool)
        return np.fromiter(map(holds.__getitem__, self.notes.tolist()), bool, len(self))

    def select(self, chosen: NDArray[Any]) -> Records:
        """The requests of a mask or of indices, in that order; neighbours are not copies."""
        rows = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and bool(np.all(np.diff(rows) == 1)):
            return self._between(int(rows[0]), int(rows[-1]) + 1)
        counts = self.event_counts[rows]
        offsets = _offsets(counts)
        events = self._events(rows, offsets)
        ragged = {"token_at": events(self.token_at), "token_count": events(self.token_count), "offsets": offsets}
        plain = {each.name: getattr(self, each.name)[rows] for each in fields(self) if each.name not in _RAGGED}
        return Records(**plain, **ragged)

    def _events(self, rows: Ints, offsets: Ints) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """Takes of a column of events those of some requests. Neighbours are copied as one piece, as there may be tens
        of millions of events. offsets: where those of each row will begin.
        """
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        if len(rows) and len(breaks) < len(rows) // FEW_PIECES:
            first, last = rows[[0, *breaks]], rows[[*(breaks - 1), -1]]
            pieces = [slice(*ends) for ends in zip(self.offsets[first], self.offsets[last + 1], strict=True)]
            return lambda column: np.concatenate([column[piece] for piece in pieces])
        # Index of each kept event: its request's first event, plus its place within the request.
        index = np.repeat(self.offsets[:-1][rows] - offsets[:-1], np.diff(offsets)) + np.arange(offsets[-1])
        return lambda column: column[index]

    def _between(self, first: int, end: int) -> Records:
        """The requests from one row up to another, which share their memory with these."""
        if (first, end) == (0, len(self)):
            return self
        events = slice(self.offsets[first], self.offsets[end])
        plain = {each.name: getattr(self, each.name)[first:end] for each in fields(self) if each.name not in _RAGGED}
        return Records(
            token_at=self.token_at[events],
            token_count=self.token_count[events],
            offsets=self.offsets[first : end + 1] - self.offsets[first],
            **plain,
        )

    def mistake(self) -> str | None:
        """What no run can have recorded, in words; figures are computed from it and must not fail."""
        if np.isnan(self.scheduled_at).any() or np.isnan(self.token_at.sum()):
            return "scheduled_at or token_at: no number"
        for name in (*_FLOATS, "token_at"):
            column = getattr(self, name)
            if max(np.fmax.reduce(column, initial=0.0), -np.fmin.reduce(column, initial=0.0)) > MOST_SECONDS:
                return f"{name}: a moment beyond all bounds"
        done = self.having(COMPLETED)
        if np.isnan(self.sent_at[done]).any() or np.isnan(self.finished_at[done]).any():
            return "sent_at or finished_at: no number, though the request is completed"
        if len(set(self.request_id.tolist())) < len(self):
            return "request_id: the same for several requests"
        if np.any(self.token_count < 0) or np.any(self.level < 0) or np.any(self.glued_events < 0):
            return "token_count, level or glued_events: below zero"
        for name in _COUNTS:
            if np.any(getattr(self, name) < MISSING) or np.any(getattr(self, name) > MOST_TOKENS):
                return f"{name}: beyond all bounds"
        return None

    def sorted(self) -> Records:
        """By level, then by the moment due, then by id: the same whatever process recorded which."""
        ids = self.request_id.astype(str)
        return self.select(np.lexsort((ids, self.scheduled_at, self.level)))

    @classmethod
    def from_list(cls, records: Sequence[RequestRecord]) -> Records:
        columns: dict[str, Any] = {
            "request_id": _objects([each.request_id for each in records]),
            "level": np.array([each.level for each in records], dtype=np.int64),
            "status": np.array([STATUSES.index(each.status) for each in records], dtype=np.int8),
            "glued_events": np.array([each.glued_events for each in records], dtype=np.int64),
            "token_at": _flat([each.token_at for each in records], np.float64),
            "token_count": _flat([each.token_count for each in records], np.int32),
            "offsets": _offsets(np.array([len(each.token_at) for each in records], dtype=np.int64)),
        }
        for name in _FLOATS:
            columns[name] = np.array([_or_nan(getattr(each, name)) for each in records], dtype=np.float64)
        for name in _COUNTS:
            columns[name] = np.array([_or_missing(getattr(each, name)) for each in records], dtype=np.int64)
        for name in _TEXTS:
            columns[name] = _objects([getattr(each, name) for each in records])
        return cls(**columns)

    def to_list(self) -> list[RequestRecord]:
        return list(self)

    def __iter__(self) -> Iterator[RequestRecord]:
        for row in range(len(self)):
            events = slice(self.offsets[row], self.offsets[row + 1])
            yield RequestRecord(
                request_id=str(self.request_id[row]),
                level=int(self.level[row]),
                status=STATUSES[self.status[row]],
                token_at=self.token_at[events].tolist(),
                token_count=self.token_count[events].tolist(),
                glued_events=int(self.glued_events[row]),
                **{name: _none_if_nan(getattr(self, name)[row]) for name in _FLOATS},  # type: ignore[arg-type]
                **{name: _none_if_missing(getattr(self, name)[row]) for name in _COUNTS},  # type: ignore[arg-type]
                **{name: getattr(self, name)[row] for name in _TEXTS},
            )

    def to_table(self) -> pa.Table:
        """The columns of the contract, in its order and types; ours after them."""
        import pyarrow as pa

        lists = pa.array(self.offsets, pa.int32())
        columns: dict[str, pa.Array] = {
            "request_id": pa.array(self.request_id, pa.string()),
            "level": pa.array(self.level, pa.int64()),
            "scheduled_at": _moments(self.scheduled_at),
            "sent_at": _moments(self.sent_at),
            "first_byte_at": _moments(self.first_byte_at),
            "token_at": pa.ListArray.from_arrays(lists, pa.array(self.token_at, pa.float64())),
            "token_count": pa.ListArray.from_arrays(lists, pa.array(self.token_count, pa.int32())),
            "finished_at": _moments(self.finished_at),
            "input_tokens": _counts(self.input_tokens),
            "output_tokens": _counts(self.output_tokens),
            "finish_reason": pa.array(self.finish_reason, pa.string()),
            "status": pa.array([STATUSES[code] for code in self.status], pa.string()),
            "error_kind": pa.array(self.error_kind, pa.string()),
            "session_id": pa.array(self.session_id, pa.string()),
            "turn": _counts(self.turn),
            "http_status": _counts(self.http_status),
            "asked_input_tokens": _counts(self.asked_input_tokens),
            "asked_output_tokens": _counts(self.asked_output_tokens),
            "history_tokens": _counts(self.history_tokens),
            "glued_events": pa.array(self.glued_events, pa.int64()),
            "queue_time": _moments(self.queue_time),
            "count_told": pa.array(self.count_told, pa.string()),
            "first_share": _moments(self.first_share),
            "notes": pa.array(self.notes, pa.string()),
            "error_message": pa.array(self.error_message, pa.string()),
        }
        return pa.table(columns)

    @classmethod
    def from_table(cls, table: pa.Table) -> Records:
        import pyarrow as pa

        types = _types()

        def column(name: str) -> pa.Array:
            kind = types[name]
            if name not in table.column_names:
                if name in _THERE:
                    raise ValueError(f"holds no column {name}")
                return pa.nulls(len(table), kind)  # a column of ours: another program may have left it out
            if table[name].null_count and name in _NEEDED:
                raise ValueError(f"{name}: {table[name].null_count} are null")
            chunks = table[name].cast(kind).combine_chunks()
            return pa.concat_arrays(chunks.chunks) if isinstance(chunks, pa.ChunkedArray) else chunks

        def numbers(name: str, null: float, kind: type) -> NDArray[Any]:
            return column(name).fill_null(null).to_numpy(zero_copy_only=False).astype(kind)

        at, counts = column("token_at"), column("token_count")
        if not at.value_lengths().equals(counts.value_lengths()):
            raise ValueError("token_at and token_count differ in their lengths")
        if at.flatten().null_count or counts.flatten().null_count:
            raise ValueError("token_at or token_count hold nulls")
        columns: dict[str, Any] = {name: numbers(name, np.nan, np.float64) for name in _FLOATS}
        columns |= {name: numbers(name, MISSING, np.int64) for name in _COUNTS}
        columns |= {name: _objects(column(name).to_pylist()) for name in (*_TEXTS, "request_id")}
        return cls(
            level=numbers("level", 0, np.int64),
            status=_codes(column("status").to_pylist()),
            glued_events=numbers("glued_events", 0, np.int64),
            token_at=at.flatten().to_numpy(zero_copy_only=False).astype(np.float64, copy=False),
            token_count=counts.flatten().to_numpy(zero_copy_only=False).astype(np.int32, copy=False),
            offsets=_offsets(at.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)),
            **columns,
        )


Found = TypeVar("Found")


PIECE = 1 << 16  # entries that the processor's cache holds with what is made of them


def by_pieces(values: NDArray[Any], of: Callable[[NDArray[Any]], NDArray[Any]], kind: type) -> NDArray[Any]:
    """`of` each entry, as numbers of a kind: piece by piece, as of tens of millions every column on the way is memory
    that the system clears first.
    """
    found: NDArray[Any] = np.empty(len(values), dtype=kind)
    for start in range(0, len(values), PIECE):
        found[start : start + PIECE] = of(values[start : start + PIECE])
    return found


def remembered(function: Callable[[Records], Found]) -> Callable[[Records], Found]:
    """Computes once for the same Records object, which never changes; what was found goes with it."""
    key = f"_{function.__module__}.{function.__qualname__}"

    @wraps(function)
    def of(records: Records) -> Found:
        kept = records.__dict__
        if key not in kept:
            kept[key] = function(records)
        return kept[key]

    return of


@cache
def _types() -> dict[str, pa.DataType]:
    """What each column holds."""
    import pyarrow as pa

    return {
        **dict.fromkeys(_FLOATS, pa.float64()),
        **dict.fromkeys((*_COUNTS, "level", "glued_events"), pa.int64()),
        **dict.fromkeys((*_TEXTS, "request_id", "status"), pa.string()),
        "token_at": pa.list_(pa.float64()),
        "token_count": pa.list_(pa.int32()),
    }


def write_parquet(records: Records, path: Path) -> None:
    """records.parquet, replaced in one step."""
    import pyarrow.parquet as pq

    beside = path.with_name(f".{path.name}.part")
    try:
        with naming(path), beside.open("wb") as file:
            # Moments are all unlike: a dictionary of them is tried, filled and given up.
            table = records.to_table()
            pq.write_table(
                table, file, compression="zstd", use_dictionary=[*set(table.column_names) - set(_RAGGED), _COUNTED]
            )
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    beside.replace(path)


def read_parquet(path: Path) -> Records:
    """Records of a finished run. Raises UsageError where the file is not such a table."""
    import pyarrow as pa

    try:
        records = _from_file(path)
    except MemoryError as error:
        raise out_of_memory(path) from error
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"cannot be read: {brief(error)}", where=str(path)) from error
    if mistake := records.mistake():
        raise UsageError(f"not as expected: {mistake}", where=str(path))
    return records


def _from_file(path: Path) -> Records:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("rb") as file:  # by its path Arrow takes only UTF-8
        # One thread: most of a large file is one column, and others only take its memory apart.
        records = Records.from_table(pq.read_table(file, pre_buffer=False, use_threads=False))
    pa.default_memory_pool().release_unused()  # what was read on the way is as large again
    return records


def concatenate(parts: Sequence[Records]) -> Records:
    """All parts after one another."""
    plain = {
        each.name: np.concatenate([getattr(part, each.name) for part in parts])
        for each in fields(Records)
        if each.name != "offsets"
    }
    return Records(offsets=_offsets(np.concatenate([part.event_counts for part in parts])), **plain)


def _codes(statuses: Sequence[str]) -> NDArray[np.int8]:
    if unknown := set(statuses) - set(STATUSES):
        raise ValueError(f"status: expected one of {', '.join(STATUSES)}, found {min(unknown)!r}")
    return np.array([STATUSES.index(name) for name in statuses], dtype=np.int8)


def _offsets(counts: NDArray[Any]) -> Ints:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])


def _flat(parts: Sequence[Sequence[float]], kind: type) -> NDArray[Any]:
    arrays: list[NDArray[Any]] = [np.asarray(part, dtype=kind) for part in parts]
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=kind)


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _or_missing(value: int | None) -> int:
    return MISSING if value is None else value


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _none_if_missing(value: int) -> int | None:
    return None if value == MISSING else int(value)


def _moments(values: Floats) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.float64(), from_pandas=True)


def _counts(values: Ints) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.int64(), mask=values == MISSING)
