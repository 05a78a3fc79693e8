"""The protocol of an HTTP API for generating text: encodes requests and decodes answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.engines.answer import Answer, AnswerReader
from harness.engines.answer_text import Piece
from harness.workload.request import Request


@dataclass(frozen=True)
class Call:
    """One HTTP request, ready to be written."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Extras:
    """Fields of a request's body that only some engines know.

    exact: make an answer as long as was asked, whatever the model would do. least: the field that takes the least
    number of tokens, for the same end; None without one. counts: make a stream tell in each event how many tokens there
    are so far; a mapping in it is merged with the common one of that name.
    """

    exact: Mapping[str, Any] = field(default_factory=dict)
    least: str | None = None
    counts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sets_length(self) -> bool:
        """Whether an answer is exactly as long as was asked."""
        return bool(self.exact or self.least)

    def body(self, tokens: int, *, stream: bool) -> dict[str, Any]:
        """The fields for an answer of this many tokens."""
        least = {} if self.least is None else {self.least: tokens}
        return {**self.exact, **least, **(self.counts if stream else {})}

    def as_dict(self) -> dict[str, Any]:
        return {"exact": dict(self.exact), "least": self.least, "counts": dict(self.counts)}


NO_EXTRAS = Extras()


class Api(Protocol):
    """One HTTP API for generating text: how to ask, and how to read the answer."""

    name: str
    counts_events: bool
    """Whether each event of a stream is one token by the API's own rule, so that counts are known before the end."""

    def encode(
        self, request: Request, request_id: str, model_name: str, *, stream: bool, extras: Extras = NO_EXTRAS
    ) -> Call:
        """The call that asks this; carries the header `x-request-id`. extras: what the engine that answers knows."""
        ...

    def decode(self, http_status: int, slices: Sequence[bytes], *, stream: bool, complete: bool) -> Answer:
        """What the body says.

        slices: the body as it arrived, transfer coding removed. complete: the body's end was seen.
        """
        ...

    def reading(self, http_status: int, *, stream: bool) -> AnswerReader:
        """The same for an answer that is read as it comes."""
        ...

    def text_in(self, payload: Mapping[str, Any]) -> Piece | None:
        """What an event of a stream, or a document, holds of the answer's text; None where it holds none."""
        ...
