"""Reads the text of an answer, for workloads that continue with it; apart from counts and moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from harness.engines.payload import json_object
from harness.engines.stream import Stream, event_end, event_fields


class Piece(NamedTuple):
    """What one event or document holds of the text. whole: it is all of it, whatever came before."""

    text: str
    whole: bool = False


class Texts(Protocol):
    """How an API tells text."""

    def text_in(self, payload: Mapping[str, Any]) -> Piece | None:
        """What this event or document holds; None where it holds none."""
        ...


class AnswerText:
    """Gathers the text of one answer from its body, in slices as they come: no more of the body is kept than half an
    event, or all of a document.
    """

    def __init__(self, api: Texts, *, stream: bool) -> None:
        self._api, self._stream = api, stream
        self._rest = b""
        self._pieces: list[str] = []
        self._whole: str | None = None

    def feed(self, slices: Sequence[bytes]) -> None:
        """The next slices of the body, transfer coding removed."""
        body = self._rest + b"".join(slices)
        if not self._stream or body.lstrip()[:1] == b"{":
            self._rest = body
            return
        at = 3 if body.startswith(b"\xef\xbb\xbf") else 0
        only_lf = b"\r" not in body
        while True:
            start, end = event_end(body, at, only_lf)
            if start < 0:
                break
            self._take(event_fields(body[at:start], _NOBODY)[0])
            at = end
        self._rest = body[at:]

    def finish(self) -> str:
        """All of the text. Halves of a character that came in two events are put together again."""
        if self._rest.strip():
            document = self._rest.lstrip()[:1] == b"{"
            self._take(self._rest if document else event_fields(self._rest, _NOBODY)[0])
            self._rest = b""
        text = "".join(self._pieces) if self._whole is None else self._whole
        # JSON may write a character beyond U+FFFF as two escapes; where they come apart, each is a lone surrogate.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _take(self, data: bytes | None) -> None:
        payload = json_object(data) if data is not None else None
        piece = None if payload is None else self._api.text_in(payload)
        if piece is None:
            return
        if piece.whole:
            self._whole = piece.text
        else:
            self._pieces.append(piece.text)


_NOBODY = Stream()
"""Takes note of what is odd about an event's lines; whoever counts the answer says it."""
