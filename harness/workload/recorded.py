"""Recorded lengths: from a list of numbers, or from any trace or data set that has them.

A list has a number to a line, or two, of a prompt and its answer. Of a file that holds pairs, prompts and answers are
drawn together, as they came: long questions and long answers go together in some services and not in others.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from harness.errors import UsageError
from harness.units import format_count
from harness.workload.tokens import parse_tokens
from harness.workload.traces.container import open_container, unpacked
from harness.workload.traces.read import TraceFile, read_dataset
from harness.workload.traces.text_lines import text_lines

MOST_ROWS = 100_000
"""Of a longer file its first ones: a distribution is known well enough by then."""

_SEPARATOR = re.compile(r"[,;\s]+")


@dataclass(frozen=True)
class RecordedLengths:
    """pairs: prompt and answer of each row, the same twice where the file has one number to a row (in_pairs: False).

    name, path: of the file. left_out: rows of no token on one side, which nobody can ask for.
    """

    name: str
    pairs: tuple[tuple[int, int], ...]
    in_pairs: bool
    left_out: int
    sha256: str
    path: str = ""

    def at(self, fraction: float) -> tuple[int, int]:
        """The pair at this place, between 0 and 1, of the file."""
        return self.pairs[min(int(fraction * len(self.pairs)), len(self.pairs) - 1)]

    def counts(self, side: int) -> dict[int, int]:
        """Rising lengths, each with the number of rows that have it. side: 0 for prompts, 1 for answers."""
        return dict(sorted(Counter(pair[side] for pair in self.pairs).items()))

    def __str__(self) -> str:
        left_out = f", {format_count(self.left_out)} of no token left out" if self.left_out else ""
        return f"file:{self.name} ({format_count(len(self.pairs))} rows{left_out}; sha256 {self.sha256[:12]})"


def recorded(path: str) -> RecordedLengths:
    """Raises UsageError: no such file, no known form, a wrong value with its line, lengths that nobody counted."""
    if not path:
        raise UsageError("file: names no file", advice="Write file:PATH.")
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"cannot be read: {reason}", where=path, advice="Name a file of lengths or a trace."
        ) from error
    return _recorded(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)  # what asks for the lengths of prompts asks for those of answers too
def _recorded(path: str, size: int, changed: int) -> RecordedLengths:
    listed = _list_of_numbers(path)
    if listed is not None:
        return _put_together(path, listed[0], listed[1])
    rows = read_dataset(TraceFile.of(path), MOST_ROWS).rows
    uncounted = sum(row.input_tokens is None or row.output_tokens is None for row in rows)
    if uncounted:
        found = f"{uncounted:,} of its {len(rows):,} rows hold texts whose tokens nobody counted"
        raise UsageError(found, where=path, advice="Give it as --dataset, which sends the texts.")
    return _put_together(path, [(row.input_tokens or 0, row.output_tokens or 0) for row in rows], in_pairs=True)


def _put_together(path: str, pairs: list[tuple[int, int]], in_pairs: bool) -> RecordedLengths:
    kept = tuple(pair for pair in pairs if min(pair) > 0)
    if not kept:
        raise UsageError("holds no length above zero", where=path)
    digest = sha256(repr(kept).encode()).hexdigest()
    return RecordedLengths(Path(path).name, kept, in_pairs, len(pairs) - len(kept), digest, path)


def _list_of_numbers(path: str) -> tuple[list[tuple[int, int]], bool] | None:
    """The numbers of a list, and whether it has two to a line; None where the file is not such a list."""
    pairs: list[tuple[int, int]] = []
    wanted = 0
    if open_container(Path(path), path).kind != "csv":
        return None
    with unpacked(Path(path), path) as file:
        for number, line in enumerate(text_lines(file, path), start=1):
            words = [word for word in _SEPARATOR.split(line.partition("#")[0].strip()) if word]
            if not words:
                continue
            try:
                lengths = [0 if word == "0" else parse_tokens(word) for word in words]
            except ValueError as error:
                if not wanted:
                    return None
                raise UsageError(str(error), where=f"{path}:{number}") from error
            wanted = wanted or len(lengths)
            if len(lengths) != wanted or wanted > 2:
                found = f"{len(lengths)} numbers, where the first line has {wanted}"
                raise UsageError(
                    found, where=f"{path}:{number}", advice="Write one to a line, or a prompt and its answer."
                )
            pairs.append((lengths[0], lengths[-1]))
            if len(pairs) == MOST_ROWS:
                break
    return (pairs, wanted == 2) if pairs else None
