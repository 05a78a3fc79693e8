"""The protocol of a form of trace: it recognises its files and reads them row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from harness.errors import UsageError
from harness.workload.traces.blocks import NO_BLOCKS, Blocks
from harness.workload.traces.clock import Clock, find_clock
from harness.workload.traces.container import Head
from harness.workload.traces.row import Record, Timed
from harness.workload.traces.tally import Tally


@dataclass(frozen=True)
class Opening:
    """A file that is about to be read, and what its user says of it.

    timed: whether moments are wanted. time_unit, block_tokens: as given, None where the file itself has to tell.
    """

    head: Head
    timed: bool = True
    time_unit: str | None = None
    block_tokens: int | None = None

    def column(self, *names: str) -> str | None:
        """How the file spells the first of these names that it has."""
        return self.head.column(*names)

    def needed(self, *names: str) -> str:
        """The same of a column that every row must have; its first name where none of the first rows has it."""
        return self.head.column(*names) or names[0]

    def clock(self, *names: str, form: str = "", unit: str | None = None) -> Clock | None:
        """The clock of the first of these columns; None where moments are not wanted. Raises UsageError."""
        if not self.timed:
            return None
        column = self.column(*names)
        if column is None:
            raise no_moments(self.head.name)
        return find_clock(self.head, column, given=self.time_unit, form=form, unit=unit)


@dataclass(frozen=True)
class FileReading:
    """How one file is read. clock: None where it tells no moments, or none are wanted.

    rows: makes rows of records, and counts in the Tally what they are altered in. ordered: rows are in the order of
    their moments, but for small disorder, and moments count from the first row. Else from the earliest. whole: a row is
    all that is sent to the engine; False: it is a turn, without what was said before. alone: what a row is does not
    depend on the rows before it, so that reading may begin anywhere.
    """

    clock: Clock | None
    rows: Callable[[Iterator[Record], Tally], Iterable[Timed]]
    blocks: Blocks = NO_BLOCKS
    ordered: bool = True
    whole: bool = True
    alone: bool = False


class TraceForm(Protocol):
    """One published or own way to write requests down."""

    @property
    def name(self) -> str:
        """As `--trace-form` takes it."""
        ...

    @property
    def about(self) -> str:
        """Whose it is, for people."""
        ...

    def recognises(self, head: Head) -> bool:
        """Whether a file that begins so is of this form. No two forms recognise the same file."""
        ...

    def moments(self, head: Head) -> bool:
        """Whether such a file says when its requests came."""
        ...

    def open(self, opening: Opening) -> FileReading:
        """Raises UsageError where units or blocks are not known, or a needed column is not there."""
        ...


def no_moments(name: str) -> UsageError:
    advice = "Give it as --dataset with --users or --rate, which say when."
    return UsageError("does not say when its requests came", where=name, advice=advice)
