"""The hot path: all connections of a process in one epoll set behind one watcher of gevent's hub.

Per event the reader calls recvmsg, appends the bytes, appends the kernel's receive stamp, and looks at the last bytes;
nothing else. Framing, decoding and records follow later, in slices between the reads (`recorder.py`). Because the stamp
is the kernel's, a read may be late by anything less than one gap without changing a figure. So the reader may also
gather what arrives within PAUSE and pay for one wake-up instead of many.

A stamp belongs to the last segment of a read. Where the reader was away for longer than a moment, the time is noted in
`absences`, so that events whose own moment was lost can be counted.
"""

from __future__ import annotations

import errno
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent import monkey
from gevent.hub import get_hub

from harness.load.connection import Address, Connection, Connector, Exchange
from harness.load.contention import RunQueue
from harness.load.framing import ProtocolError
from harness.load.stamps import Clock

PAUSE = 0.002  # seconds; far below the gap between tokens, and where it is not, the recorder turns it off
PAUSE_FROM = 100  # streams; with fewer, wake-ups cost nothing worth saving
SLICE = 0.0003  # seconds of the recorder's work at a time where the reader does not pause
BATCH = 512  # sockets of one poll
BEHIND = 300  # sockets ready at once: more than a pause gathers at 150,000 events/s
BACKLOG_READS = 400_000  # reads that may wait for decoding, about 130 MB; beyond, decoding comes first
ABSENCE = 0.0025  # seconds between two looks at all sockets from which on they are noted
ABSENCES_KEPT = 8192
CROSSED = 0.5  # seconds after sending in which a closed connection may have been closed before it saw the request
LASTED = 0.0002  # seconds: a wait that finds something there already takes some microseconds
BEAT = 0.005  # seconds: no wait lasts longer, so that one which did shows a process that was kept from running

_BUFFER = 16384
_ANCILLARY = 32  # CMSG_SPACE(sizeof(struct timespec))
_READ, _HUNG_UP, _EDGE = 0x001, 0x2000, 1 << 31
_CHUNKED_TAIL = b"\r\n\r\n"  # every chunked body ends so; whatever else does is looked at too

_epoll = monkey.get_original("select", "epoll")
_sleep = monkey.get_original("time", "sleep")
_now = time.monotonic


