"""HTTP/1.1 on one connection as hyper speaks it: framing, keep-alive, pipelining, and one write per event.

httptools parses. A response is written by an Exchange, at once or as a stream of chunks; what is written to the socket,
and when, is decided here and in `faults` only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import Any, Protocol

import httptools

Headers = Iterable[tuple[str, str]]

REASONS = {
    200: "OK",
    303: "See Other",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Payload Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Entity",
    424: "Failed Dependency",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
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

    def too_large(self, exchange: Exchange) -> None:
        """Answer a body beyond the limit."""
        ...

    def cross_origin(self, exchange: Exchange) -> list[tuple[str, str]]:
        """The headers that every answer carries."""
        ...

    def opened(self, connection: Connection) -> None: ...
    def closed(self, connection: Connection) -> None: ...


class Exchange:
    """One request and its answer. Everything that is sent goes through here."""

    __slots__ = (
        "body",
        "chunked",
        "connection",
        "finished",
        "headers",
        "keep_alive",
        "method",
        "minor",
        "on_gone",
        "path",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.method, self.path, self.minor = "", "", 1
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.keep_alive = True
        self.chunked = False
        self.finished = False
        self.on_gone: Callable[[], None] | None = None

    @property
    def gone(self) -> bool:
        """The client is no longer there."""
        return self.connection.lost

    def respond(self, status: int, headers: Headers = (), body: bytes = b"", allow: str | None = None) -> None:
        """A whole answer in one write. allow: the methods that this path has, for a wrong one."""
        if self.finished:
            return
        last = [("allow", allow)] if allow else []
        head = self._head(status, headers, [*last, ("content-length", str(len(body)))])
        self.connection.write(head if self.method == "HEAD" else head + body)
        self.finish()

    def start_stream(self, headers: Headers) -> None:
        """The head of a streamed answer; the body follows event by event."""
        self.chunked = self.minor >= 1
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
        lines = [f"HTTP/1.{min(self.minor, 1)} {status} {REASONS[status]}"]
        ordered = (*headers, *connection.application.cross_origin(self), *framing)
        lines += [f"{name}: {value}" for name, value in ordered]
        if connection.closing or not self.keep_alive:
            self.keep_alive = False
            lines.append("connection: close")
        elif self.minor == 0:
            lines.append("connection: keep-alive")
        lines.append(f"date: {formatdate(usegmt=True)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Connection(asyncio.Protocol):
    """One client's connection. Requests are answered in the order in which they came."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.lost = False
        self.closing = False
        self.transport: Any = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Exchange] = deque()
        self._current: Exchange | None = None  # the one whose answer is being made
        self._incoming: Exchange | None = None  # the one whose request is still arriving
        self._skip_body = False
        self.write: Callable[[bytes], object] = lambda data: None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.write = self.transport.write
        self.transport.set_write_buffer_limits(high=1 << 30)
        self.application.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return
        except httptools.HttpParserError:
            if not self.lost:
                self._malformed()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = True
        self.write = lambda data: None
        current, self._current = self._current, None
        self._waiting.clear()
        if current is not None and current.on_gone is not None:
            current.on_gone()
        self.application.closed(self)

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._incoming = Exchange(self)
        self._skip_body = False

    def on_url(self, url: bytes) -> None:
        assert self._incoming is not None
        self._incoming.path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._incoming is not None
        key = name.decode("latin-1").lower()
        self._incoming.headers.setdefault(key, value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        exchange = self._incoming
        assert exchange is not None
        exchange.method = self._parser.get_method().decode("ascii")
        exchange.minor = 0 if self._parser.get_http_version() == "1.0" else 1
        exchange.path = exchange.path.partition("?")[0]
        exchange.keep_alive = self._parser.should_keep_alive()
        if self._current is not None or self._waiting:
            return
        length = exchange.headers.get("content-length", "0")
        oversize = length.isdigit() and int(length) > self.application.payload_limit
        expects = exchange.headers.get("expect", "").lower() == "100-continue"
        if (oversize or expects) and self._answer_early(exchange, oversize):
            return
        if expects:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        exchange = self._incoming
        if exchange is None or self._skip_body:
            return
        exchange.body += data
        if len(exchange.body) > self.application.payload_limit and self._current is None and not self._waiting:
            self._answer_early(exchange, True)

    def on_message_complete(self) -> None:
        exchange, self._incoming = self._incoming, None
        if exchange is None or self._skip_body:
            return
        self._waiting.append(exchange)
        self._next()

    # Answers.

    def _answer_early(self, exchange: Exchange, oversize: bool) -> bool:
        """Answer before the body is here; the connection cannot be used afterwards, as its rest is never read."""
        self._current = exchange
        exchange.keep_alive = False
        if not self.application.early(exchange):
            if not oversize:
                self._current = None
                exchange.keep_alive = True
                return False
            self.application.too_large(exchange)
        self._skip_body = True
        return True

    def _next(self) -> None:
        while self._current is None and self._waiting and not self.lost:
            exchange = self._current = self._waiting.popleft()
            if self.application.early(exchange):
                continue
            if len(exchange.body) > self.application.payload_limit:
                self.application.too_large(exchange)
                continue
            self.application.handle(exchange)

    def answered(self, exchange: Exchange) -> None:
        """The current answer is complete."""
        if self._current is not exchange:
            return
        self._current = None
        if not exchange.keep_alive or (self.closing and not self._waiting):
            self.transport.close()
        else:
            self._next()

    def _malformed(self) -> None:
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: {formatdate(usegmt=True)}\r\n\r\n"
        if self._current is None:
            self.write(head.encode())
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def drain(self) -> None:
        """No further requests: an idle connection closes now, a busy one after its answer."""
        self.closing = True
        if self._current is None and not self._waiting and self._incoming is None:
            self.transport.close()
