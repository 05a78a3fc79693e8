"""Request: one thing to ask of a model; Reply: the answer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

LEVEL_NUMBERS = 10_000_000
"""Request `index` of level `level` has the number `level * LEVEL_NUMBERS + index`; no level sends as many."""

Role = Literal["system", "user", "assistant"]


class Message(NamedTuple):
    """What one side of a conversation said."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and how much to answer.

    prompt: the text to send. input_tokens: its length in tokens as intended, with what was said before; the server's
    own count is what is recorded. max_new_tokens: the answer's bound in tokens. seed: for the engine's sampling; None
    asks for greedy decoding. session_id, turn: which conversation this belongs to (`a/b` is a sub-agent's, started by
    conversation a), and where in it, from 1. delay: seconds between the answer of the turn before and this one; None
    where there is none to tell, and for first turns. counted: False where the text was given and its length in tokens
    is only estimated. messages: what was said before the prompt. history_tokens: this many of input_tokens are what was
    said before. wants_answer: the workload is handed the answer with its text, which has to be read for it. purpose: of
    a request that is not a turn of the user's, such as `summary`.
    """

    prompt: str
    input_tokens: int
    max_new_tokens: int
    seed: int | None = None
    session_id: str | None = None
    turn: int | None = None
    delay: float | None = None
    counted: bool = True
    messages: tuple[Message, ...] = ()
    history_tokens: int | None = None
    wants_answer: bool = False
    purpose: str | None = None

    def asking_for(self, max_new_tokens: int) -> Request:
        """The same with another bound of the answer."""
        return self if max_new_tokens == self.max_new_tokens else replace(self, max_new_tokens=max_new_tokens)

    def as_messages(self) -> list[dict[str, str]]:
        """For APIs that take a conversation."""
        return [{"role": role, "content": content} for role, content in (*self.messages, ("user", self.prompt))]

    def as_text(self) -> str:
        """For APIs that take one text: what was said before and the prompt, parted by blank lines, without names."""
        return "\n\n".join([*(message.content for message in self.messages), self.prompt])


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. text: the model's own, to the character; empty where the request has no `wants_answer`.

    error: None, one of the error kinds of the records, or `in_flight` where it was given up. input_tokens,
    output_tokens: the server's own counts, None where it tells none.
    """

    text: str = ""
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None


Script = Generator[Request, Reply, str | None]
"""What one user does: yields a Request, is handed its Reply, yields the next. Returns how it ended: None or
`completed` in the usual way, `history_full`, `failed`."""


Player = Callable[[Any], Generator[Request, Reply, Any]]
"""Makes a conversation of a `Talk`, in place of the usual one."""


def alone(request: Request) -> Script:
    """A request that nothing follows."""
    yield request
    return None
