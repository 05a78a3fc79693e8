"""Traces of real requests: what is read, which rows are sent, and how a wrong line is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.workload.traces import TraceRow, read_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:16:46.6805899,879,55
2023-11-16 18:16:46.6805900,91,16
"""
MOONCAKE = "\n".join(
    json.dumps({"timestamp": moment, "input_length": 600, "output_length": 5, "hash_ids": [0, block]})
    for moment, block in ((1000, 1), (1000, 2), (2500, 3))
)


def write(folder: Path, text: str, name: str = "trace") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_an_azure_trace_is_read_to_the_last_digit(tmp_path: Path) -> None:
    """Moments count from the first row and are moved by nothing."""
    trace = read_trace(write(tmp_path, AZURE))
    assert trace.rows[1] == TraceRow(4.314579, 396, 109)
    assert [row.offset for row in trace.rows] == [0.0, 4.314579, 59.9999999, 60.0]
    assert trace.block_tokens == 0


def test_a_duration_takes_the_rows_before_its_end(tmp_path: Path) -> None:
    """The row at the very end is not in."""
    path = write(tmp_path, AZURE)
    assert len(read_trace(path, 60).rows) == 3
    assert len(read_trace(path, 60.0000001).rows) == 4
    assert read_trace(path, 60).sha256 == read_trace(path).sha256


def test_crlf_and_a_byte_order_mark_are_no_mistakes(tmp_path: Path) -> None:
    """As spreadsheets write it."""
    trace = read_trace(write(tmp_path, "\ufeff" + AZURE.replace("\n", "\r\n")))
    assert len(trace.rows) == 4


def test_a_mooncake_trace_has_blocks(tmp_path: Path) -> None:
    """Milliseconds become seconds; equal ids are equal blocks."""
    trace = read_trace(write(tmp_path, MOONCAKE))
    assert trace.block_tokens == 512
    assert trace.rows == (TraceRow(0, 600, 5, (0, 1)), TraceRow(0, 600, 5, (0, 2)), TraceRow(1.5, 600, 5, (0, 3)))


@pytest.mark.parametrize(
    ("header", "cells", "offset"),
    [
        ("arrived_at,num_prefill_tokens,num_decode_tokens", ("1.5", "1.75"), 0.25),
        ("Timestamp,Model,Request tokens,Response tokens", ("0,m", "2e1,m"), 20.0),
        ("TIMESTAMP,input_tokens,output_tokens", ("2024-05-10 00:00:00.009930+00:00", "2024-05-10 00:00:01Z"), 0.99007),
        ("TIMESTAMP,input_tokens,output_tokens", ("2024-05-10T01:00:00+0100", "2024-05-10T00:00:02"), 2.0),
    ],
)
def test_other_columns_and_moments_are_known(
    header: str, cells: tuple[str, str], offset: float, tmp_path: Path
) -> None:
    """Names of other published traces; seconds, dates, time zones."""
    text = "\n".join([header, *(f"{cell},7,8.0" for cell in cells)])
    trace = read_trace(write(tmp_path, text))
    assert trace.rows == (TraceRow(0.0, 7, 8), TraceRow(offset, 7, 8))


def test_rows_are_sent_in_the_order_of_their_moments(tmp_path: Path) -> None:
    """A row that stands too late is sent at its moment; one from before the first row has none."""
    text = "timestamp,input_tokens,output_tokens\n10,1,1\n12,2,2\n11,3,3\n9,4,4\n"
    assert [row.input_tokens for row in read_trace(write(tmp_path, text)).rows] == [1, 3, 2]


HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
GOOD = "2023-11-16 18:15:46,1,1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "trace: holds nothing"),
        ("\n \n", "trace: holds nothing"),
        ("a,b\n1,2\n", "trace:1: no column for the moment of a request in the header 'a,b'"),
        ("TIMESTAMP,GeneratedTokens\n", "trace:1: no column for the input of a request"),
        (HEADER, "trace: no request in this duration"),
        (HEADER + GOOD + "yesterday,1,1\n", "trace:3: column TIMESTAMP: expected seconds, or a moment such as "),
        (HEADER + GOOD + "2023-13-16 18:15:46,1,1\n", "trace:3: column TIMESTAMP: expected a moment"),
        (
            HEADER + GOOD + "2023-11-16 18:15:46,x,1\n",
            "trace:3: column ContextTokens: expected a number of tokens, found 'x'",
        ),
        (
            HEADER + GOOD + "2023-11-16 18:15:46,1\n",
            "trace:3: column GeneratedTokens: expected a number of tokens, found nothing",
        ),
        (
            HEADER + GOOD + "2023-11-16 18:15:46,1,-4\n",
            "trace:3: column GeneratedTokens: expected a number of tokens, found '-4'",
        ),
        (HEADER + GOOD + '2023-11-16 18:15:46,"1,1\n', "trace:3: no CSV: "),
        ("{oops\n", "trace:1: expected a JSON object, found "),
        (MOONCAKE + "\n[1]\n", "trace:4: expected a JSON object, found '[1]'"),
        (
            '{"timestamp": "now", "input_length": 1, "output_length": 1}',
            "trace:1: column timestamp: expected milliseconds",
        ),
        (
            '{"timestamp": 0, "input_length": 1}',
            "trace:1: column output_length: expected a number of tokens, found nothing",
        ),
        ('{"timestamp": 0, "input_length": true, "output_length": 1}', "trace:1: column input_length: expected"),
        (
            '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": ["a"]}',
            "trace:1: column hash_ids: expected a list of whole numbers",
        ),
    ],
)
def test_a_wrong_line_is_named_with_its_column(text: str, message: str, tmp_path: Path) -> None:
    """Exit 2: file, line, column, what was expected and what was found."""
    with pytest.raises(UsageError) as caught:
        read_trace(write(tmp_path, text))
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(message)


def test_unreadable_files_are_usage_errors(tmp_path: Path) -> None:
    """Missing, a folder, not text."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, message in (("none", "No such file"), ("", "Is a directory"), ("binary", "not UTF-8 at byte 0")):
        with pytest.raises(UsageError, match=message):
            read_trace(tmp_path / name)
