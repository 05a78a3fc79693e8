"""A part from the middle of a long file: the same rows as by reading it all, without reading it all."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from harness.errors import UsageError
from harness.workload.traces import read as traces_read
from harness.workload.traces import seek
from harness.workload.traces.read import Trace, TraceFile, read_trace
from harness.workload.traces.window import Window

ROWS = 30_000


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return packed


def csv_file(disorder: float) -> str:
    """A row a second, each up to so many seconds from its place."""
    rng = random.Random(3)
    rows = (f"{max(0.0, at + rng.uniform(-disorder, disorder)):.3f},{at % 4000 + 1},{at % 7}" for at in range(ROWS))
    return "\n".join(["arrival_s,input_tokens,output_tokens", *rows]) + "\n"


def jsonl_file() -> str:
    return "".join(
        json.dumps({"timestamp": 1000 * at, "input_length": 20, "output_length": at}) + "\n" for at in range(ROWS)
    )


def read(folder: Path, content: bytes, window: Window) -> Trace:
    (folder / "trace").write_bytes(content)
    return read_trace(TraceFile.of(folder / "trace", "trace"), window)


@pytest.mark.parametrize("start", [0.5, 900.0, 15_000.0, 29_980.0])
@pytest.mark.parametrize("content", [csv_file(0.0), csv_file(9.0), jsonl_file()], ids=["csv", "disorder", "jsonl"])
@pytest.mark.parametrize("pack", [bytes, partial(gzip.compress, compresslevel=1), zstd], ids=["plain", "gzip", "zstd"])
def test_a_part_is_the_same_however_it_is_found(
    pack: Callable[[bytes], bytes], start: float, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows and the same hash as by looking at all of them."""
    monkeypatch.setattr(seek, "_BLOCK", 100_000)
    window, packed = Window(start=start, duration=200.0), pack(content.encode())
    found = read(tmp_path, packed, window)
    monkeypatch.setattr(traces_read, "find_place", lambda *_: None)
    read_through = read(tmp_path, packed, window)
    assert found.rows == read_through.rows
    assert found.sha256 == read_through.sha256
    assert found.rows


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_what_lies_before_is_not_read(
    pack: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged line in the first half goes unseen; one after the place is told with where the counting begins."""
    monkeypatch.setattr(seek, "_BLOCK", 100_000)
    lines = csv_file(0.0).splitlines(keepends=True)
    early = [*lines[:9000], "oops\n", *lines[9001:]]
    window = Window(start=20_000.0, duration=20.0)
    assert len(read(tmp_path, pack("".join(early).encode()), window).rows) == 20
    late = [*lines[:20_005], "1,oops,1\n", *lines[20_005:]]
    with pytest.raises(
        UsageError, match=r"trace from byte [\d,]+ on:\d+: column input_tokens: expected a number of tok"
    ):
        read(tmp_path, pack("".join(late).encode()), window)


def test_a_file_that_cannot_be_searched_is_read_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that are no rows by themselves, in the place that is looked at."""
    monkeypatch.setattr(seek, "_NEAR", 64)
    monkeypatch.setattr(seek, "_BLOCK", 640)
    rows = [f'{at},"a{chr(10)}b",5,5' for at in range(2000)]
    content = "\n".join(["arrival_s,remark,input_tokens,output_tokens", *rows])
    for packed in (content.encode(), gzip.compress(content.encode())):
        trace = read(tmp_path, packed, Window(start=1500.0, duration=3.0))
        assert [row.offset for row in trace.rows] == [0.0, 1.0, 2.0]
