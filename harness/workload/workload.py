"""What is asked, as a value: lengths, prompts and a seed -> Requests by number, the same ones in every process.

A Workload travels to the load processes as JSON (`as_dict`, `from_dict`) and stands in the manifest as `describe` says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Protocol

from harness.errors import UsageError
from harness.workload.lengths import Lengths, mean, parse_lengths
from harness.workload.prompts import prompt, prompt_of_blocks
from harness.workload.request import Request
from harness.workload.seeds import derive, uniform
from harness.workload.traces import Trace, read_trace
from harness.workload.vocabulary import Vocabulary, assumed_vocabulary


class Workload(Protocol):
    """Requests by number, from 0. name: how reports call it."""

    @property
    def name(self) -> str: ...

    @property
    def offsets(self) -> tuple[float, ...] | None:
        """The moment of each request in seconds from the first, where the workload is a trace; else None."""
        ...

    def request(self, number: int) -> Request:
        """The same for the same number, in any process and order."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """What `from_dict` makes the same workload of; JSON."""
        ...

    def describe(self) -> dict[str, Any]:
        """For manifest and report: short, with the hash of what is asked."""
        ...


@dataclass(frozen=True)
class Drawn:
    """Lengths drawn from two distributions.

    salt: changes the words and nothing else. A run takes its own id, because an engine that is asked the same prompts
    by a second run would answer from its prefix cache. shared: so many tokens at the beginning are the same in all
    prompts, as a system prompt is. sampled: the engine samples, with a seed for each request, instead of decoding
    greedily.
    """

    name: str
    input_lengths: Lengths
    output_lengths: Lengths
    seed: int
    salt: str = ""
    shared: int = 0
    sampled: bool = False
    vocabulary: Vocabulary = field(default_factory=assumed_vocabulary)

    @property
    def offsets(self) -> None:
        return None

    def request(self, number: int) -> Request:
        asked = self.input_lengths.at(uniform(self.seed, "input length", number))
        text, tokens = prompt(self.vocabulary, asked, self.seed, self.salt, number, shared=self.shared)
        return Request(
            text,
            tokens,
            self.output_lengths.at(uniform(self.seed, "output length", number)),
            seed=derive(self.seed, "sampling", number) if self.sampled else None,
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": "drawn",
            "name": self.name,
            "input_tokens": str(self.input_lengths),
            "output_tokens": str(self.output_lengths),
            "seed": self.seed,
            "salt": self.salt,
            "shared": self.shared,
            "sampled": self.sampled,
            "vocabulary": self.vocabulary.as_dict(),
        }

    def describe(self) -> dict[str, Any]:
        asked = {
            "name": self.name,
            "input_tokens": str(self.input_lengths),
            "output_tokens": str(self.output_lengths),
            "shared_prefix_tokens": self.shared,
            "sampled": self.sampled,
            "vocabulary": self.vocabulary.describe(),
        }
        return {
            **asked,
            "mean_input_tokens": round(mean(self.input_lengths), 1),
            "mean_output_tokens": round(mean(self.output_lengths), 1),
            "seed": self.seed,
            "hash": _hash(asked),
        }


@dataclass(frozen=True)
class Replayed:
    """The rows of a trace, at their moments and with their lengths, whatever the service allows.

    A row that asks for no token is sent with one, the least that any engine accepts.
    """

    trace: Trace
    seed: int
    duration: float | None = None
    salt: str = ""
    sampled: bool = False
    vocabulary: Vocabulary = field(default_factory=assumed_vocabulary)

    @property
    def name(self) -> str:
        return "trace"

    @cached_property
    def offsets(self) -> tuple[float, ...]:
        return tuple(row.offset for row in self.trace.rows)

    def request(self, number: int) -> Request:
        row = self.trace.rows[number]
        text, tokens = prompt_of_blocks(
            self.vocabulary,
            row.input_tokens,
            self.seed,
            self.salt,
            number,
            row.blocks,
            self.trace.block_tokens or 1,
        )
        sampling = derive(self.seed, "sampling", number) if self.sampled else None
        return Request(text, tokens, max(1, row.output_tokens), seed=sampling)

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": "replayed",
            "path": self.trace.path,
            "sha256": self.trace.sha256,
            "duration": self.duration,
            "seed": self.seed,
            "salt": self.salt,
            "sampled": self.sampled,
            "vocabulary": self.vocabulary.as_dict(),
        }

    def describe(self) -> dict[str, Any]:
        rows = self.trace.rows
        asked = {
            "name": self.name,
            "sha256": self.trace.sha256,
            "duration": self.duration,
            "sampled": self.sampled,
            "vocabulary": self.vocabulary.describe(),
        }
        return {
            **asked,
            "requests": len(rows),
            "mean_input_tokens": round(sum(row.input_tokens for row in rows) / len(rows), 1),
            "mean_output_tokens": round(sum(row.output_tokens for row in rows) / len(rows), 1),
            "shared_prefixes": any(row.blocks for row in rows),
            "seed": self.seed,
            "hash": _hash(asked),
        }


def drawn(
    name: str,
    input_tokens: str,
    output_tokens: str,
    *,
    seed: int,
    salt: str = "",
    shared: int = 0,
    vocabulary: Vocabulary | None = None,
) -> Drawn:
    """A workload from the texts of its distributions. Raises UsageError."""
    return Drawn(
        name,
        parse_lengths(input_tokens),
        parse_lengths(output_tokens),
        seed,
        salt,
        shared,
        vocabulary=vocabulary or assumed_vocabulary(),
    )


def replayed(
    path: str, *, duration: float | None = None, seed: int, salt: str = "", vocabulary: Vocabulary | None = None
) -> Replayed:
    """A workload from a trace file. Raises UsageError."""
    trace = read_trace(path, duration)
    return Replayed(trace, seed, duration, salt, vocabulary=vocabulary or assumed_vocabulary())


def from_dict(fields: dict[str, Any]) -> Drawn | Replayed:
    """The workload that said this of itself with `as_dict`. Raises UsageError where its trace has changed since."""
    vocabulary = Vocabulary.from_dict(fields["vocabulary"])
    if fields["kind"] == "drawn":
        return Drawn(
            fields["name"],
            parse_lengths(fields["input_tokens"]),
            parse_lengths(fields["output_tokens"]),
            fields["seed"],
            fields["salt"],
            fields["shared"],
            fields["sampled"],
            vocabulary,
        )
    trace = read_trace(fields["path"], fields["duration"])
    if trace.sha256 != fields["sha256"]:
        raise UsageError("has changed since the run was planned", where=fields["path"], advice="Start the run again.")
    return Replayed(trace, fields["seed"], fields["duration"], fields["salt"], fields["sampled"], vocabulary)


def _hash(asked: dict[str, Any]) -> str:
    """Of what is asked, seed and salt left out: repeats of one workload with other seeds are the same workload."""
    return sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
