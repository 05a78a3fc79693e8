"""A workload from a trace: its rows at their moments, with their lengths and shared beginnings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.workload.hashing import hash_of
from harness.workload.request import Request
from harness.workload.rows import request_of
from harness.workload.single import SingleRequests
from harness.workload.traces.read import Trace, TraceFile, read_trace, sessions_of
from harness.workload.traces.waits import Wait, waits_of
from harness.workload.traces.window import Window
from harness.workload.vocabulary import Vocabulary, assumed_vocabulary


@dataclass(frozen=True)
class ReplayedWorkload(SingleRequests):
    """The rows of a trace, whatever the service allows. window: which of them, and how much faster."""

    trace: Trace
    window: Window
    seed: int
    salt: str = ""
    sampled: bool = False
    vocabulary: Vocabulary = field(default_factory=assumed_vocabulary)

    @property
    def name(self) -> str:
        return "trace"

    @cached_property
    def offsets(self) -> tuple[float, ...]:
        return tuple(row.offset for row in self.trace.rows)

    @cached_property
    def waits(self) -> tuple[Wait, ...]:
        """Of each request the answers that it waits for."""
        return waits_of(self.trace.rows)

    def lengths(self, number: int) -> tuple[int | None, int]:
        row = self.trace.rows[number]
        return row.input_tokens, max(1, row.output_tokens or 0)

    def request(self, number: int) -> Request:
        row, block = self.trace.rows[number], self.trace.block_tokens
        return request_of(row, self.vocabulary, block, self.seed, self.salt, number, sampled=self.sampled)

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": "replayed",
            "file": asdict(self.trace.file),
            "window": asdict(self.window),
            "sha256": self.trace.sha256,
            "seed": self.seed,
            "salt": self.salt,
            "sampled": self.sampled,
            "vocabulary": self.vocabulary.as_dict(),
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ReplayedWorkload:
        """Raises UsageError where the file has changed since."""
        window = Window(**fields["window"])
        trace = read_trace(TraceFile(**fields["file"]), window)
        require_same(trace, fields["sha256"])
        return cls(
            trace, window, fields["seed"], fields["salt"], fields["sampled"], Vocabulary.from_dict(fields["vocabulary"])
        )

    def describe(self) -> dict[str, Any]:
        rows = self.trace.rows
        told = [row.input_tokens for row in rows if row.input_tokens is not None]
        asked = {
            "name": self.name,
            "sha256": self.trace.sha256,
            **asdict(self.window),
            "sampled": self.sampled,
            "vocabulary": self.vocabulary.describe(),
        }
        return {
            **asked,
            "requests": len(rows),
            "mean_input_tokens": round(sum(told) / len(told), 1) if told else None,
            "mean_output_tokens": round(sum(row.output_tokens or 0 for row in rows) / len(rows), 1),
            "shared_prefixes": any(row.blocks for row in rows),
            "sessions": sessions_of(rows),
            "waiting_turns": sum(bool(wait.answers) for wait in self.waits),
            "recorded_pauses": sum(wait.pause is not None for wait in self.waits),
            "seed": self.seed,
            "hash": hash_of(asked),
        }


def replayed(
    source: Trace | TraceFile | str | Path,
    window: Window | None = None,
    *,
    seed: int,
    salt: str = "",
    vocabulary: Vocabulary | None = None,
) -> ReplayedWorkload:
    """A workload from a trace, or from its file. window: what was, or is to be, read of it. Raises UsageError."""
    window = window or Window()
    trace = source if isinstance(source, Trace) else read_trace(TraceFile.of(source), window)
    return ReplayedWorkload(trace, window, seed, salt, vocabulary=vocabulary or assumed_vocabulary())


def require_same(trace: Trace, sha256: str) -> None:
    """The processes of one run must send the same. Raises UsageError."""
    if trace.sha256 != sha256:
        found = "has changed since the run was planned"
        raise UsageError(found, where=trace.file.name, advice="Start the run again.")
