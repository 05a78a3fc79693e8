"""One connection to the service: where to, through what, how its bytes are read and written, and what it carries."""

from __future__ import annotations

import _socket
import errno
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gevent import socket

from harness.engines.route import trusted
from harness.load.framing import Body, Head, ProtocolError, parse_head, split_head

SO_TIMESTAMPNS = 35  # asm-generic/socket.h; the socket module does not name it
CONNECT_WITHIN = 30.0  # seconds
_TLS_RECORD = 16 << 10


@dataclass(frozen=True)
class Address:
    """Where to connect. host_header: as requests name the service. proxy: host and port of one in between.

    prefix: what a request's target begins with: the URL itself where a proxy reads it.
    """

    host: str
    port: int
    tls: bool
    host_header: str
    proxy: tuple[str, int] | None = None
    prefix: str = ""

    @classmethod
    def of(cls, url: str, proxy: str | None = None) -> Address:
        """From the service's URL. proxy: URL of one to go through; those of the environment (HTTP_PROXY) are not for
        measuring, since they would be measured too.
        """
        parts, through = urlsplit(url), urlsplit(proxy or "")
        tls = parts.scheme == "https"
        host, port = parts.hostname or "127.0.0.1", parts.port or (443 if tls else 80)
        header = parts.netloc.rpartition("@")[2]
        if parts.hostname and not header.isascii():  # the name alone: IDNA takes the port for a part of it
            header = parts.hostname.encode("idna").decode() + (f":{parts.port}" if parts.port else "")
        between = (through.hostname, through.port or 80) if through.hostname else None
        whole_url = between is not None and not tls
        return cls(host, port, tls, header, between, (f"http://{header}" if whole_url else "") + parts.path.rstrip("/"))


class Tls:
    """TLS over memory, so that the bytes still come from recvmsg with the kernel's stamp."""

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._arrived, self._leaving, server_hostname=name)
        self.ended = False  # the peer said that no more comes

    def greet(self, connected: Any) -> None:
        """The handshake, over a socket that waits. Raises OSError."""
        while True:
            try:
                self._object.do_handshake()
                break
            except ssl.SSLWantReadError:
                connected.sendall(self._leaving.read())
                data = connected.recv(_TLS_RECORD)
                if not data:
                    raise ConnectionError("closed during the TLS handshake") from None
                self._arrived.write(data)
        connected.sendall(self._leaving.read())

    def decrypt(self, data: bytes) -> bytes:
        """What these bytes, and those before them, hold. Raises ssl.SSLError where they are not TLS."""
        self._arrived.write(data)
        found = []
        try:
            while piece := self._object.read(65536):
                found.append(piece)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return b"".join(found)

    def encrypt(self, data: bytes) -> bytes:
        self._object.write(data)
        return self._leaving.read()


class Connection:
    """An open connection, non-blocking. exchange: what it carries at the moment. alive: not closed by us."""

    __slots__ = ("alive", "exchange", "fd", "recvmsg", "send", "socket", "tls")

    def __init__(self, connected: Any, tls: Tls | None) -> None:
        self.socket, self.tls = connected, tls
        self.fd: int = connected.fileno()
        self.recvmsg: Callable[..., Any] = connected.recvmsg
        self.send: Callable[[bytes], int] = connected.send
        self.exchange: Exchange | None = None
        self.alive = True

    def close(self) -> None:
        self.alive = False
        self.socket.close()


