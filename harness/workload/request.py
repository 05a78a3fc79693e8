"""One thing to ask of a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and how much to answer.

    prompt: the text to send. input_tokens: its length in tokens as intended (the server's own count is what is
    recorded). max_new_tokens: the answer's bound in tokens. seed: for the engine's sampling; None asks for greedy
    decoding. session_id, turn: which conversation this belongs to, and where in it.
    """

    prompt: str
    input_tokens: int
    max_new_tokens: int
    seed: int | None = None
    session_id: str | None = None
    turn: int | None = None
