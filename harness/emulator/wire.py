"""Reads request heads and bodies as hyper does: what it accepts, what it refuses, and with which status."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]+)[ \t]*(;[^\r\n]*)?\r?\n")
_LONGEST_HEAD = 400 * 1024
_LONGEST_TARGET = 65534
_MOST_HEADERS = 100
PREFACE = b"PRI * HTTP/2.0\r\n"


class BadRequest(Exception):
    """A head that is answered with this status and an empty body; the connection ends."""

    def __init__(self, status: int = 400) -> None:
        self.status = status
        super().__init__(str(status))


class BadBody(Exception):
    """A chunked body that cannot be read."""


@dataclass
class Head:
    """One request head. length: of the body, None for a chunked one. minor: of HTTP/1.x. Header names in lower case."""

    method: str
    path: str
    minor: int
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = 0

    @property
    def keep_alive(self) -> bool:
        options = {part.strip().lower() for part in self.headers.get("connection", "").split(",")}
        return "close" not in options if self.minor else "keep-alive" in options


def read_head(buffer: bytearray) -> Head | None:
    """Take the next head out of the buffer; None while it is incomplete. Raises BadRequest."""
    while buffer[:1] in (b"\r", b"\n"):
        del buffer[:1]
    end = _HEAD_END.search(buffer)
    if end is None:
        if len(buffer) > _LONGEST_HEAD:
            raise BadRequest(431)
        _check_first_line(buffer)
        return None
    lines = bytes(buffer[: end.start()]).split(b"\n")
    if end.start() > _LONGEST_HEAD:
        raise BadRequest(414 if len(lines[0]) > _LONGEST_TARGET else 431)
    head = _request_line(lines[0].removesuffix(b"\r"))
    _headers(head, lines[1:])
    del buffer[: end.end()]
    return head


def _check_first_line(buffer: bytearray) -> None:
    """Refuse what cannot become a request before all of it is here."""
    line, newline, _ = bytes(buffer[: _LONGEST_TARGET + 64]).partition(b"\n")
    if newline and not buffer.startswith(PREFACE[:4]):
        _request_line(line.removesuffix(b"\r"))


def _request_line(line: bytes) -> Head:
    method, _, rest = line.partition(b" ")
    target, _, version = rest.rpartition(b" ")
    if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target) or not _is_utf8(target):
        raise BadRequest
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise BadRequest
    if len(target) > _LONGEST_TARGET:
        raise BadRequest(414)
    return Head(method.decode(), _path(target.decode("latin-1")), int(version[-1:]))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _path(target: str) -> str:
    """The path of a target in origin, absolute or asterisk form, without query and fragment."""
    if "://" in target.partition("/")[0] + "//" and not target.startswith("/"):
        scheme, found, rest = target.partition("://")
        if found and scheme.isalpha():
            target = "/" + rest.partition("/")[2] if "/" in rest else "/"
    return target.partition("#")[0].partition("?")[0]


def _headers(head: Head, lines: list[bytes]) -> None:
    if len(lines) > _MOST_HEADERS:
        raise BadRequest(431)
    lengths: set[str] = set()
    codings: list[str] = []
    for line in lines:
        name, colon, value = line.removesuffix(b"\r").partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadRequest
        key, text = name.decode().lower(), value.decode("latin-1").strip(" \t")
        if key == "content-length":
            lengths.add(text)
        elif key == "transfer-encoding":
            codings += [part.strip().lower() for part in text.split(",")]
        head.headers.setdefault(key, text)
    _framing(head, lengths, codings)


def _framing(head: Head, lengths: set[str], codings: list[str]) -> None:
    if codings:
        if codings[-1] != "chunked" or head.minor == 0:
            raise BadRequest
        head.length = None
    elif lengths:
        text = lengths.pop()
        if lengths or not (text.isascii() and text.isdigit()):
            raise BadRequest
        head.length = int(text)


class Body:
    """A body that is arriving. limit: bytes to keep; what comes beyond is counted, not kept."""

    def __init__(self, length: int | None, limit: int) -> None:
        self.data = bytearray()
        self.received = 0
        self.complete = length == 0
        self.trailers = False
        self._limit = limit
        self._left = length
        self._chunk: int | None = None  # bytes left of the current chunk, with its line end
        self._in_trailers = False

    @property
    def too_large(self) -> bool:
        return self.received > self._limit

    def take(self, buffer: bytearray) -> None:
        """Move what belongs to this body out of the buffer. Raises BadBody."""
        if self._left is not None:
            part = min(self._left, len(buffer))
            self._keep(buffer, part)
            self._left -= part
            self.complete = self._left == 0
            return
        while not self.complete and buffer:
            if not self._take_chunk(buffer):
                return

    def _keep(self, buffer: bytearray, count: int) -> None:
        self.received += count
        if len(self.data) <= self._limit:
            self.data += buffer[:count]
        del buffer[:count]

    def _take_chunk(self, buffer: bytearray) -> bool:
        """One step through the chunks; False when more bytes are needed."""
        if self._in_trailers:
            return self._take_trailer(buffer)
        if self._chunk is None:
            line = _CHUNK_SIZE.match(buffer)
            if line is None:
                if b"\n" in buffer or len(buffer) > 4096:
                    raise BadBody
                return False
            self._chunk = int(line[1], 16)
            del buffer[: line.end()]
            self._in_trailers = self._chunk == 0
            return True
        if self._chunk:
            part = min(self._chunk, len(buffer))
            self._keep(buffer, part)
            self._chunk -= part
            return bool(buffer)
        return self._take_line_end(buffer)

    def _take_line_end(self, buffer: bytearray) -> bool:
        if buffer.startswith(b"\r\n"):
            del buffer[:2]
        elif buffer == b"\r":
            return False
        else:
            raise BadBody
        self._chunk = None
        return True

    def _take_trailer(self, buffer: bytearray) -> bool:
        line, newline, _ = bytes(buffer).partition(b"\n")
        if not newline:
            return False
        del buffer[: len(line) + 1]
        if line.strip() == b"":
            self.complete = True
        else:
            self.trailers = True
        return True
