"""The reader against servers that answer in every way HTTP/1.1 knows: scripted bytes over real sockets."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import gevent
import pytest

from harness.engines import APIS
from harness.load import transport as transport_module
from harness.load.connection import Address, Connector, Exchange
from harness.load.recorder import Recorder, RequestInProgress
from harness.load.stamps import Clock
from harness.load.transport import Transport
from harness.measure.journal import JournalWriter
from harness.measure.record import RequestRecord

CALL = b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

Answer = Callable[[socket.socket, int], bool]  # (connection, how many calls came on it before) -> keep it open?


def receive(connection: socket.socket) -> bytes:
    """One call, b"" where the client closed."""
    found = b""
    while not found.endswith(b"{}"):
        data = connection.recv(65536)
        if not data:
            return b""
        found += data
    return found


@contextmanager
def serving(answer: Answer, wrap: Callable[[socket.socket], socket.socket] = lambda each: each) -> Iterator[int]:
    """The port of a server that treats every call so."""

    def serve(connection: socket.socket) -> None:
        try:
            with wrap(connection) as wrapped:
                number = 0
                while receive(wrapped) and answer(wrapped, number):
                    number += 1
        except OSError:
            return  # the client left

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


@contextmanager
def transport_to(url: str, timeout: float = 20.0, proxy: str | None = None) -> Iterator[Transport]:
    transport = Transport(Address.of(url, proxy), Clock(), timeout)
    try:
        yield transport
    finally:
        transport.close()


def ask(transport: Transport, call: bytes = CALL) -> Exchange:
    """One call, from its sending to the end of its exchange."""
    exchange = Exchange(call)
    transport.send(exchange)
    while not exchange.finished:
        gevent.sleep(0.005)
        transport.expire()
    return exchange


def content(exchange: Exchange) -> bytes:
    exchange.frame()
    return b"".join(exchange.slices)


def says(*pieces: bytes, keep: bool = True) -> Answer:
    """A server that writes these pieces one after another, a moment apart."""

    def answer(connection: socket.socket, _: int) -> bool:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.02)
        return keep

    return answer


@pytest.mark.parametrize(
    ("pieces", "keep", "expected"),
    [
        ((OK,), True, b"ok"),
        ((OK[:20], OK[20:-1], OK[-1:]), True, b"ok"),
        ((CHUNKED, b"3\r\nabc\r\n", b"0\r\n\r\n"), True, b"abc"),
        ((CHUNKED + b"3\r\na", b"bc\r\n0\r", b"\nExpires: 1\r\n", b"\r\n"), True, b"abc"),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", OK), True, b"ok"),
        ((b"HTTP/1.1 200 OK\r\n\r\nall", b" of it"), False, b"all of it"),
        ((b"HTTP/1.1 204 No\r\n\r\n",), True, b""),
        ((CHUNKED + b"186a0\r\n" + b"x" * 100_000 + b"\r\n0\r\n\r\n",), True, b"x" * 100_000),
    ],
)
def test_an_answer_ends_where_it_ends(pieces: tuple[bytes, ...], keep: bool, expected: bytes) -> None:
    """Whatever tells the end, the content is whole and without an error, on one connection where it may be kept."""
    with serving(says(*pieces, keep=keep)) as port, transport_to(f"http://127.0.0.1:{port}") as transport:
        for _ in range(2):
            exchange = ask(transport)
            assert exchange.error is None
            assert content(exchange) == expected
        assert exchange.reused is keep


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ((CHUNKED + b"3\r\nabc\r\n",), "stream_broken"),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab",), "stream_broken"),
        ((b"HTTP/1.1 200",), "stream_broken"),
        ((b"",), "stream_broken"),
        ((b"SSH-2.0-x\r\n\r\n",), "protocol"),
        ((CHUNKED + b"zz\r\n", b"\r\n\r\n"), "protocol"),
    ],
)
def test_a_broken_answer_is_told_apart(pieces: tuple[bytes, ...], error: str) -> None:
    """A connection that ends early, and bytes that are no HTTP."""
    with serving(says(*pieces, keep=False)) as port, transport_to(f"http://127.0.0.1:{port}") as transport:
        assert ask(transport).error == error


def test_each_token_has_a_stamp_of_its_own() -> None:
    """The stamp is the kernel's, between the sending and now, and rises from event to event."""
    pieces = (CHUNKED, *(b"1\r\n%d\r\n" % number for number in range(8)), b"0\r\n\r\n")
    with serving(says(*pieces)) as port, transport_to(f"http://127.0.0.1:{port}") as transport:
        exchange = ask(transport)
        exchange.frame()
        assert exchange.sent_at is not None
        moments = transport.clock.seconds(exchange.moments).tolist()
        assert exchange.sent_at < moments[0]
        assert all(first < later for first, later in pairwise(moments))


def test_a_kept_connection_that_the_server_closed_is_replaced() -> None:
    """No request fails because its connection was closed while nothing was asked on it, or just as it was."""

    def once(connection: socket.socket, number: int) -> bool:
        if number == 0:
            connection.sendall(OK)
        return number == 0  # the second call on a connection is met by its end

    with serving(once) as port, transport_to(f"http://127.0.0.1:{port}") as transport:
        for _ in range(3):
            exchange = ask(transport)
            assert exchange.error is None
            assert content(exchange) == b"ok"


