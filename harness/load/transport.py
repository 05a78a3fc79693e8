"""Connections whose reader notes a moment and a slice of bytes, and nothing else.

One watcher of the event loop per connection calls `_readable` in the loop itself: no switch to a greenlet, no parsing,
no object per event but the bytes. The moment is the kernel's own receive time (SO_TIMESTAMPNS) where the socket gives
one: the reader may then be late by less than one gap and the moment is still true. Everything else happens when the
answer is whole.
"""

from __future__ import annotations

import errno
import socket as plain_socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import gevent
import gevent.ssl
from gevent import socket

from harness.load.framing import Framing, ProtocolError, read_head

SO_TIMESTAMPNS = 35  # asm-generic/socket.h; the socket module does not name it
_ANCILLARY = plain_socket.CMSG_SPACE(16)
_TIMESPEC = struct.Struct("@ll")
_READ = 1 << 16
_READ_EVENT = 1


class Exchange:
    """The raw facts of one request and its answer. Moments are CLOCK_MONOTONIC seconds.

    stamps, slices: one per read. total: bytes read. error: None, or `refused`, `dropped`, `stream_broken`, `timeout`,
    `protocol`. closed: the peer ended the connection.
    """

    __slots__ = ("closed", "error", "framing", "sent_at", "slices", "stamps", "total")

    def __init__(self) -> None:
        self.stamps: list[float] = []
        self.slices: list[bytes] = []
        self.total = 0
        self.sent_at: float | None = None
        self.framing: Framing | None = None
        self.error: str | None = None
        self.closed = False


@dataclass(slots=True)
class Clock:
    """CLOCK_REALTIME minus CLOCK_MONOTONIC: turns the kernel's stamps into the clock of the records.

    Renewed while the load runs, because CLOCK_REALTIME is slewed by time synchronisation.
    """

    offset: float = field(default=0.0)

    def renew(self) -> None:
        """The tightest of a few readings: the pair that was read within the shortest time."""
        best = min((_reading() for _ in range(5)), key=lambda reading: reading[0])
        self.offset = best[1]


def _reading() -> tuple[float, float]:
    before = time.monotonic_ns()
    real = time.time_ns()
    after = time.monotonic_ns()
    return after - before, (real - (before + after) // 2) / 1e9


@dataclass(frozen=True)
class Address:
    """Where to connect: from the URL of the service."""

    host: str
    port: int
    tls: bool
    host_header: bytes

    @classmethod
    def of(cls, url: str) -> Address:
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        return cls(parts.hostname or "127.0.0.1", parts.port or (443 if tls else 80), tls, parts.netloc.encode("idna"))


class Connection:
    """One keep-alive connection; carries one exchange at a time."""

    def __init__(self, address: Address, clock: Clock, timeout: float) -> None:
        """Connects. Raises OSError."""
        self._clock = clock
        self._socket: Any = socket.create_connection((address.host, address.port), timeout=timeout)
        self._socket.setsockopt(plain_socket.IPPROTO_TCP, plain_socket.TCP_NODELAY, 1)
        self._recvmsg: Callable[..., Any] | None = None
        if address.tls:
            self._socket = gevent.ssl.create_default_context().wrap_socket(self._socket, server_hostname=address.host)
        elif _stamped(self._socket):
            self._recvmsg = self._socket._sock.recvmsg
        self._socket.settimeout(None)
        self._watcher = gevent.get_hub().loop.io(self._socket.fileno(), _READ_EVENT)
        self._waiter: Any = None
        self._exchange = Exchange()
        self.used = 0

    def carry(self, call: bytes, exchange: Exchange, timeout: float) -> None:
        """Send these bytes and read until the answer is whole, the connection ends, or the time is over."""
        self._exchange = exchange
        self._waiter = waiter = gevent.hub.Waiter()
        timer = gevent.get_hub().loop.timer(timeout)
        self.used += 1
        try:
            self._watcher.start(self._readable)
            timer.start(self._over, "timeout")
            exchange.sent_at = time.monotonic()  # before the call: an answer may be there before it returns
            try:
                self._send(call)
            except OSError:
                exchange.error, exchange.closed = exchange.error or "stream_broken", True
                return
            waiter.get()
        finally:
            self._waiter = None
            self._watcher.stop()
            timer.stop()
            timer.close()

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        self._socket.close()

    def _send(self, call: bytes) -> None:
        if self._recvmsg is None:
            self._socket.sendall(call)
            return
        try:
            sent = self._socket._sock.send(call)
        except BlockingIOError:
            sent = 0
        if sent < len(call):
            self._socket.sendall(memoryview(call)[sent:])

    def _over(self, error: str | None) -> None:
        """The exchange is over: wake whoever waits, once."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if error is not None:
                self._exchange.error = self._exchange.error or error
            self._watcher.stop()
            waiter.switch(None)

    def _readable(self) -> None:
        """The hot path: one read, its moment, and the look whether the answer is whole."""
        exchange = self._exchange
        try:
            if self._recvmsg is not None:
                data, ancillary, _, _ = self._recvmsg(_READ, _ANCILLARY)
                if ancillary:
                    seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
                    stamp = seconds - self._clock.offset + nanoseconds * 1e-9
                else:
                    stamp = time.monotonic()
            else:
                data = self._socket.read(_READ) if hasattr(self._socket, "read") else self._socket._sock.recv(_READ)
                stamp = time.monotonic()
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            exchange.closed = True
            self._over("stream_broken")
            return
        if not data:
            self._ended_by_peer(exchange)
            return
        exchange.stamps.append(stamp)
        exchange.slices.append(data)
        exchange.total += len(data)
        framing = exchange.framing
        if framing is None:
            try:
                framing = exchange.framing = read_head(b"".join(exchange.slices))
                if framing is None:
                    return
            except ProtocolError:
                self._over("protocol")
                return
        if framing.mode == "chunked" and data[-1] != 10:
            return
        try:
            if framing.ended(exchange.slices, exchange.total):
                self._over(None)
        except ProtocolError:
            self._over("protocol")

    def _ended_by_peer(self, exchange: Exchange) -> None:
        exchange.closed = True
        framing = exchange.framing
        whole = framing is not None and framing.mode == "close"
        self._over(None if whole else "stream_broken")


def _stamped(each: Any) -> bool:
    try:
        each.setsockopt(plain_socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


class Pool:
    """The connections of one process to one service: the most recently used idle one, else a new one."""

    def __init__(self, url: str, clock: Clock, timeout: float) -> None:
        self.address = Address.of(url)
        self._clock, self._timeout = clock, timeout
        self._idle: deque[Connection] = deque()

    def ask(self, call: bytes, exchange: Exchange) -> None:
        """Send one call and read its answer into the exchange.

        A kept connection that the peer had closed meanwhile is replaced, when no byte of an answer was read on it.
        """
        while self._idle:
            self._over(self._idle.pop(), call, exchange)
            if not (exchange.closed and not exchange.slices and exchange.error == "stream_broken"):
                return
            exchange.error, exchange.closed = None, False
        try:
            connection = Connection(self.address, self._clock, min(self._timeout, 30.0))
        except OSError as error:
            exchange.error = "dropped" if error.errno in (errno.EMFILE, errno.ENFILE) else "refused"
            return
        self._over(connection, call, exchange)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _over(self, connection: Connection, call: bytes, exchange: Exchange) -> None:
        connection.carry(call, exchange, self._timeout)
        reusable = exchange.error is None and not exchange.closed
        if reusable and exchange.framing is not None and exchange.framing.keep_alive:
            self._idle.append(connection)
        else:
            connection.close()
