"""The part of a trace that is sent: from where, for how long, how much faster, how often.

Reading ends soon after the last row that is wanted, however long the file is. Rows that are not in the order of their
moments are put into it; how far apart they may be and still be found follows from the disorder that is met.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from typing import Protocol

from harness.errors import UsageError
from harness.units import format_duration
from harness.workload.traces.clock import NANO
from harness.workload.traces.row import Timed, TraceRow
from harness.workload.traces.tally import Tally

_ROWS_BEYOND = 1000  # are looked at for stragglers, at least
_TIMES_DISORDER = 4  # as far beyond the end as this many of the largest step back so far
_LONGEST = 10 * 366 * 86400 * NANO
DATASET_ROWS = 10_000


@dataclass(frozen=True)
class Window:
    """What is wanted of a trace.

    start: seconds of the trace that are passed over. speed: seconds of the trace in one of the replay.
    duration: of the replay, in seconds; None to the end. requests: at most this many. loop: begin again at the end.
    """

    start: float = 0.0
    speed: float = 1.0
    duration: float | None = None
    requests: int | None = None
    loop: bool = False


@dataclass(frozen=True)
class ChosenRows:
    """The rows that are sent, in the order of their moments, and sha256 over them as they are in the file.

    cut: the file goes on.
    """

    rows: tuple[TraceRow, ...]
    sha256: str
    cut: bool = False


def choose(
    rows: Iterable[Timed], window: Window, tally: Tally, name: str, *, ordered: bool, zero: int | None = None
) -> ChosenRows:
    """The rows of the window. zero: the moment that the trace begins at, where its first rows are passed over.

    Raises UsageError where there is none, and for moments that cannot belong together.
    """
    start = round(window.start * NANO)
    end = None if window.duration is None else start + round(window.duration * window.speed * NANO)
    reader = _Reader(rows, start, end, window.requests, tally, name)
    kept = reader.in_order(zero) if ordered else reader.all()
    if not kept:
        lasts = f": the trace lasts {format_duration(reader.span)}" if reader.read else ""
        advice = "Begin earlier." if window.start > reader.span else "Give a longer --duration."
        raise UsageError(f"no request in this part{lasts}", where=name, advice=advice)
    kept.sort(key=lambda each: each[0])
    if window.requests is not None:
        del kept[window.requests :]
    digest = sha256()
    for offset, row in kept:
        _add(digest, offset, row)
    paced = tuple(_at(row, (offset - start) / NANO / window.speed, window.speed) for offset, row in kept)
    if window.loop:
        paced = tuple(_repeated(paced, window, name))
    _count_least(paced, tally)
    return ChosenRows(paced, digest.hexdigest(), reader.cut)


def first_rows(rows: Iterable[Timed], most: int, tally: Tally, name: str) -> ChosenRows:
    """The first rows of a data set, in the file's order, whenever they were. Raises UsageError where there is none."""
    iterator = iter(rows)
    kept = [row for _, row in islice(iterator, most)]
    if not kept:
        raise UsageError("holds no request", where=name)
    digest = sha256()
    for number, row in enumerate(kept):
        _add(digest, number, row)
    _count_least(kept, tally)
    return ChosenRows(tuple(kept), digest.hexdigest(), next(iterator, None) is not None)


def _count_least(rows: Sequence[TraceRow], tally: Tally) -> None:
    """Rows that ask for less than any engine takes."""
    answers = sum(row.output_tokens == 0 for row in rows)
    prompts = sum(row.input_tokens == 0 and row.text is None for row in rows)
    if answers:
        tally.alter("answers of no token are asked for with one, the least that engines take", answers)
    if prompts:
        tally.alter("prompts of no token are sent as one word, the least that engines take", prompts)


