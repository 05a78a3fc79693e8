"""A workload from a data set: its rows one after another, whenever a user is free or a request is due."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.workload.hashing import hash_of
from harness.workload.lengths import Lengths, parse_lengths
from harness.workload.replayed import require_same
from harness.workload.request import LEVEL_NUMBERS, Request
from harness.workload.rows import request_of
from harness.workload.seeds import uniform
from harness.workload.single import SingleRequests
from harness.workload.traces.read import Trace, TraceFile, read_dataset, sessions_of
from harness.workload.traces.row import TraceRow
from harness.workload.traces.window import DATASET_ROWS
from harness.workload.vocabulary import Vocabulary, assumed_vocabulary

_LEVEL_STRIDE = 0.6180339887498949  # the golden ratio's fraction: many levels begin far from each other


@dataclass(frozen=True)
class Dataset(SingleRequests):
    """The rows of a data set, each a request of its own, in the order of the file; of conversations that are given by
    turns, the first ones.

    After the last the first follows. Levels begin at different rows, so that a second level does not ask what the first
    has left in the prefix cache. output_lengths: of answers, in place of the recorded ones; needed where there is none.
    rows: this many of the file are read.
    """

    trace: Trace
    seed: int
    rows: int = DATASET_ROWS
    output_lengths: Lengths | None = None
    salt: str = ""
    sampled: bool = False
    vocabulary: Vocabulary = field(default_factory=assumed_vocabulary)

    @property
    def name(self) -> str:
        return "dataset"

    @property
    def offsets(self) -> None:
        return None

    @cached_property
    def asked(self) -> tuple[TraceRow, ...]:
        """The rows that are sent."""
        return tuple(
            row
            for row in self.trace.rows
            if self._stands_alone(row) and (row.output_tokens is not None or self.output_lengths is not None)
        )

    def _stands_alone(self, row: TraceRow) -> bool:
        return self.trace.whole or row.turn in (None, 0, 1)

    def lengths(self, number: int) -> tuple[int | None, int]:
        row = self._row(number)
        return row.input_tokens, self._answer(row, number)

    def request(self, number: int) -> Request:
        row, block = self._row(number), self.trace.block_tokens
        made = request_of(row, self.vocabulary, block, self.seed, self.salt, number, sampled=self.sampled)
        return made.asking_for(self._answer(row, number))

    def _row(self, number: int) -> TraceRow:
        level, index = divmod(number, LEVEL_NUMBERS)
        count = len(self.asked)
        return self.asked[(index + int(level * _LEVEL_STRIDE % 1 * count)) % count]

    def _answer(self, row: TraceRow, number: int) -> int:
        if self.output_lengths is not None:
            return self.output_lengths.at(uniform(self.seed, "output length", number))
        return max(1, row.output_tokens or 0)

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": "dataset",
            "file": asdict(self.trace.file),
            "rows": self.rows,
            "sha256": self.trace.sha256,
            "output_tokens": None if self.output_lengths is None else self.output_lengths.text(),
            "seed": self.seed,
            "salt": self.salt,
            "sampled": self.sampled,
            "vocabulary": self.vocabulary.as_dict(),
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Dataset:
        """Raises UsageError where the file has changed since."""
        trace = read_dataset(TraceFile(**fields["file"]), fields["rows"])
        require_same(trace, fields["sha256"])
        outputs = fields["output_tokens"]
        return cls(
            trace,
            fields["seed"],
            fields["rows"],
            None if outputs is None else parse_lengths(outputs, "output_tokens"),
            fields["salt"],
            fields["sampled"],
            Vocabulary.from_dict(fields["vocabulary"]),
        )

    def describe(self) -> dict[str, Any]:
        asked = {
            "name": self.name,
            "sha256": self.trace.sha256,
            "output_tokens": None if self.output_lengths is None else str(self.output_lengths),
            "sampled": self.sampled,
            "vocabulary": self.vocabulary.describe(),
        }
        return {
            **asked,
            "rows": len(self.asked),
            "later_turns_left_out": sum(not self._stands_alone(row) for row in self.trace.rows),
            "texts": sum(row.text is not None for row in self.asked),
            "shared_prefixes": any(row.blocks for row in self.asked),
            "sessions": sessions_of(self.asked),
            "seed": self.seed,
            "hash": hash_of(asked),
        }

    def notes(self) -> list[str]:
        """What of the file is not asked, for the terminal."""
        later = sum(not self._stands_alone(row) for row in self.trace.rows)
        unanswered = len(self.trace.rows) - later - len(self.asked)
        notes = [f"left out: {later:,} later turns of conversations, since each request is sent alone"] if later else []
        if unanswered:
            notes.append(f"left out: {unanswered:,} without the length of an answer; --output-tokens gives one")
        return notes


def dataset(
    source: Trace | TraceFile | str | Path,
    *,
    seed: int,
    rows: int = DATASET_ROWS,
    output_tokens: str | Lengths | None = None,
    salt: str = "",
    vocabulary: Vocabulary | None = None,
) -> Dataset:
    """A workload from the rows of a data set, or from its file. rows: how many are asked. Raises UsageError."""
    trace = source if isinstance(source, Trace) else read_dataset(TraceFile.of(source), rows)
    made = Dataset(
        trace,
        seed,
        rows,
        None if output_tokens is None else parse_lengths(output_tokens, "output_tokens"),
        salt,
        vocabulary=vocabulary or assumed_vocabulary(),
    )
    if not made.asked:
        raise UsageError("tells no length of an answer", where=trace.file.name, advice="Give --output-tokens.")
    return made
