"""Answers cut at any byte: where they end and what their body is."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.load.framing import ProtocolError, body_slices, read_head

BODY = b'data: {"a": 1}\n\n'


def chunked(chunks: list[bytes]) -> bytes:
    coded = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"


def cut(whole: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    return [whole[start:end] for start, end in pairwise(edges)]


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(0, 10_000), max_size=30))
def test_a_chunked_answer_ends_at_its_last_byte_however_it_is_cut(chunks: list[bytes], cuts: list[int]) -> None:
    """Only the last read ends it, and the body is what was sent, read by read."""
    reads = cut(chunked(chunks), cuts)
    framing = None
    for number in range(1, len(reads) + 1):
        seen = reads[:number]
        framing = framing or read_head(b"".join(seen))
        if framing is not None:
            assert framing.ended(seen, sum(map(len, seen))) == (number == len(reads))
    assert framing is not None
    assert framing.status == 200
    pieces, whole = body_slices(reads, framing)
    assert whole
    assert len(pieces) == len(reads)
    assert b"".join(pieces) == b"".join(chunks)


@given(st.binary(max_size=60), st.lists(st.integers(0, 10_000), max_size=20))
def test_an_answer_of_stated_length_ends_there(body: bytes, cuts: list[int]) -> None:
    """Content-Length counts the body, whatever it holds, and it is handed out as it came."""
    reads = cut(b"HTTP/1.1 429 Too Many\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body), cuts)
    framing = read_head(b"".join(reads))
    assert framing is not None
    assert framing.status == 429
    for number in range(1, len(reads) + 1):
        seen = reads[:number]
        total = sum(map(len, seen))
        if total >= framing.body_at:
            assert framing.ended(seen, total) == (number == len(reads))
    assert body_slices(reads, framing) == ([*body_slices(reads, framing)[0]], True)
    assert b"".join(body_slices(reads, framing)[0]) == body


def test_text_that_looks_like_the_last_chunk_does_not_end_an_answer() -> None:
    """A read that happens to end like a last chunk is told apart by the chunks themselves."""
    whole = chunked([b"x 0\r\n\r\n y", b"z"])
    at = whole.index(b"0\r\n\r\n y") + 5
    framing = read_head(whole)
    assert framing is not None
    assert not framing.ended([whole[:at]], at)
    assert framing.ended([whole[:at], whole[at:]], len(whole))


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: close", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0", False),
        (b"HTTP/1.1 200 OK", False),
    ],
)
def test_a_connection_is_kept_as_the_head_says(head: bytes, keeps: bool) -> None:
    """HTTP/1.1 keeps unless told otherwise; without a length the connection's end is the answer's."""
    framing = read_head(head + b"\r\n\r\n")
    assert framing is not None
    assert framing.keep_alive is keeps


def test_interim_answers_are_passed_over() -> None:
    """100 Continue is not the answer."""
    framing = read_head(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno")
    assert framing is not None
    assert framing.status == 503


@pytest.mark.parametrize("bad", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"x" * 70_000])
def test_what_is_no_http_is_said(bad: bytes) -> None:
    """Another protocol on the port is told at once."""
    with pytest.raises(ProtocolError):
        read_head(bad)


def test_a_broken_chunk_is_said() -> None:
    """A size that is no number ends the reading of the body."""
    whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc"
    framing = read_head(whole)
    assert framing is not None
    with pytest.raises(ProtocolError):
        body_slices([whole], framing)
