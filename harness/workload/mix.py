"""Several workloads as one: those of the user classes of a locustfile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.workload.chat import Chat
from harness.workload.drawn import DrawnWorkload
from harness.workload.hashing import hash_of
from harness.workload.request import Player, Script

SLOTS = 10  # workloads of a mix: divides the numbers that a level has


@dataclass(frozen=True)
class Mix:
    """The last digit of a number says whose it is. weights: how often each is meant, for the manifest."""

    parts: tuple[DrawnWorkload | Chat, ...]
    weights: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        return "+".join(dict.fromkeys(part.name for part in self.parts))

    @property
    def offsets(self) -> None:
        return None

    @property
    def converses(self) -> bool:
        return any(part.converses for part in self.parts)

    def start(self, number: int, player: Player | None = None) -> Script:
        return self.parts[number % SLOTS].start(number // SLOTS, player)

    def lengths(self, number: int) -> tuple[int, int]:
        """By turns, as if all were asked alike."""
        return self.parts[number % len(self.parts)].lengths(number // len(self.parts))

    def pause_after(self, number: int) -> float:
        return self.parts[number % SLOTS].pause_after(number // SLOTS)

    def as_dict(self) -> dict[str, Any]:
        return {"kind": "mix", "parts": [part.as_dict() for part in self.parts], "weights": list(self.weights)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Mix:
        """Raises UsageError."""
        kinds: dict[str, type[DrawnWorkload | Chat]] = {"drawn": DrawnWorkload, "chat": Chat}
        parts = tuple(kinds[each["kind"]].from_dict(each) for each in fields["parts"])
        return cls(parts, tuple(fields["weights"]))

    def describe(self) -> dict[str, Any]:
        if len(self.parts) == 1:
            return self.parts[0].describe()
        parts = [part.describe() for part in self.parts]
        asked = {"name": self.name, "weights": list(self.weights)}
        return {**asked, "parts": parts, "hash": hash_of({**asked, "parts": [part["hash"] for part in parts]})}
