"""Answers cut at any byte: where they end and what their body is."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.load.framing import Body, Chunked, ProtocolError, Sized, parse_head, split_head

cuts = st.lists(st.integers(0, 10_000), max_size=30)


def coded(chunks: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(whole), *(place % (len(whole) + 1) for place in places)})
    return [whole[start:end] for start, end in pairwise(edges)]


def fed(body: Body, reads: list[bytes], portions: list[int]) -> list[bytes]:
    """What the body gives for these reads when they are fed in portions."""
    edges = [0, *sorted(min(place, len(reads)) for place in portions), len(reads)]
    return [piece for start, end in pairwise(edges) for piece in body.feed(reads[start:end])]


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), cuts, st.lists(st.integers(0, 30), max_size=4))
def test_a_chunked_body_ends_at_its_last_byte_however_it_is_cut(
    chunks: list[bytes], places: list[int], portions: list[int]
) -> None:
    """Only the last read ends it, each read yields its own content, and the content is what was sent."""
    reads = cut(coded(chunks), places)
    body = Chunked()
    for number, read in enumerate(reads, 1):
        body.feed([read])
        assert body.complete == (number == len(reads))
    at_once, one_by_one = fed(Chunked(), reads, portions), [Chunked() for _ in range(1)]
    assert b"".join(at_once) == b"".join(chunks)
    assert at_once == [piece for read in reads for piece in one_by_one[0].feed([read])]


@given(st.integers(1, 40), st.integers(1, 6), cuts, st.binary(max_size=9))
def test_many_like_chunks_read_alone_or_glued(size: int, glue: int, places: list[int], after: bytes) -> None:
    """The quick way through chunks of known shape finds what the slow way finds, with bytes that follow the end."""
    chunks = [bytes([65 + number]) * size for number in range(20)]
    each = [coded([chunk])[:-5] for chunk in chunks]
    glued = [b"".join(each[at : at + glue]) for at in range(0, 20, glue)]
    for reads in (glued, cut(b"".join(each), places)):
        body = Chunked()
        pieces = body.feed([*reads, b"0\r\n\r\n" + after])
        assert b"".join(pieces) == b"".join(chunks)
        assert len(pieces) == len(reads) + 1
        assert body.complete
        assert body.rest == after


def test_extensions_and_trailers_are_passed_over() -> None:
    """A size line may say more than the size, and fields may follow the last chunk."""
    body = Chunked()
    assert body.feed([b'3;name="x"\r\nabc\r\n0\r\nExpires: now\r\n', b"\r\n"]) == [b"abc", b""]
    assert body.complete


@given(st.binary(max_size=60), cuts)
def test_an_answer_of_stated_length_ends_there(content: bytes, places: list[int]) -> None:
    """Content-Length counts the body, whatever it holds, and it is handed out as it came."""
    found = split_head(b"HTTP/1.1 429 Too Many\r\ncontent-length: %d\r\n\r\n%s" % (len(content), content))
    assert found is not None
    head, rest = found
    assert (head.status, rest) == (429, content)
    reads, body = cut(content, places), head.body()
    assert body.feed(reads) == reads
    assert body.complete


def test_bytes_beyond_a_stated_length_are_told() -> None:
    """A connection on which more follows cannot be used again."""
    body = Sized(3)
    assert body.feed([b"ab", b"cd"]) == [b"ab", b"c"]
    assert (body.complete, body.rest) == (True, b"d")


@given(st.lists(st.integers(0, 10_000), max_size=8))
def test_a_head_is_found_however_it_is_cut(places: list[int]) -> None:
    """Not before its last byte, and what follows is not lost."""
    reads = cut(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\n", places)
    for number in range(1, len(reads)):
        assert split_head(b"".join(reads[:number])) is None
    found = split_head(b"".join(reads) + b"no")
    assert found is not None
    assert (found[0].status, found[1]) == (503, b"no")


def test_text_that_looks_like_the_last_chunk_does_not_end_an_answer() -> None:
    """A read that happens to end like a last chunk is told apart by the chunks themselves."""
    whole = coded([b"x 0\r\n\r\n y", b"z"])
    at = whole.index(b"0\r\n\r\n y") + 5
    body = Chunked()
    body.feed([whole[:at]])
    assert not body.complete
    body.feed([whole[at:]])
    assert body.complete


@pytest.mark.parametrize(
    ("head", "keeps", "open_ended"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0", True, False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: close", False, False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0", False, False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked", True, False),
        (b"HTTP/1.1 204 No Content", True, False),
        (b"HTTP/1.1 200 OK", False, True),
    ],
)
def test_a_connection_is_kept_as_the_head_says(head: bytes, keeps: bool, open_ended: bool) -> None:
    """HTTP/1.1 keeps unless told otherwise; without a length the connection's end is the answer's."""
    parsed = parse_head(head)
    assert parsed.keep_alive is keeps
    assert parsed.body().open_ended is open_ended


@pytest.mark.parametrize(
    "bad", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"x" * 300_000, b"HTTP/1.1 200\r\ncontent-length: x\r\n\r\n"]
)
def test_what_is_no_http_is_said(bad: bytes) -> None:
    """Another protocol on the port is told at once."""
    with pytest.raises(ProtocolError):
        split_head(bad)


@pytest.mark.parametrize("bad", [b"zz\r\nabc", b"-3\r\nabc", b"\r\nabc", b"3\r\nabcd\r\n", b"x" * 70_000])
def test_a_broken_chunk_is_said(bad: bytes) -> None:
    """A size that is no number, or content of another size, ends the reading of the body."""
    with pytest.raises(ProtocolError):
        Chunked().feed([bad])
