"""Damaged files of every form: whatever happens to a file, it is read or refused in one line, and never raises else."""

from __future__ import annotations

import contextlib
import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.workload.request import Request
from harness.workload.traces.read import Trace, TraceFile, has_moments, read_dataset, read_trace
from harness.workload.traces.window import Window
from harness.workload.workload import dataset, replayed
from tests.workload.traces.samples import samples

WEIRD = (
    b"NaN", b"-1", b"1e999", b"Infinity", b"-0", b"1e400", b"99999999999999999999999999", b"null", b"true", b"[]",
    b"{}", b'""', b'"x"', b"0.5", b"\x00", b"\xff", b"\xed\xa0\x80", b'"\\ud800"', b"1" * 5000, b"[" * 2000, b",",
    b"\n", b'"',
)  # fmt: skip
PLACES = [chr(each).encode() for each in b'0123456789"[]{},:\n']


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[str, int, bytes]]:
    """What is done to a file: cut, overwrite, insert, double, or put something odd in place of a number or a sign."""
    kinds = st.sampled_from(["cut", "flip", "insert", "double", "swap", "value"])
    return draw(
        st.lists(
            st.tuples(kinds, st.integers(0, 10**6), st.one_of(st.sampled_from(WEIRD), st.binary(max_size=6))),
            min_size=1,
            max_size=4,
        )
    )


def damaged(content: bytes, steps: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, piece in steps:
        at = place % (len(content) + 1)
        if kind == "cut":
            content = content[:at]
        elif kind == "flip":
            content = content[:at] + piece + content[at + len(piece) :]
        elif kind == "insert":
            content = content[:at] + piece + content[at:]
        elif kind == "double":
            content = content[:at] + content[at // 2 :]
        elif kind == "swap":
            lines = content.splitlines(keepends=True)
            random.Random(place).shuffle(lines)
            content = b"".join(lines)
        else:
            content = _with_value(content, place, piece)
    return content


def _with_value(content: bytes, place: int, piece: bytes) -> bytes:
    """One run of digits replaced."""
    starts = [at for at in range(len(content)) if content[at : at + 1].isdigit() and not content[at - 1 : at].isdigit()]
    if not starts:
        return content + piece
    at = starts[place % len(starts)]
    end = at
    while content[end : end + 1].isdigit():
        end += 1
    return content[:at] + piece + content[end:]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return samples(tmp_path_factory.mktemp("samples"))


@pytest.mark.parametrize(
    "form",
    ["azure", "burstgpt", "mooncake", "bailian", "sharegpt", "chat-log", "weka", "otel", "dynamo", "table", "records"],
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=damages(), packed=st.booleans(), after=st.booleans())
@example(steps=[("cut", 30, b"")], packed=True, after=True)
def test_a_damaged_file_is_read_or_refused(
    form: str,
    steps: list[tuple[str, int, bytes]],
    packed: bool,
    after: bool,
    made: dict[str, bytes],
    tmp_path: Path,
) -> None:
    """Damaged before or after it was packed; what is still read can be sent, and says of each row what it may."""
    content = made[form]
    if packed and not after:
        content = gzip.compress(damaged(content, steps), compresslevel=1)
    else:
        content = damaged(gzip.compress(content, compresslevel=1) if packed else content, steps)
    path = tmp_path / "trace"
    path.write_bytes(content)
    file = TraceFile.of(path, "trace")
    for read in (read_trace, read_dataset):
        found = _read_or_refused(read, file)
        if isinstance(found, UsageError):
            refused = str(found)
            assert refused.startswith("trace")
            assert "\n" not in refused
        else:
            _check(found)
    with contextlib.suppress(UsageError):
        has_moments(file)


def _read_or_refused(read: Callable[[TraceFile], Trace], file: TraceFile) -> Trace | UsageError:
    try:
        return read(file)
    except UsageError as error:
        return error


def _check(trace: Trace) -> None:
    assert trace.rows
    assert [row.offset for row in trace.rows] == sorted(row.offset for row in trace.rows)
    for row in trace.rows:
        assert 0 <= row.offset < 4e8
        assert row.input_tokens is None or 0 <= row.input_tokens <= 10_000_000
        assert row.output_tokens is None or 0 <= row.output_tokens <= 10_000_000
        assert row.delay is None or row.delay >= 0
        (row.text or "").encode()
        (row.session_id or "").encode()
    workload = replayed(trace, Window(), seed=1) if trace.timed else dataset(trace, seed=1, output_tokens="5")
    for number in range(min(4, len(trace.rows))):
        if (trace.rows[number].input_tokens or 0) < 100_000:
            assert isinstance(workload.request(number), Request)
