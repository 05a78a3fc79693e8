"""HTTP/1.1 on one connection as hyper speaks it: framing, keep-alive, pipelining, and one write per event.

A response is written by an Exchange, at once or as a stream of chunks; what is written to the socket, and when, is
decided here and in `faults` only.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from typing import Any, Protocol

from harness.emulator.wire import PREFACE, BadBody, BadRequest, Body, Head, read_head

Headers = Iterable[tuple[str, str]]

_MOST_UNREAD = 1 << 20  # bytes of pipelined requests that are kept while an answer is made
_LINGER = 1.0  # seconds

REASONS = {
    200: "OK",
    303: "See Other",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Payload Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    422: "Unprocessable Entity",
    424: "Failed Dependency",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


class Application(Protocol):
    """What answers requests."""

    payload_limit: int

    def early(self, exchange: Exchange) -> bool:
        """Answer from the head alone if it decides already (404, 401, 415 ...); True when it did."""
        ...

    def handle(self, exchange: Exchange) -> None:
        """Answer, now or later. The body is complete."""
        ...

    def unreadable(self, exchange: Exchange, *, too_large: bool) -> None:
        """Answer a body that is beyond the limit, or that broke off."""
        ...

    def cross_origin(self, exchange: Exchange) -> list[tuple[str, str]]:
        """The headers that every answer carries."""
        ...

    def opened(self, connection: Connection) -> None: ...
    def closed(self, connection: Connection) -> None: ...


class Exchange:
    """One request and its answer. Everything that is sent goes through here."""

    __slots__ = ("body", "chunked", "connection", "finished", "head", "keep_alive", "on_gone", "quiet_close")

    def __init__(self, connection: Connection, head: Head) -> None:
        self.connection, self.head = connection, head
        self.body: bytes = b""
        self.keep_alive = head.keep_alive
        self.quiet_close = False  # close after the answer without saying so
        self.chunked = False
        self.finished = False
        self.on_gone: Callable[[], None] | None = None

    @property
    def method(self) -> str:
        return self.head.method

    @property
    def path(self) -> str:
        return self.head.path

    @property
    def headers(self) -> dict[str, str]:
        return self.head.headers

    def respond(
        self, status: int, headers: Headers = (), body: bytes = b"", last: Sequence[tuple[str, str]] = ()
    ) -> None:
        """A whole answer in one write. last: headers that follow those of cross-origin sharing."""
        if self.finished:
            return
        head = self._head(status, headers, [*last, ("content-length", str(len(body)))])
        self.connection.write(head if self.method == "HEAD" else head + body)
        self.finish()

    def start_stream(self, headers: Headers) -> None:
        """The head of a streamed answer; the body follows event by event."""
        self.chunked = self.head.minor >= 1
        coding = [("transfer-encoding", "chunked")] if self.chunked else []
        if not self.chunked:
            self.keep_alive = False
        self.connection.write(self._head(200, headers, coding))

    def send(self, data: bytes) -> None:
        """One event: one chunk, one write."""
        self.connection.write(b"%X\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def end_stream(self) -> None:
        if self.chunked:
            self.connection.write(b"0\r\n\r\n")
        self.finish()

    def finish(self) -> None:
        """The answer is complete; the connection goes on to the next request, or closes."""
        if not self.finished:
            self.finished = True
            self.connection.answered(self)

    def cut(self) -> None:
        """Close the connection in the middle of the answer, after what was written so far."""
        self.finished = True
        self.connection.transport.close()

    def _head(self, status: int, headers: Headers, framing: Headers) -> bytes:
        connection = self.connection
        lines = [f"HTTP/1.{self.head.minor} {status} {REASONS[status]}"]
        ordered = (*headers, *connection.application.cross_origin(self), *framing)
        lines += [f"{name}: {value}" for name, value in ordered]
        if connection.closing:
            self.keep_alive = False
        if not self.keep_alive and self.head.minor:
            lines.append("connection: close")
        elif self.keep_alive and not self.head.minor:
            lines.append("connection: keep-alive")
        lines.append(f"date: {formatdate(usegmt=True)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Connection(asyncio.Protocol):
    """One client's connection. A request is read only when the answer before it is complete."""

    def __init__(self, application: Application, nodelay: bool = True) -> None:
        self.application = application
        self._nodelay = nodelay
        self.lost = False
        self.closing = False
        self.transport: Any = None
        self.write: Callable[[bytes], object] = _nowhere
        self._buffer = bytearray()
        self._current: Exchange | None = None
        self._body: Body | None = None  # of the current request, while it is arriving
        self._discard = False  # the current request is answered; the rest of its body is not wanted
        self._silent = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.write = self.transport.write
        self.transport.set_write_buffer_limits(high=1 << 30)
        # The event loop sets it on every connection.
        self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(self._nodelay))
        self.application.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._silent:
            return
        self._buffer += data
        if len(self._buffer) > _MOST_UNREAD and self._current is not None and self._body is None:
            self.transport.pause_reading()
        self._advance()

    def eof_received(self) -> bool:
        """A client that closes its side is gone, except that one whose body broke off is told so."""
        exchange = self._current
        if exchange is not None and self._body is not None and not exchange.finished:
            self._body = None
            exchange.quiet_close = True
            self.application.unreadable(exchange, too_large=False)
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = True
        self.write = _nowhere
        current, self._current = self._current, None
        if current is not None and current.on_gone is not None:
            current.on_gone()
        self.application.closed(self)

    # Requests.

    def _advance(self) -> None:
        """Go on with what is in the buffer as far as it goes."""
        while not self.lost and not self._silent:
            if self._body is not None:
                if not self._read_body(self._body):
                    return
            elif self._current is not None or not self._begin():
                return

    def _begin(self) -> bool:
        """Read the next head, and answer what needs no body. False when there is none."""
        if self._buffer.startswith(PREFACE):
            self._silent = True  # HTTP/2: a conversation that this server does not lead
            return False
        try:
            head = read_head(self._buffer)
        except BadRequest as bad:
            self._refuse(bad.status)
            return False
        if head is None:
            return False
        exchange = self._current = Exchange(self, head)
        self._body = Body(head.length, self.application.payload_limit)
        self._take(self._body)
        exchange.quiet_close = (head.length or 0) > self.application.payload_limit
        if self.application.early(exchange):
            return True
        if not self._body.complete and head.headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _take(self, body: Body) -> bool:
        try:
            body.take(self._buffer)
        except BadBody:
            return False
        return True

    def _read_body(self, body: Body) -> bool:
        """Go on with the current request's body. False when more bytes are needed."""
        exchange = self._current
        readable = self._take(body)
        if exchange is None or exchange.finished:
            return self._drained(body, readable)
        if not readable or body.too_large:
            exchange.quiet_close = not body.complete
            self.application.unreadable(exchange, too_large=readable)
            return True
        if not body.complete:
            return False
        exchange.body, self._body = bytes(body.data), None
        exchange.quiet_close = body.trailers
        self.application.handle(exchange)
        return True

    def _drained(self, body: Body, readable: bool) -> bool:
        """An answered request's body is read to its end; the connection then goes on only if all of it was here."""
        if not readable or body.complete:
            self._body = None
            exchange, self._current = self._current, None
            if exchange is not None and (exchange.quiet_close or not exchange.keep_alive or not readable):
                self.transport.close()
            return True
        if self._current is not None:
            self._current.quiet_close = True
        return False

    def answered(self, exchange: Exchange) -> None:
        """The current answer is complete."""
        if self._current is not exchange:
            return
        if self._body is not None and not self._body.complete:
            # Let the client see the answer while it still sends; it is not waited for for ever.
            exchange.quiet_close = True
            asyncio.get_running_loop().call_later(_LINGER, self.transport.close)
            return
        self._current = self._body = None
        if not exchange.keep_alive or exchange.quiet_close:
            self.transport.close()
            return
        self.transport.resume_reading()
        asyncio.get_running_loop().call_soon(self._advance)

    def _refuse(self, status: int) -> None:
        """A head that cannot be read: hyper's own answer, without any of the application's headers."""
        date = formatdate(usegmt=True)
        head = f"HTTP/1.1 {status} {REASONS[status]}\r\nconnection: close\r\ncontent-length: 0\r\ndate: {date}\r\n\r\n"
        self.write(head.encode())
        self._silent = True
        # What is still unread would turn a plain close into a reset, and the client might not see the answer.
        self.transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER, self.transport.close)

    def abort(self) -> None:
        self.transport.abort()

    def drain(self) -> None:
        """No further requests: an idle connection closes now, a busy one after its answer."""
        self.closing = True
        if self._current is None:
            self.transport.close()


def _nowhere(data: bytes) -> None:
    return None
