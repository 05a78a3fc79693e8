"""What an engine is to the rest of the harness, and the two nouns of talking to one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from harness.workload.request import Request


class Secret:
    """A value that never shows itself: `str` and `repr` give `[REDACTED]`, `reveal()` the value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "[REDACTED]"

    __str__ = __repr__


@dataclass(frozen=True)
class Endpoint:
    """Where a running service answers. url: scheme, host and port, without a trailing slash."""

    url: str
    api_key: Secret | None = None
    model_name: str = "tgi"


@dataclass(frozen=True)
class Call:
    """One HTTP request, ready to be written."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Answer:
    """What the bytes of one answer said. Event indices refer to the slices that were given to the decoder.

    slice_of_event: for each event that carries tokens, the index of the slice in which its last byte arrived.
    token_count: tokens of each such event. first_content: index into these of the first event with text, None without.
    error_kind: None, or one of ERROR_KINDS. glued_events: events that arrived in a slice together with an earlier one.
    """

    slice_of_event: list[int] = field(default_factory=list)
    token_count: list[int] = field(default_factory=list)
    first_content: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    error_kind: str | None = None
    glued_events: int = 0


ERROR_KINDS = (
    "overloaded",  # no permit: 429, or the error event of a stream
    "validation",  # refused as malformed or too long
    "generation",  # failed while generating
    "incomplete",  # the engine ended without a final message
    "timeout",  # no complete answer within --timeout
    "refused",  # no connection
    "stream_broken",  # the connection ended in the middle of the answer
    "empty",  # a complete answer without a single token
    "protocol",  # bytes that are no answer of this API
    "http",  # another HTTP error status
    "dropped",  # was due, but nobody was free to send it
)


class News(NamedTuple):
    """Token events of an answer that is still coming. slices: in which each was complete. tokens: of each.

    Nothing before the first event with text, in which those before it are counted. until: the number of the next one.
    """

    slices: Sequence[int]
    tokens: Sequence[int]
    until: int


NO_NEWS = News((), (), 0)


class Reading(Protocol):
    """One answer while it is read."""

    @property
    def events(self) -> int:
        """Token events so far; 0 where nothing can be said before the end."""
        ...

    def feed(self, slices: Sequence[bytes]) -> None:
        """The next slices of the body as they arrived, transfer coding removed; an empty one counts as a slice too."""
        ...

    def since(self, number: int) -> News:
        """The events from this number on, as far as they can be told before the end."""
        ...

    def finish(self, *, complete: bool) -> Answer:
        """What the body said, in terms of all slices that were fed. complete: its end was seen."""
        ...


class WholeReading:
    """An answer of which nothing can be said before its end."""

    events = 0

    def since(self, number: int) -> News:
        return NO_NEWS

    def __init__(self, judge: Callable[[bytes, int, bool], Answer]) -> None:
        """judge: makes the Answer of the body, the number of its slices, and whether its end was seen."""
        self._judge, self._slices = judge, list[bytes]()

    def feed(self, slices: Sequence[bytes]) -> None:
        self._slices.extend(slices)

    def finish(self, *, complete: bool) -> Answer:
        return self._judge(b"".join(self._slices), len(self._slices), complete)


def read_all(reading: Reading, slices: Sequence[bytes], *, complete: bool) -> Answer:
    """A whole answer at once."""
    reading.feed(slices)
    return reading.finish(complete=complete)


class Api(Protocol):
    """One HTTP API for generating text: how to ask, and how to read the answer."""

    name: str

    def encode(self, request: Request, request_id: str, model_name: str, *, stream: bool) -> Call:
        """The call that asks this; carries the header `x-request-id`."""
        ...

    def decode(self, http_status: int, slices: Sequence[bytes], *, stream: bool, complete: bool) -> Answer:
        """What the body says.

        slices: the body as it arrived, transfer coding removed. complete: the body's end was seen.
        """
        ...

    def reading(self, http_status: int, *, stream: bool) -> Reading:
        """The same for an answer that is read as it comes."""
        ...


@dataclass(frozen=True)
class EngineLimits:
    """What a running engine allows; None where it does not tell. Counts are tokens unless the name says otherwise."""

    max_input_tokens: int | None = None
    max_total_tokens: int | None = None
    max_batch_prefill_tokens: int | None = None
    max_batch_total_tokens: int | None = None
    max_concurrent_requests: int | None = None
    max_batch_size: int | None = None


@dataclass(frozen=True)
class EngineInfo:
    """Who answers at an endpoint. emulated: it said of itself that it is the emulator."""

    engine: str
    version: str | None
    model_id: str | None
    emulated: bool
    limits: EngineLimits
    raw: Mapping[str, object] = field(default_factory=dict)
