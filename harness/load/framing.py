"""HTTP/1.1 answers as bytes: the head, and where the body's content lies and ends. Incremental, without a library."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

_HEAD_MOST, _SIZE_LINE_MOST = 64 << 10, 4 << 10
_DIGITS_MOST = 18  # of a length
_SHAPES_MOST = 8192


class ProtocolError(ValueError):
    """The bytes are not a valid HTTP/1.1 answer."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer. fields: names in lower case. length: None where the body ends otherwise.

    keep_alive: the connection may be used again after the body.
    """

    status: int
    fields: Mapping[bytes, bytes]
    keep_alive: bool
    chunked: bool
    length: int | None

    def body(self) -> Body:
        if self.chunked:
            return Chunked()
        return UntilClose() if self.length is None else Sized(self.length)


def split_head(raw: bytes) -> tuple[Head, bytes] | None:
    """The head of an answer and what follows it; None while it is not whole. Interim answers are passed over.

    Raises ProtocolError.
    """
    while True:
        end = raw.find(b"\r\n\r\n")
        if end < 0:
            if len(raw) > _HEAD_MOST:
                raise ProtocolError(f"a head of more than {_HEAD_MOST >> 10} KiB")
            return None
        head, raw = parse_head(raw[:end]), raw[end + 4 :]
        if head.status >= 200 or head.status == 101:
            return head, raw


def parse_head(raw: bytes) -> Head:
    """A head without its empty line."""
    first, *lines = raw.split(b"\r\n")
    version, _, rest = first.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise ProtocolError(f"no HTTP/1.1 status line: {first[:60]!r}")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    status = int(rest[:3])
    chunked = b"chunked" in fields.get(b"transfer-encoding", b"").lower()
    length = None if chunked else _length(fields)
    if status in (204, 304) or status < 200:
        chunked, length = False, 0
    connection = fields.get(b"connection", b"").lower()
    keep = b"close" not in connection and (version != b"HTTP/1.0" or b"keep-alive" in connection)
    return Head(status, fields, keep and (chunked or length is not None), chunked, length)


def _length(fields: Mapping[bytes, bytes]) -> int | None:
    text = fields.get(b"content-length")
    if text is not None and not (text.isdigit() and len(text) <= _DIGITS_MOST):
        raise ProtocolError("Content-Length is not a valid length")
    return None if text is None else int(text)


class Body(Protocol):
    """A body while it is read. complete: its end was seen. rest: bytes after the end. open_ended: ends with the
    connection.
    """

    complete: bool
    rest: bytes
    open_ended: bool

    def feed(self, reads: Sequence[bytes]) -> list[bytes]:
        """The content in each read, in the same order (b"" where there is none). Raises ProtocolError."""
        ...


class Sized:
    """A body of stated length."""

    open_ended = False

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete, self.rest = length == 0, b""

    def feed(self, reads: Sequence[bytes]) -> list[bytes]:
        found = []
        for data in reads:
            found.append(data[: self._left])
            self.rest += data[self._left :]
            self._left -= len(found[-1])
        self.complete = self._left == 0
        return found


class UntilClose:
    """A body that ends with the connection."""

    open_ended = True
    complete = False
    rest = b""

    def feed(self, reads: Sequence[bytes]) -> list[bytes]:
        return list(reads)


class Chunked:
    """A chunked body. Reads that are whole chunks, the usual case, cost one look-up each."""

    open_ended = False
    # The first five bytes of a chunk, its size line and perhaps a byte more -> where its content begins, its length.
    _shapes: ClassVar[dict[bytes, tuple[int, int]]] = {}

    def __init__(self) -> None:
        self.complete, self.rest = False, b""
        self._left = 0  # of the open chunk, its line end included
        self._carry = b""  # the beginning of a size line or trailer
        self._trailing = False

    def feed(self, reads: Sequence[bytes]) -> list[bytes]:
        shapes, found = self._shapes, []
        between = self._between
        for data in reads:
            if between:
                shape = shapes.get(data[:5])
                if shape is not None and len(data) == shape[1]:
                    found.append(data[shape[0] : -2])
                    continue
                if shape is not None and len(data) > shape[1]:
                    content, at = self._whole_chunks(data)
                    found.append(content + self._walk(data[at:]) if at < len(data) else content)
                    between = self._between
                    continue
            found.append(self._walk(data))
            between = self._between
        return found

    @property
    def _between(self) -> bool:
        """Whether the next byte begins a chunk."""
        return not (self._left or self._carry or self._trailing or self.complete)

    def _whole_chunks(self, data: bytes) -> tuple[bytes, int]:
        """The content of the chunks of known shape that `data` begins with, and where the rest begins."""
        at, pieces, shape = 0, [], self._shapes.get(data[:5])
        while shape is not None and at + shape[1] <= len(data):
            pieces.append(data[at + shape[0] : at + shape[1] - 2])
            at += shape[1]
            shape = self._shapes.get(data[at : at + 5])
        return b"".join(pieces), at

    def _walk(self, data: bytes) -> bytes:
        if self._carry:
            data, self._carry = self._carry + data, b""
        if self.complete:
            self.rest += data
            return b""
        at, pieces = 0, []
        while at < len(data) and not self.complete:
            if self._left > 2:
                pieces.append(data[at : at + self._left - 2])
                at += len(pieces[-1])
                self._left -= len(pieces[-1])
            elif self._left:
                at = self._line_end(data, at)
            else:
                at = self._line(data, at)
        return b"".join(pieces)

    def _line_end(self, data: bytes, at: int) -> int:
        """The CRLF after a chunk's content, perhaps cut."""
        taken = data[at : at + self._left]
        if taken != b"\r\n"[2 - self._left :][: len(taken)]:
            raise ProtocolError(f"expected the end of a chunk, found {taken!r}")
        self._left -= len(taken)
        return at + len(taken)

    def _line(self, data: bytes, at: int) -> int:
        """A size line or a line of the trailer."""
        end = data.find(b"\r\n", at)
        if end < 0:
            if len(data) - at > _SIZE_LINE_MOST:
                raise ProtocolError("a chunk's size line without an end")
            self._carry = data[at:]
            return len(data)
        line = data[at:end]
        if self._trailing:
            if not line:
                self.complete, self.rest = True, data[end + 2 :]
            return end + 2
        size = _size(line)
        if size == 0:
            self._trailing = True
            return end + 2
        if len(line) in (2, 3) and len(self._shapes) < _SHAPES_MOST:
            self._shapes[data[at : at + 5]] = (len(line) + 2, len(line) + 4 + size)
        self._left = size + 2
        return end + 2


def _size(line: bytes) -> int:
    text = line.partition(b";")[0].strip()
    if not _HEXADECIMAL.fullmatch(text):  # int() would take `0x1`, `+1` and `1_0` too
        raise ProtocolError(f"broken chunk size {line[:40]!r}")
    return int(text, 16)


_HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]{1,15}")