class Exchange:
    """The raw facts of one request and its answer. Moments are CLOCK_MONOTONIC seconds; stamps are struct timespec.

    reads, stamps: what was read since the last `frame`, one stamp a read. slices, moments: the body's content in the
    reads before, not decoded yet, and their stamps. error: None, or `refused`, `dropped`, `stream_broken`, `timeout`,
    `protocol`, `in_flight` (given up by us). on_done: called in the hub when the exchange is over. begun_at: when it
    was handed over to be sent; sent_at: when its bytes were, None where no connection took them; sending: how long that
    took, in seconds, which is long where this process was put aside meanwhile.
    """

    __slots__ = (
        "asked",
        "begun_at",
        "body",
        "call",
        "connection",
        "deadline",
        "error",
        "finished",
        "first_byte",
        "head",
        "last_byte",
        "moments",
        "on_done",
        "reads",
        "reused",
        "sending",
        "sent_at",
        "slices",
        "stamps",
    )

    def __init__(self, call: bytes, asked: Any = None, on_done: Callable[[Exchange], None] | None = None) -> None:
        self.call, self.asked, self.on_done = call, asked, on_done
        self.reads: list[bytes] = []
        self.stamps: list[bytes] = []
        self.slices: list[bytes] = []
        self.moments: list[bytes] = []
        self.head: Head | None = None
        self.body: Body | None = None
        self.begun_at: float | None = None
        self.sent_at: float | None = None
        self.first_byte: bytes | None = None
        self.last_byte: bytes | None = None
        self.error: str | None = None
        self.finished = self.reused = False
        self.deadline = self.sending = 0.0
        self.connection: Connection | None = None

    @property
    def attempted_at(self) -> float | None:
        """When it was sent; where no connection could be had, when one was asked for. None for a dropped one."""
        if self.error == "dropped":
            return None
        return self.begun_at if self.sent_at is None else self.sent_at

    def frame(self) -> None:
        """Take the content out of the reads: enough to know the end for certain. Raises ProtocolError."""
        reads, stamps = self.reads, self.stamps
        if reads and self.body is not None:
            self.last_byte = stamps[-1]
            self.slices += self.body.feed(reads)
            self.moments += stamps
            reads.clear()  # the reader's table holds these very lists
            stamps.clear()

    def take_head(self) -> bool:
        """Look for the head in what was read; whether it is there now. Raises ProtocolError."""
        if self.first_byte is None:
            self.first_byte = self.stamps[0]
        self.last_byte = self.stamps[-1]
        found = split_head(b"".join(self.reads))
        if found is None:
            return False
        self.head, rest = found
        self.body = self.head.body()
        self.reads.clear()
        self.stamps.clear()
        if rest:
            self.reads.append(rest)
            self.stamps.append(self.last_byte)
        return True


class Connector:
    """Opens connections to one address. The name is looked up once, the TLS context made once."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._context = trusted() if address.tls else None
        self._resolved: list[tuple[int, Any]] = []  # family and place of each of the name's addresses

    def open(self) -> Connection:
        """Connect, in the calling greenlet, to the first of the name's addresses that takes it. Raises OSError."""
        places = self._resolve()
        for place in places[:-1]:
            try:
                opened = self._open(*place)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise
                continue
            self._resolved = [place, *(each for each in places if each != place)]
            return opened
        return self._open(*places[-1])

    def _open(self, family: int, where: Any) -> Connection:
        address = self.address
        connected = socket.socket(family, _socket.SOCK_STREAM)
        try:
            connected.settimeout(CONNECT_WITHIN)
            connected.connect(where)
            connected.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            if address.proxy and address.tls:
                _tunnel(connected, f"{address.host}:{address.port}")
            tls = None
            if self._context is not None:
                tls = Tls(self._context, address.host)
                tls.greet(connected)
            connected.setsockopt(_socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        except BaseException:
            connected.close()
            raise
        # The plain socket: gevent's adds a watcher and Python code to every call.
        plain = _socket.socket(fileno=connected.detach())
        plain.setblocking(False)
        return Connection(plain, tls)

    def _resolve(self) -> list[tuple[int, Any]]:
        if not self._resolved:
            host, port = self.address.proxy or (self.address.host, self.address.port)
            found = socket.getaddrinfo(host, port, 0, _socket.SOCK_STREAM)
            self._resolved = [(family, where) for family, _, _, _, where in found]
        return self._resolved


def _tunnel(connected: Any, to: str) -> None:
    """Asks a proxy for a connection to `host:port`."""
    connected.sendall(f"CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        piece = connected.recv(1)  # not one byte too many: what follows belongs to TLS
        if not piece:
            raise ConnectionError("the proxy closed the connection")
        answer += piece
    try:
        status = parse_head(answer[:-4]).status
    except ProtocolError as error:
        raise ConnectionError(f"the proxy answers no HTTP: {error}") from error
    if status != 200:
        raise ConnectionError(f"the proxy answers {status}")
