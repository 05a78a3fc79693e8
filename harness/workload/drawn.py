"""A workload whose lengths are drawn at random: from two distributions, or from the pairs of a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.workload.hashing import hash_of
from harness.workload.lengths import Lengths, mean, of_recorded, parse_lengths, recorded_pairs
from harness.workload.prompts import prompt
from harness.workload.recorded import RecordedLengths
from harness.workload.request import Request
from harness.workload.seeds import derive, uniform
from harness.workload.single import SingleRequests
from harness.workload.vocabulary import Vocabulary, assumed_vocabulary


@dataclass(frozen=True)
class DrawnWorkload(SingleRequests):
    """Lengths drawn from two distributions, or, with pairs, both at once from one row of a file.

    salt: changes the words and nothing else. A run takes its own id, because an engine that is asked the same prompts
    by a second run would answer from its prefix cache. shared: this many tokens at the beginning are the same in all
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
    pairs: RecordedLengths | None = None

    @property
    def offsets(self) -> None:
        return None

    def lengths(self, number: int) -> tuple[int, int]:
        """Tokens that request `number` asks with, and asks for."""
        if self.pairs is not None:
            return self.pairs.at(uniform(self.seed, "lengths", number))
        return (
            self.input_lengths.at(uniform(self.seed, "input length", number)),
            self.output_lengths.at(uniform(self.seed, "output length", number)),
        )

    def request(self, number: int) -> Request:
        asked, answer = self.lengths(number)
        text, tokens = prompt(self.vocabulary, asked, self.seed, self.salt, number, shared=self.shared)
        return Request(text, tokens, answer, seed=derive(self.seed, "sampling", number) if self.sampled else None)

    def as_dict(self) -> dict[str, Any]:
        pairs = self.pairs
        return {
            "kind": "drawn",
            "name": self.name,
            "input_tokens": self.input_lengths.text() if pairs is None else None,
            "output_tokens": self.output_lengths.text() if pairs is None else None,
            "pairs": None if pairs is None else [*vars(pairs).values()],
            "seed": self.seed,
            "salt": self.salt,
            "shared": self.shared,
            "sampled": self.sampled,
            "vocabulary": self.vocabulary.as_dict(),
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> DrawnWorkload:
        """Raises UsageError."""
        pairs = None
        if fields["pairs"] is not None:
            name, listed, *rest = fields["pairs"]
            pairs = RecordedLengths(name, tuple((asked, answer) for asked, answer in listed), *rest)
        inputs, outputs = (
            of_recorded(pairs, side) if pairs is not None else parse_lengths(fields[side])
            for side in ("input_tokens", "output_tokens")
        )
        return cls(
            fields["name"],
            inputs,
            outputs,
            fields["seed"],
            fields["salt"],
            fields["shared"],
            fields["sampled"],
            Vocabulary.from_dict(fields["vocabulary"]),
            pairs,
        )

    def describe(self) -> dict[str, Any]:
        asked = {
            "name": self.name,
            "input_tokens": str(self.input_lengths),
            "output_tokens": str(self.output_lengths),
            "shared_prefix_tokens": self.shared,
            "sampled": self.sampled,
            "vocabulary": self.vocabulary.describe(),
        }
        if self.pairs is not None:
            asked["lengths"] = "prompt and answer drawn together, as pairs"
        return {
            **asked,
            "mean_input_tokens": round(mean(self.input_lengths), 1),
            "mean_output_tokens": round(mean(self.output_lengths), 1),
            **self.vocabulary.framing(),
            "seed": self.seed,
            "hash": hash_of(asked),
        }


def drawn(
    name: str,
    input_tokens: str | Lengths,
    output_tokens: str | Lengths,
    *,
    seed: int,
    salt: str = "",
    shared: int = 0,
    vocabulary: Vocabulary | None = None,
) -> DrawnWorkload:
    """A workload from its distributions, or their texts. Raises UsageError."""
    inputs, outputs = parse_lengths(input_tokens, "input_tokens"), parse_lengths(output_tokens, "output_tokens")
    return DrawnWorkload(
        name,
        inputs,
        outputs,
        seed,
        salt,
        shared,
        vocabulary=vocabulary or assumed_vocabulary(),
        pairs=recorded_pairs(inputs, outputs),
    )
