"""Where an HTTP/1.1 answer ends, and what its body is: pure functions of the bytes as they were read.

The hot path only asks `Framing.ended`, which looks at a few bytes per read; everything else runs after the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

_LAST_CHUNK = b"0\r\n\r\n"


class ProtocolError(ValueError):
    """The bytes are no HTTP/1.1 answer."""


class Framing:
    """The framing of one answer, learnt from its head.

    status: of the answer. fields: its headers, names in lower case. body_at: where the body begins in the joined
    bytes. mode: `chunked`, `length`, `close` (until the connection ends) or `none`. keep_alive: the connection may be
    used again.
    """

    __slots__ = ("body_at", "fields", "keep_alive", "length", "mode", "status")

    def __init__(self, head: bytes, body_at: int) -> None:
        lines = head.split(b"\r\n")
        version, _, rest = lines[0].partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise ProtocolError(f"no HTTP/1.1 status line: {lines[0][:60]!r}")
        fields = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])
        }
        self.status, self.fields = int(rest[:3]), fields
        self.body_at = body_at
        self.length = 0
        connection = fields.get(b"connection", b"").lower()
        self.keep_alive = b"close" not in connection and (version != b"HTTP/1.0" or b"keep-alive" in connection)
        if self.status in (204, 304):
            self.mode = "none"
        elif b"chunked" in fields.get(b"transfer-encoding", b"").lower():
            self.mode = "chunked"
        elif b"content-length" in fields:
            if not fields[b"content-length"].isdigit():
                raise ProtocolError("Content-Length is no number")
            self.mode, self.length = "length", int(fields[b"content-length"])
        else:
            self.mode, self.keep_alive = "close", False

    def ended(self, slices: Sequence[bytes], total: int) -> bool:
        """Whether the answer is whole. slices: all reads so far; total: their length.

        In a chunked body the cheap look at the tail only raises the question; the chunks themselves answer it.
        """
        if self.mode == "chunked":
            tail = slices[-1]
            if len(tail) < 5 and len(slices) > 1:
                tail = b"".join(slices[-6:])
            return tail.endswith(_LAST_CHUNK) and chunks_end(b"".join(slices), self.body_at) is not None
        if self.mode == "length":
            return total - self.body_at >= self.length
        return self.mode == "none"


def read_head(joined: bytes) -> Framing | None:
    """The framing of an answer whose first bytes these are; None while its head is not whole.

    Interim answers (100 Continue) are passed over. Raises ProtocolError.
    """
    start = 0
    while True:
        end = joined.find(b"\r\n\r\n", start)
        if end < 0:
            if len(joined) - start > 65536:
                raise ProtocolError("head of more than 64 KiB")
            return None
        framing = Framing(joined[start:end], end + 4)
        if framing.status >= 200 or framing.status == 101:
            return framing
        start = end + 4


def chunks_end(joined: bytes, at: int) -> int | None:
    """Where a chunked body that starts at `at` ends, without trailers; None while it is not whole."""
    while True:
        line = joined.find(b"\r\n", at)
        if line < 0:
            return None
        size = _size(joined[at:line])
        at = line + 2 + size + 2
        if size == 0:
            return at if at <= len(joined) else None
        if at > len(joined):
            return None


def body_slices(slices: Sequence[bytes], framing: Framing) -> tuple[list[bytes], bool]:
    """The body's bytes in each read, transfer coding removed, and whether the body is whole.

    As many slices come out as reads went in, some of them empty. Raises ProtocolError for a broken chunk.
    """
    pieces, rest = [], framing.body_at
    for each in slices:
        pieces.append(each[rest:] if rest else each)
        rest = max(0, rest - len(each))
    if framing.mode == "chunked":
        return _without_chunks(pieces)
    if framing.mode == "length":
        return pieces, sum(map(len, pieces)) >= framing.length
    return pieces, True


def _without_chunks(pieces: list[bytes]) -> tuple[list[bytes], bool]:
    found: list[bytes] = []
    left = 0  # bytes of the current chunk that are still to come, its line end included
    carried = b""  # a size line that a read cut
    for piece in pieces:
        data = carried + piece if carried else piece
        carried = b""
        if not left:
            line = data.find(b"\r\n")
            size = _size(data[:line]) if line > 0 else 0
            if size and len(data) == line + size + 4:  # the usual case: one whole chunk in one read
                found.append(data[line + 2 : -2])
                continue
        body, left, carried, ended = _walk(data, left)
        found.append(body)
        if ended:
            return found + [b""] * (len(pieces) - len(found)), True
    return found, False


def _walk(data: bytes, left: int) -> tuple[bytes, int, bytes, bool]:
    """One read of a chunked body: content, what is left of the last chunk, a cut size line, whether it ended."""
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        if left:
            content = max(0, min(left - 2, len(data) - at))
            parts.append(data[at : at + content])
            taken = min(left, len(data) - at)
            at, left = at + taken, left - taken
            continue
        line = data.find(b"\r\n", at)
        if line < 0:
            return b"".join(parts), 0, data[at:], False
        size = _size(data[at:line])
        if size == 0:
            return b"".join(parts), 0, b"", True
        at, left = line + 2, size + 2
    return b"".join(parts), left, b"", False


def _size(line: bytes) -> int:
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        raise ProtocolError(f"broken chunk size {line[:40]!r}") from None