class Absences:
    """Times in which no socket was read: `starts` and `ends`, CLOCK_MONOTONIC seconds, rising; the latest ones only."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []

    def add(self, start: float, end: float) -> None:
        self.starts.append(start)
        self.ends.append(end)
        if len(self.starts) > ABSENCES_KEPT:
            del self.starts[: ABSENCES_KEPT // 2], self.ends[: ABSENCES_KEPT // 2]


class Transport:
    """Sends calls over kept connections and reads the answers.

    active: what is being answered. finished: over, not recorded yet. work: the recorder's; works until a moment and
    says whether more is left. next_due: when the next request is planned; no pause reaches over it. behind: polls that
    found more than a pause should have gathered. absences: when no socket was looked at.
    """

    def __init__(self, address: Address, clock: Clock, timeout: float) -> None:
        self.address, self.clock, self.timeout = address, clock, timeout
        self.active: dict[Connection, Exchange] = {}
        self.finished: deque[Exchange] = deque()
        self.work: Callable[[float], bool] = lambda until: False
        self.next_due = float("inf")
        self.pause = PAUSE
        self.reads = self.absorbed = self.behind = 0
        self.absences = Absences()
        self.run_queue = RunQueue()
        self._connector = Connector(address)
        self._pool: list[Connection] = []
        self._deadlines: deque[Exchange] = deque()
        # By descriptor: recvmsg, where bytes and stamps go, the bytes that deserve a look, the connection.
        self._table: dict[int, tuple[Any, Any, Any, bytes, Connection]] = {}
        self._epoll: Any = _epoll()
        self._poll = self._epoll.poll
        self._looked = self._waits_from = _now()
        self._loop = loop = get_hub().loop
        self._watcher = loop.io(self._epoll.fileno(), 1)
        self._watcher.start(self.drain)
        self._before_wait, self._after_wait = loop.prepare(priority=loop.MINPRI), loop.check(priority=loop.MAXPRI)
        self._before_wait.start(self._begin_to_wait)
        self._after_wait.start(self._waited)
        self._idle = loop.idle()
        self._beat_due = _now() + BEAT
        self._beat = loop.timer(BEAT, BEAT)
        self._beat.start(self._on_beat)

    @property
    def backlog(self) -> int:
        """Reads that are not decoded yet."""
        return self.reads - self.absorbed

    def recount(self) -> None:
        """Count the backlog anew: reads without content, such as heads, are never absorbed."""
        waiting = [*self.active.values(), *self.finished]
        self.reads, self.absorbed = sum(len(each.reads) + len(each.slices) for each in waiting), 0

    def close(self) -> None:
        for watcher in (self._watcher, self._idle, self._before_wait, self._after_wait, self._beat):
            watcher.stop()
            watcher.close()
        for connection in [*self.active, *self._pool]:
            self._drop(connection)
        self._epoll.close()
        self.run_queue.close()

    # Reading

    def _begin_to_wait(self) -> None:
        """Called by the event loop right before it waits."""
        self._waits_from = _now()

    def _on_beat(self) -> None:
        self._beat_due = _now() + BEAT

    def _waited(self) -> None:
        """Called right after it. Only the end of a long wait may be an absence: what arrived made this process ready to
        run, and other work on the machine may have kept it from running. The run queue tells for how long. What it does
        not tell (a stopped process, a frozen control group, a hypervisor that ran another guest) shows in a beat that
        is late; such an absence may have begun right after the beat before.
        """
        now = _now()
        waited = now - self._waits_from
        if waited > LASTED:
            absent, late = self.run_queue.since(), now - self._beat_due
            if late > ABSENCE:
                absent = max(absent, late + BEAT)
            self._looked = now - min(waited, absent)

    def drain(self) -> None:
        """Read everything that is readable now; then work, or pause for more."""
        polled = _now()
        ready = self._poll(0, BATCH)
        table = self._table
        for fd, events in ready:
            entry = table.get(fd)
            if entry is None:
                continue
            recvmsg, push, stamp, tail, connection = entry
            try:
                data, ancillary, _, _ = recvmsg(_BUFFER, _ANCILLARY)
            except BlockingIOError:
                continue
            except OSError:
                self._broken(connection)
                continue
            push(data)
            stamp(ancillary[0][2] if ancillary else self.clock.stamp())
            if events != _READ or data.endswith(tail) or not 4 < len(data) < _BUFFER:
                self._look(connection, data, events)
        self.reads += len(ready)
        if len(ready) < BATCH:
            if polled - self._looked > ABSENCE:
                self.absences.add(self._looked, polled)
            self._looked = polled
        self._after(len(ready) > BEHIND)

    def _after(self, behind: bool) -> None:
        """What to do until the next read. Events that wait come first, as long as the backlog is bounded."""
        if behind:
            self.behind += 1
            if self.backlog >= BACKLOG_READS and self.work(_now() + self.pause):
                self.wake()
            return
        many = len(self.active) >= PAUSE_FROM
        until = min(_now() + (self.pause if many else SLICE), self.next_due)
        if self.finished or self._idle.active:
            if self.work(until):
                self.wake()
                return
            self._idle.stop()
        if many and (rest := until - _now()) > 0.00005:
            _sleep(rest)

    def wake(self) -> None:
        """There is work for the recorder: it is done whenever nothing is readable."""
        if not self._idle.active:
            self._idle.start(self._work_idle)

    def _work_idle(self) -> None:
        if not self.work(_now() + SLICE):
            self._idle.stop()

    def _look(self, connection: Connection, data: bytes, events: int) -> None:
        """The unusual read: a head, a possible end, a full buffer, the end of the connection."""
        exchange = connection.exchange
        if exchange is None:
            self._look_at_kept(connection, data, events)
            return
        try:
            ended = self._read_on(connection, exchange, data, events)
            if exchange.head is None and not (exchange.reads and exchange.take_head()):
                if ended:
                    self._broken(connection)
                return
            exchange.frame()
        except (ProtocolError, ssl.SSLError):
            exchange.error = exchange.error or "protocol"
            self._done(connection, exchange, reusable=False)
            return
        self._see_end(connection, exchange, ended)

    def _look_at_kept(self, connection: Connection, data: bytes, events: int) -> None:
        """A kept connection that the server closed, or bytes that nobody asked for: TLS has such, HTTP has not."""
        tls = connection.tls
        try:
            own = tls is not None and events == _READ and 0 < len(data) < _BUFFER and not tls.decrypt(data)
        except ssl.SSLError:
            own = False
        if not own or (tls is not None and tls.ended):
            self._drop(connection)

    def _see_end(self, connection: Connection, exchange: Exchange, ended: bool) -> None:
        head, body = exchange.head, exchange.body
        assert head is not None
        assert body is not None
        if body.complete:
            self._done(connection, exchange, reusable=head.keep_alive and not ended and not body.rest)
        elif ended and body.open_ended:
            self._done(connection, exchange, reusable=False)
        elif ended:
            self._broken(connection)
        elif not body.open_ended and head.chunked and connection.tls is None:
            self._watch_for(connection, _CHUNKED_TAIL)

    def _read_on(self, connection: Connection, exchange: Exchange, data: bytes, events: int) -> bool:
        """Read all there is, which an edge-triggered poll asks for; whether the connection ended."""
        tls, reads, stamps = connection.tls, exchange.reads, exchange.stamps
        while True:
            if not data:
                reads.pop()
                stamps.pop()
                return True
            if tls is not None:
                reads[-1] = tls.decrypt(data)
                if not reads[-1]:  # the protocol's own business, or half a record
                    reads.pop()
                    stamps.pop()
                if tls.ended:
                    return True
            if len(data) < _BUFFER and events == _READ:
                return False
            try:
                data, ancillary, _, _ = connection.recvmsg(_BUFFER, _ANCILLARY)
            except BlockingIOError:
                return False
            except OSError:
                return True
            reads.append(data)
            stamps.append(ancillary[0][2] if ancillary else self.clock.stamp())

    def _watch_for(self, connection: Connection, tail: bytes) -> None:
        """From now on only reads that end so are looked at; b"": all."""
        exchange = connection.exchange
        push, stamp = (_ignore, _ignore) if exchange is None else (exchange.reads.append, exchange.stamps.append)
        self._table[connection.fd] = (connection.recvmsg, push, stamp, tail, connection)

    # The end of an exchange

    def _done(self, connection: Connection, exchange: Exchange, *, reusable: bool) -> None:
        del self.active[connection]
        connection.exchange = exchange.connection = None
        if reusable:
            self._keep(connection)
        else:
            self._drop(connection)
        self._finish(exchange)

    def _finish(self, exchange: Exchange) -> None:
        exchange.finished = True
        self.finished.append(exchange)
        if exchange.on_done is not None:
            exchange.on_done(exchange)

    def _broken(self, connection: Connection) -> None:
        """The connection ended where it should not."""
        exchange = connection.exchange
        if exchange is None:
            self._drop(connection)
        elif exchange.reused and exchange.first_byte is None and not exchange.reads and _just_sent(exchange):
            # The server closed a kept connection just as we asked on it: ask again on a new one. Later than that it had
            # the request and did not answer, which is a failure like any other.
            del self.active[connection]
            exchange.connection = None
            self._drop(connection)
            gevent.spawn(self._send_on_new, exchange)
        else:
            exchange.error = exchange.error or "stream_broken"
            self._done(connection, exchange, reusable=False)

    def cancel(self, exchange: Exchange, error: str) -> None:
        """Give an exchange up for this reason."""
        if exchange.finished:
            return
        exchange.error = exchange.error or error
        if exchange.connection is not None:
            self._done(exchange.connection, exchange, reusable=False)
        else:
            self._finish(exchange)

    def expire(self) -> None:
        """End what takes longer than the timeout; called some times a second."""
        now, deadlines = _now(), self._deadlines
        while deadlines and (deadlines[0].finished or deadlines[0].deadline <= now):
            self.cancel(deadlines.popleft(), "timeout")

    def _keep(self, connection: Connection) -> None:
        self._pool.append(connection)
        self._watch_for(connection, b"")

    def _drop(self, connection: Connection) -> None:
        if not connection.alive:
            return
        self._table.pop(connection.fd, None)
        self.active.pop(connection, None)
        if connection.exchange is None and connection in self._pool:
            self._pool.remove(connection)
        connection.close()  # leaves the epoll set by itself

    # Sending

    def open_ahead(self, count: int) -> None:
        """Open connections until this many are kept; those that cannot be opened will be tried again when needed."""
        for _ in range(count - len(self._pool)):
            try:
                connection = self._open()
            except OSError:
                return
            self._keep(connection)

    def send(self, exchange: Exchange) -> None:
        """Send on a kept connection, or open one in a greenlet of its own."""
        exchange.begun_at = _now()
        exchange.deadline = exchange.begun_at + self.timeout
        self._deadlines.append(exchange)
        if self._pool:
            exchange.reused = True
            self._put(self._pool.pop(), exchange)
        else:
            gevent.spawn(self._send_on_new, exchange)

    def _send_on_new(self, exchange: Exchange) -> None:
        exchange.reused = False
        try:
            connection = self._open()
        except OSError as error:
            self.cancel(exchange, "dropped" if error.errno in (errno.EMFILE, errno.ENFILE) else "refused")
            return
        if exchange.finished:
            self._keep(connection)
        else:
            self._put(connection, exchange)

    def _open(self) -> Connection:
        connection = self._connector.open()
        self._epoll.register(connection.fd, _READ | _HUNG_UP | _EDGE)
        return connection

    def _put(self, connection: Connection, exchange: Exchange) -> None:
        connection.exchange, exchange.connection = exchange, connection
        self.active[connection] = exchange
        self._watch_for(connection, b"")
        exchange.sent_at = _now()  # before the call: an answer may be there before it returns
        call = exchange.call
        try:
            if connection.tls is not None:
                call = connection.tls.encrypt(call)
            sent = connection.send(call)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._broken(connection)
            return
        exchange.sending = _now() - exchange.sent_at
        if sent < len(call):
            gevent.spawn(self._send_rest, connection, exchange, call[sent:])

    def _send_rest(self, connection: Connection, exchange: Exchange, rest: bytes) -> None:
        """What the socket did not take at once."""
        while rest:
            gevent.socket.wait_write(connection.fd)
            if connection.exchange is not exchange:
                return
            try:
                rest = rest[connection.send(rest) :]
            except BlockingIOError:
                continue
            except OSError:
                self._broken(connection)
                return


def _just_sent(exchange: Exchange) -> bool:
    return exchange.sent_at is not None and _now() - exchange.sent_at < CROSSED


def _ignore(_: bytes) -> None:
    """Bytes on a kept connection belong to no exchange."""