class _Reader:
    """Takes rows as they come. read: how many; span: seconds from the first moment to the last that was seen."""

    def __init__(
        self, rows: Iterable[Timed], start: int, end: int | None, most: int | None, tally: Tally, name: str
    ) -> None:
        self._rows, self._start, self._end, self._most, self._tally, self._name = rows, start, end, most, tally, name
        self.read, self.span, self.cut = 0, 0.0, False

    def all(self) -> list[tuple[int, TraceRow]]:
        """Moments count from the earliest."""
        timed = [(moment or 0, row) for moment, row in self._rows]
        self.read = len(timed)
        zero = min((moment for moment, _ in timed), default=0)
        kept = []
        for moment, row in timed:
            offset = moment - zero
            self.span = max(self.span, offset / NANO)
            if self._is_wanted(offset):
                kept.append((offset, row))
        return kept

    def in_order(self, zero: int | None) -> list[tuple[int, TraceRow]]:
        """Moments count from the first row; stops when nothing that is wanted can follow but by great disorder."""
        kept: list[tuple[int, TraceRow]] = []
        limit = self._end
        latest = step_back = beyond = 0
        for moment, row in self._rows:
            self.read += 1
            zero = moment or 0 if zero is None else zero
            offset = (moment or 0) - zero
            if offset < 0:
                self._tally.drop("they lie before the first row's moment")
            elif offset < latest:
                self._tally.move("they come after later ones; sent at their moments")
            step_back = max(step_back, latest - offset)
            latest = max(latest, offset)
            if self._is_wanted(offset):
                kept.append((offset, row))
            if len(kept) == self._most:
                limit = latest if limit is None else min(limit, latest)
            if limit is not None and latest >= limit:
                beyond += 1
                if beyond > _ROWS_BEYOND and latest >= limit + _TIMES_DISORDER * step_back:
                    self.cut = next(iter(self._rows), None) is not None
                    break
        self.span = latest / NANO
        return kept

    def _is_wanted(self, offset: int) -> bool:
        if offset < self._start or (self._end is not None and offset >= self._end):
            return False
        if offset - self._start > _LONGEST:
            found = f"a request lies {format_duration(offset / NANO)} after the first"
            raise UsageError(found, where=self._name, advice="Another unit of time, or a damaged line?")
        return True


def _at(row: TraceRow, offset: float, speed: float) -> TraceRow:
    """The row at its moment of the replay, in which all that was recorded takes as much less time."""
    delay, answered = (None if each is None else each / speed for each in (row.delay, row.answered))
    return TraceRow(
        offset, row.input_tokens, row.output_tokens, row.blocks, row.session_id, row.turn, delay, row.text, 0, answered
    )


def _repeated(rows: tuple[TraceRow, ...], window: Window, name: str) -> Iterator[TraceRow]:
    """The rows again and again, one mean gap between the last and the first; each pass with sessions of its own."""
    if window.duration is None and window.requests is None:
        raise UsageError("--trace-loop goes on for ever", advice="Give --duration or --requests.")
    if rows[-1].offset <= 0:
        raise UsageError("all its moments are the same: how long one pass lasts is not known", where=name)
    period = rows[-1].offset * len(rows) / (len(rows) - 1)
    sent = repeat = 0
    while True:
        for row in rows:
            offset = row.offset + repeat * period
            if (window.duration is not None and offset >= window.duration) or sent == window.requests:
                return
            session_id = _of_pass(row.session_id, repeat) if row.session_id is not None and repeat else row.session_id
            yield replace(row, offset=offset, repeat=repeat, session_id=session_id)
            sent += 1
        repeat += 1


def _of_pass(session_id: str, repeat: int) -> str:
    """A conversation of a later pass; its sub-agents stay its own."""
    root, parted, helper = session_id.partition("/")
    return f"{root}#{repeat + 1}{parted}{helper}"


class _Digest(Protocol):
    def update(self, content: bytes, /) -> None: ...


def _add(digest: _Digest, moment: int, row: TraceRow) -> None:
    told = (moment, row.input_tokens, row.output_tokens, row.blocks, row.session_id, row.turn, row.delay, row.answered)
    digest.update(f"{told}".encode("utf-8", "replace"))
    if row.text is not None:
        digest.update(row.text.encode("utf-8", "replace"))
    digest.update(b"\n")
