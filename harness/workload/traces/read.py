"""Reads a trace or a data set: finds its form, and takes the part that is wanted."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.units import format_count, format_duration, format_number
from harness.workload.traces import TRACE_FORMS
from harness.workload.traces.clock import NANO
from harness.workload.traces.container import Container, Head, open_container, read_head
from harness.workload.traces.form import FileReading, Opening, TraceForm
from harness.workload.traces.row import Record, TraceRow
from harness.workload.traces.seek import find_place, records_from, skip_before
from harness.workload.traces.tally import FATES, Tally
from harness.workload.traces.window import DATASET_ROWS, ChosenRows, Window, choose, first_rows


@dataclass(frozen=True)
class TraceFile:
    """A file, and what its user says of it; what is not said the file has to tell.

    path: absolute, so that every process finds it. name: how messages and the manifest call it. form: one of
    TRACE_FORMS. time_unit: of its moments, `s`, `ms`, `us` or `ns`. block_tokens: of one block hash. source: what the
    manifest says of where it comes from, such as a repository and its commit.
    """

    path: str
    name: str
    form: str | None = None
    time_unit: str | None = None
    block_tokens: int | None = None
    source: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, file: TraceFile | str | Path, name: str | None = None, **told: Any) -> TraceFile:
        """The file at this path; one that is told of already as it is."""
        return file if isinstance(file, TraceFile) else cls(str(Path(file).absolute()), name or str(file), **told)


@dataclass(frozen=True)
class Trace:
    """What is sent of a file. timed: its rows have moments. sha256: over the rows as they are in the file.

    clock, blocks: the unit of moments and the size of blocks, and what says so. notes: what whoever runs it should
    know, rows that were dropped, altered or moved among it. counts: of rows by these three. whole: a row is all that is
    sent; else it is a turn, without what was said before.
    """

    file: TraceFile
    form: str
    rows: tuple[TraceRow, ...]
    sha256: str
    timed: bool = True
    clock: str | None = None
    blocks: str | None = None
    block_tokens: int = 0
    notes: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    whole: bool = True

    def lines(self) -> list[str]:
        """What the terminal says of it, before anything is sent."""
        units = ", ".join([each for each in (self.clock, self.blocks) if each])
        first = f"{self.file.name}: {self.form}{': ' + units if units else ''}; {self._size()}"
        return [first, *(f"{self.file.name}: {note}" for note in self.notes)]

    def _size(self) -> str:
        requests = f"{format_count(len(self.rows))} {'request' if len(self.rows) == 1 else 'requests'}"
        if not self.timed:
            return requests
        seconds = self.rows[-1].offset - self.rows[0].offset
        rate = f", {format_number((len(self.rows) - 1) / seconds)}/s" if seconds > 0 else ""
        return f"{requests} over {format_duration(seconds)}{rate}"

    def facts(self) -> dict[str, Any]:
        """For the manifest: short and flat."""
        counts = {f"rows_{fate}": self.counts.get(fate, 0) for fate in FATES}
        told = {
            "name": Path(self.file.name).name if not self.file.source else self.file.name,
            "path": self.file.path,
            **self.file.source,
            "sha256": self.sha256,
            "form": self.form,
            "time_unit": self.clock,
            "blocks": self.blocks,
            "rows": len(self.rows),
            **counts,
            "notes": "; ".join(self.notes) or None,
        }
        return {key: value for key, value in told.items() if value is not None}


def read_trace(file: TraceFile, window: Window | None = None) -> Trace:
    """The rows of a window, with their moments.

    Raises UsageError: no such file, no known form, moments in a unit that nothing tells, a wrong value with its line
    and column, no row at all.
    """
    container, head, form, reading = _open(file, timed=True)
    tally, window = Tally(), window or Window()
    records, zero = _from_start(container, head, reading, window)
    chosen = choose(reading.rows(records, tally), window, tally, file.name, ordered=reading.ordered, zero=zero)
    if chosen.cut and tally.of("moved"):
        tally.remark("its rows are not quite in order: one that comes far behind the last that is sent is not seen")
    return _trace(file, form, reading, chosen, tally, timed=True)


def read_dataset(file: TraceFile, most: int = DATASET_ROWS) -> Trace:
    """The first rows, in the file's order and without moments. Raises like read_trace."""
    container, _, form, reading = _open(file, timed=False)
    tally = Tally()
    chosen = first_rows(reading.rows(container.records(), tally), most, tally, file.name)
    if chosen.cut:
        tally.remark(f"only its first {len(chosen.rows):,} rows are asked")
    return _trace(file, form, reading, chosen, tally, timed=False)


def has_moments(file: TraceFile) -> bool:
    """Whether the file says when its requests came. Raises like read_trace."""
    head = read_head(open_container(Path(file.path), file.name))
    return _form(file, head).moments(head)


def form_names() -> list[str]:
    return [form.name for form in TRACE_FORMS]


def _from_start(
    container: Container, head: Head, reading: FileReading, window: Window
) -> tuple[Iterator[Record], int | None]:
    """The records to read, and the moment that the trace begins at where its first ones are passed over."""
    clock, start = reading.clock, round(window.start * NANO)
    if not start or clock is None or not (reading.ordered and reading.alone):
        return container.records(), None
    place = find_place(container, head, clock, start)
    if place is not None:
        return records_from(container, head, place), place.zero
    zero = clock.read(head.records[0])
    return skip_before(container.records(), clock, zero + start), zero


def _open(file: TraceFile, *, timed: bool) -> tuple[Container, Head, TraceForm, FileReading]:
    container = open_container(Path(file.path), file.name)
    head = read_head(container)
    form = _form(file, head)
    return container, head, form, form.open(Opening(head, timed, file.time_unit, file.block_tokens))


def _form(file: TraceFile, head: Head) -> TraceForm:
    """The form that is named, or the first that recognises the file. Raises UsageError."""
    if file.form is not None:
        named = next((form for form in TRACE_FORMS if form.name == file.form), None)
        if named is None:
            near = difflib.get_close_matches(file.form, form_names(), n=1)
            advice = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(form_names())}."
            raise UsageError(f"unknown form of a trace: {file.form!r}", where="--trace-form", advice=advice)
        if not named.recognises(head):
            raise UsageError(f"does not look like {named.about}: {_shape(head)}", where=file.name, advice=_known())
        return named
    found = next((form for form in TRACE_FORMS if form.recognises(head)), None)
    if found is None:
        raise UsageError(f"no form of a trace that is known: {_shape(head)}", where=file.name, advice=_known())
    return found


def _shape(head: Head) -> str:
    columns = ", ".join(list(head.records[0].fields)[:8])
    return f"it has {'columns' if head.kind in ('csv', 'parquet') else 'keys'} {columns[:120]!r}"


def _known() -> str:
    return f"Known: {'; '.join(form.about for form in TRACE_FORMS)}."


def _trace(
    file: TraceFile, form: TraceForm, reading: FileReading, chosen: ChosenRows, tally: Tally, *, timed: bool
) -> Trace:
    has_blocks = any(row.blocks for row in chosen.rows)
    return Trace(
        file,
        form.about,
        chosen.rows,
        chosen.sha256,
        timed,
        str(reading.clock) if reading.clock else None,
        str(reading.blocks) if has_blocks else None,
        reading.blocks.tokens if has_blocks else 0,
        tally.notes(),
        {fate: tally.of(fate) for fate in FATES},
        reading.whole,
    )


def sessions_of(rows: Sequence[TraceRow]) -> int:
    """How many conversations these rows belong to."""
    return len({row.session_id for row in rows if row.session_id is not None})
