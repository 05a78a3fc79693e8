"""Heads and bodies are read, and refused, as hyper does it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.emulator.wire import BadBody, BadRequest, Body, read_head

REFUSED = [
    (b"hello world\r\n\r\n", 400),
    (b"GET /health\r\n\r\n", 400),
    (b"GET /health HTTP/1.2\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\ncontent-length: abc\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\na: " + b"b" * 500_000 + b"\r\n\r\n", 431),
    (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
]


@pytest.mark.parametrize(("data", "status"), REFUSED)
def test_a_head_that_cannot_be_read_has_its_status(data: bytes, status: int) -> None:
    """Each malformed head and what it is answered with."""
    with pytest.raises(BadRequest) as caught:
        read_head(bytearray(data))
    assert caught.value.status == status


PATHS = [
    (b"/info", "/info"),
    (b"/info?x=1", "/info"),
    (b"/info#x", "/info"),
    (b"http://host:80/info?x", "/info"),
    (b"http://host", "/"),
    (b"*", "*"),
    (b"//info", "//info"),
]


@pytest.mark.parametrize(("target", "path"), PATHS)
def test_the_path_of_every_form_of_target(target: bytes, path: str) -> None:
    """Origin, absolute and asterisk form; queries and fragments are left out."""
    head = read_head(bytearray(b"GET " + target + b" HTTP/1.1\r\n\r\n"))
    assert head is not None
    assert head.path == path


KEEP_ALIVE = [
    (b"1.1", b"", True),
    (b"1.1", b"connection: close\r\n", False),
    (b"1.0", b"", False),
    (b"1.0", b"connection: keep-alive\r\n", True),
]


@pytest.mark.parametrize(("version", "line", "kept"), KEEP_ALIVE)
def test_how_long_a_connection_lives(version: bytes, line: bytes, kept: bool) -> None:
    """HTTP/1.1 keeps it unless told, HTTP/1.0 only when told."""
    head = read_head(bytearray(b"GET / HTTP/" + version + b"\r\n" + line + b"\r\n"))
    assert head is not None
    assert head.keep_alive is kept


def test_chunked_wins_over_a_length_and_line_feeds_are_enough() -> None:
    """Both headers: the coding counts. Lines may end without a carriage return."""
    data = bytearray(b"POST / HTTP/1.1\nContent-Length: 5\nTransfer-Encoding: chunked\n\n")
    head = read_head(data)
    assert head is not None
    assert head.length is None
    assert not data


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=12), st.lists(st.integers(1, 60), max_size=30))
def test_a_chunked_body_is_the_same_however_it_arrives(payload: bytes, sizes: list[int], cuts: list[int]) -> None:
    """Chunks of any size, arriving in pieces of any size, give the payload and leave what follows alone."""
    coded, rest = b"", payload
    for size in sizes:
        part, rest = rest[:size], rest[size:]
        coded += b"%x\r\n%b\r\n" % (len(part), part) if part else b""
    coded += (b"%x\r\n%b\r\n" % (len(rest), rest) if rest else b"") + b"0\r\n\r\n"
    stream, body, buffer = coded + b"NEXT", Body(None, 1000), bytearray()
    while stream:
        size = cuts.pop() if cuts else 7
        buffer += stream[:size]
        stream = stream[size:]
        body.take(buffer)
    assert body.complete
    assert (bytes(body.data), bytes(buffer)) == (payload, b"NEXT")


@pytest.mark.parametrize("data", [b"ZZ\r\nabc\r\n", b"3\r\nabcd\r\n0\r\n\r\n"])
def test_a_chunk_that_is_none_is_refused(data: bytes) -> None:
    """A size that is no number, and a chunk that is longer than it says."""
    with pytest.raises(BadBody):
        Body(None, 100).take(bytearray(data))


def test_what_is_beyond_the_limit_is_counted_and_not_kept() -> None:
    """A body larger than the limit is known as such without being held in memory."""
    body = Body(10**9, 100)
    for _ in range(50):
        body.take(bytearray(b"x" * 1000))
    assert body.too_large
    assert len(body.data) <= 1100
