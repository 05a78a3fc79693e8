"""One thing to ask of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace

LEVEL_NUMBERS = 10_000_000
"""Request `index` of level `level` has the number `level * LEVEL_NUMBERS + index`; no level sends as many."""


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and how much to answer.

    prompt: the text to send. input_tokens: its length in tokens as intended; the server's own count is what is
    recorded. max_new_tokens: the answer's bound in tokens. seed: for the engine's sampling; None asks for greedy
    decoding. session_id, turn: which conversation this belongs to (`a/b` is a sub-agent's, started by conversation a),
    and where in it, from 1. delay: seconds between the answer of the turn before and this one, where a trace tells
    them; None where it does not, and for first turns. counted: False where the text was given and its length in tokens
    is only estimated.
    """

    prompt: str
    input_tokens: int
    max_new_tokens: int
    seed: int | None = None
    session_id: str | None = None
    turn: int | None = None
    delay: float | None = None
    counted: bool = True

    def asking_for(self, max_new_tokens: int) -> Request:
        """The same with another bound of the answer."""
        return self if max_new_tokens == self.max_new_tokens else replace(self, max_new_tokens=max_new_tokens)
