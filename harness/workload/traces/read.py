"""Reads a trace or a data set: finds its form, and takes what is wanted of it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.units import format_count, format_duration, format_number
from harness.workload.traces import TRACE_FORMS
from harness.workload.traces.container import Container, Head, open_container, read_head
from harness.workload.traces.form import Opening, Reading, TraceForm
from harness.workload.traces.row import TraceRow
from harness.workload.traces.tally import FATES, Tally
from harness.workload.traces.window import DATASET_ROWS, Chosen, Window, choose, first_rows


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
    """What is sent of a file. timed: its rows have moments. sha256: over the rows as they stand in the file.

    clock, blocks: the unit of moments and the size of blocks, and what says so. notes: what whoever runs it should
    know, rows that were dropped, altered or moved among it. counts: of rows by these three. rows_read: of the file,
    where it goes on. whole: a row is all that is sent; else a turn, without what was said before.
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
    rows_read: int | None = None
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
    container, form, reading = _open(file, timed=True)
    tally, window = Tally(), window or Window()
    rows = reading.rows(container.records(), tally)
    chosen = choose(rows, window, tally, file.name, ordered=reading.ordered)
    cut = "its rows are not quite in order; read as far as row {:,}, and one further on that is due before is not seen"
    return _trace(file, form, reading, chosen, tally, cut if tally.of("moved") else "", timed=True)


def read_dataset(file: TraceFile, most: int = DATASET_ROWS) -> Trace:
    """The first rows, in the file's order and without moments. Raises like read_trace."""
    container, form, reading = _open(file, timed=False)
    tally = Tally()
    chosen = first_rows(reading.rows(container.records(), tally), most, tally, file.name)
    return _trace(file, form, reading, chosen, tally, "only its first {:,} rows are asked", timed=False)


def has_moments(file: TraceFile) -> bool:
    """Whether the file says when its requests came. Raises like read_trace."""
    head = read_head(open_container(Path(file.path), file.name))
    return _form(file, head).moments(head)


def form_names() -> list[str]:
    return [form.name for form in TRACE_FORMS]


def _open(file: TraceFile, *, timed: bool) -> tuple[Container, TraceForm, Reading]:
    container = open_container(Path(file.path), file.name)
    head = read_head(container)
    form = _form(file, head)
    return container, form, form.open(Opening(head, timed, file.time_unit, file.block_tokens))


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
    file: TraceFile, form: TraceForm, reading: Reading, chosen: Chosen, tally: Tally, cut: str, *, timed: bool
) -> Trace:
    """cut: what to say where the file goes on, with a place for the number of rows that were read."""
    notes = tally.notes()
    if cut and chosen.cut_at is not None:
        notes = (*notes, cut.format(chosen.cut_at))
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
        notes,
        {fate: tally.of(fate) for fate in FATES},
        chosen.cut_at,
        reading.whole,
    )


def sessions_of(rows: Sequence[TraceRow]) -> int:
    """How many conversations these rows belong to."""
    return len({row.session_id for row in rows if row.session_id is not None})