def test_a_request_that_was_had_and_not_answered_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept connection that ends long after the sending is a broken answer: asking again would hide it."""
    monkeypatch.setattr(transport_module, "CROSSED", 0.1)

    def once(connection: socket.socket, number: int) -> bool:
        if number == 0:
            connection.sendall(OK)
        else:
            time.sleep(0.3)
        return number == 0

    with serving(once) as port, transport_to(f"http://127.0.0.1:{port}") as transport:
        assert ask(transport).error is None
        assert ask(transport).error == "stream_broken"


def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is ::1 first where the service listens on 127.0.0.1 alone; the one that took a call comes first."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()
    with serving(says(OK)) as port:
        there = ("127.0.0.1", port)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where) for where in (nobody, there)]
        monkeypatch.setattr("harness.load.connection.socket.getaddrinfo", lambda *_: found)
        connector = Connector(Address.of("http://service.example"))
        for _ in range(2):
            connection = connector.open()
            assert connection.socket.getpeername() == there
            connection.close()
        found.pop()
        with pytest.raises(ConnectionRefusedError):
            Connector(Address.of("http://service.example")).open()


def test_connections_opened_ahead_are_used() -> None:
    """A request that finds one pays nothing for connecting."""
    with serving(says(OK)) as port, transport_to(f"http://127.0.0.1:{port}") as transport:
        transport.open_ahead(2)
        assert ask(transport).reused


def test_answers_are_recorded_though_the_client_is_never_idle(tmp_path: Path) -> None:
    """What is over reaches the journal within a moment, however busy the reader: a kill must not cost more."""
    told: list[RequestRecord] = []
    asked = RequestInProgress(RequestRecord("one", 0, 0.0, "in_flight"), stream=False)
    with serving(says(OK)) as port, transport_to(f"http://127.0.0.1:{port}") as transport:
        recorder = Recorder(APIS["tgi"], transport, JournalWriter(tmp_path / "journal.log"), 0.0, told.append)
        transport.work = lambda until: False  # no idle time
        transport.wake = lambda: None  # type: ignore[method-assign]
        transport.send(Exchange(CALL, asked))
        with gevent.Timeout(5.0):
            while not told:
                gevent.sleep(0.02)
        recorder.close()
    assert [record.request_id for record in told] == ["one"]


def test_nobody_there_and_nobody_answering() -> None:
    """A refused connection and an answer that does not come in time are errors of their own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with transport_to(f"http://127.0.0.1:{port}") as transport:
        assert ask(transport).error == "refused"
    with serving(says(CHUNKED)) as port, transport_to(f"http://127.0.0.1:{port}", timeout=0.2) as transport:
        assert ask(transport).error == "timeout"


def test_a_call_larger_than_the_sockets_buffers_is_sent_whole() -> None:
    """What the kernel does not take at once follows."""
    sizes = []

    def count(connection: socket.socket, _: int) -> bool:
        sizes.append(1)
        connection.sendall(OK)
        return True

    call = CALL[:-2] + b" " * 20_000_000 + b"{}"
    with serving(count) as port, transport_to(f"http://127.0.0.1:{port}") as transport:
        assert content(ask(transport, call)) == b"ok"
    assert sizes == [1]


def test_tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS the same content comes, connections are kept, and events keep moments of their own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    pieces = (CHUNKED, *(b"1\r\n%d\r\n" % number for number in range(5)), b"0\r\n\r\n")
    wrap = lambda each: context.wrap_socket(each, server_side=True)  # noqa: E731
    with serving(says(*pieces), wrap) as port, transport_to(f"https://localhost:{port}") as transport:
        transport.open_ahead(1)
        gevent.sleep(0.05)  # the session tickets come on a connection that carries nothing
        for _ in range(2):
            exchange = ask(transport)
            assert exchange.error is None
            assert exchange.reused
            assert content(exchange) == b"01234"
            moments = transport.clock.seconds(exchange.moments).tolist()
            assert len(set(moments)) == 6


def test_an_untrusted_certificate_is_refused(certificate: Path) -> None:
    """A service that cannot prove its name is not asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    wrap = lambda each: context.wrap_socket(each, server_side=True)  # noqa: E731
    with serving(says(OK), wrap) as port, transport_to(f"https://localhost:{port}") as transport:
        assert ask(transport).error == "refused"


def test_a_proxy_is_used_only_when_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a proxy a request names the whole URL; the environment's proxies are left alone."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    seen = Address.of("http://service.example:8080", "http://127.0.0.1:3128")
    assert (seen.proxy, seen.prefix) == (("127.0.0.1", 3128), "http://service.example:8080")
    assert Address.of("http://service.example:8080/base/").proxy is None
    assert Address.of("http://service.example:8080/base/").prefix == "/base"
    with serving(says(OK)) as port, transport_to("http://service.example", proxy=f"http://127.0.0.1:{port}") as way:
        assert content(ask(way)) == b"ok"


def test_tls_through_a_proxy_asks_for_a_tunnel(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CONNECT comes first, then TLS with the service itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    asked: list[bytes] = []

    def tunnel(connection: socket.socket) -> socket.socket:
        asked.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return context.wrap_socket(connection, server_side=True)

    with (
        serving(says(OK), tunnel) as port,
        transport_to("https://localhost:443", proxy=f"http://127.0.0.1:{port}") as way,
    ):
        assert content(ask(way)) == b"ok"
    assert asked[0].startswith(b"CONNECT localhost:443 HTTP/1.1\r\n")
