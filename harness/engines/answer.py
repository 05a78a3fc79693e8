"""Answer: what the bytes of one answer said, at its end or while it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol


@dataclass(slots=True)
class Answer:
    """What the bytes of one answer said. Event indices refer to the slices that were given to the decoder.

    slice_of_event: for each event that carries tokens, the index of the slice in which its last byte arrived.
    token_count: tokens of each such event. first_content: index into these of the first event with text, None without.
    error_kind: None, or one of ERROR_KINDS. glued_events: events that arrived in a slice together with an earlier one.
    count_told, first_share: as in a RequestRecord. streamed: False for one document where a stream was asked for.
    error_message: what the service said of its error.
    """

    slice_of_event: list[int] = field(default_factory=list)
    token_count: list[int] = field(default_factory=list)
    first_content: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    error_kind: str | None = None
    glued_events: int = 0
    count_told: Literal["per_event", "per_answer"] | None = None
    first_share: float | None = None
    streamed: bool = True
    error_message: str | None = None


ERROR_KINDS = (
    "overloaded",  # no place in the batch or the queue: 429, 503 with words to that effect, or an error in a stream
    "not_ready",  # the engine is there, and its model is not loaded yet
    "validation",  # refused as malformed or too long
    "generation",  # failed while generating
    "incomplete",  # the engine ended without a final message
    "timeout",  # no complete answer within --timeout
    "refused",  # no connection
    "stream_broken",  # the connection ended in the middle of the answer
    "empty",  # a complete answer without a single token
    "protocol",  # bytes that are not an answer of this API
    "http",  # another HTTP error status
    "dropped",  # was due, but nobody was free to send it
)


class TokenEvents(NamedTuple):
    """Token events of an answer that is still coming. slices: in which each was complete. tokens: of each.

    Nothing before the first event with text, in which those before it are counted. until: the number of the next one.
    """

    slices: Sequence[int]
    tokens: Sequence[int]
    until: int


NO_EVENTS = TokenEvents((), (), 0)


class AnswerReader(Protocol):
    """One answer while it is read."""

    @property
    def over(self) -> bool:
        """The answer's own last message was read: what may follow on the connection adds nothing to it."""
        ...

    @property
    def events(self) -> int:
        """Token events so far; 0 where nothing can be said before the end."""
        ...

    @property
    def too_large(self) -> bool:
        """More came without an end than any answer has: it is given up, and what follows is not looked at."""
        ...

    def feed(self, slices: Sequence[bytes]) -> None:
        """The next slices of the body as they arrived, transfer coding removed; an empty one counts as a slice too."""
        ...

    def since(self, number: int) -> TokenEvents:
        """The events from this number on, as far as they can be told before the end."""
        ...

    def finish(self, *, complete: bool) -> Answer:
        """What the body said, in terms of all slices that were fed. complete: its end was seen."""
        ...


MOST_DOCUMENT = 64 << 20  # bytes of an answer that is one document


class WholeReading:
    """An answer of which nothing can be said before its end."""

    events = 0
    over = False
    too_large = False

    def since(self, number: int) -> TokenEvents:
        return NO_EVENTS

    def __init__(self, judge: Callable[[bytes, int, bool], Answer]) -> None:
        """judge: makes the Answer of the body, the number of its slices, and whether its end was seen."""
        self._judge, self._slices = judge, list[bytes]()
        self._size = 0

    def feed(self, slices: Sequence[bytes]) -> None:
        self._size += sum(map(len, slices))
        self.too_large = self._size > MOST_DOCUMENT
        self._slices.extend(b"" if self.too_large else each for each in slices)

    def finish(self, *, complete: bool) -> Answer:
        if self.too_large:
            return Answer(error_kind="too_large")
        return self._judge(b"".join(self._slices), len(self._slices), complete)


def read_all(reading: AnswerReader, slices: Sequence[bytes], *, complete: bool) -> Answer:
    """A whole answer at once."""
    reading.feed(slices)
    return reading.finish(complete=complete)
