"""Files of any kind: what they are is seen in their bytes, and what is wrong with them is told in one line."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

from harness.errors import UsageError
from harness.workload.traces import json_items
from harness.workload.traces.container import open_container, read_head
from harness.workload.traces.read import TraceFile, read_trace
from harness.workload.traces.row import Record
from tests.workload.traces.samples import AZURE, MOONCAKE, parquet

ZIPPED = gzip.compress(AZURE.encode(), mtime=0)

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
DATE = "2023-11-16 18:15:46"
GOOD = f"{DATE},1,1\n"
TOKENS = "expected a number of tokens"
LINE = '{"timestamp": 0, "input_length": 1, "output_length": 1}\n'


def write(folder: Path, content: bytes | str, name: str = "trace") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def records(folder: Path, content: bytes | str) -> list[Record]:
    return list(open_container(write(folder, content), "trace").records())


def test_the_bytes_say_what_a_file_is(tmp_path: Path) -> None:
    """Not its name; a byte order mark and CRLF are no mistakes."""
    kinds = {
        "\ufeff" + AZURE.replace("\n", "\r\n"): "csv",
        "\ufeff" + MOONCAKE: "jsonl",
        "\n " + MOONCAKE: "jsonl",
        '{"a": 1}': "jsonl",
        '{\n"a": 1\n}': "json",
        ' [{"a": 1}]': "json",
        parquet([{"a": 1}]): "parquet",
    }
    for content, kind in kinds.items():
        assert open_container(write(tmp_path, content), "trace").kind == kind
    assert len(read_trace(TraceFile.of(write(tmp_path, next(iter(kinds))))).rows) == 4


def test_json_lists_documents_and_sequences_are_the_same_records(tmp_path: Path) -> None:
    """Whatever blanks and line breaks stand between them; lines are counted."""
    expected = [{"a": 1, "b": "é]"}, {"a": 2}, {"a": "3.5"}]
    for text in (
        '[{"a": 1, "b": "é]"},\n{"a": 2}, {"a": 3.5}]\n',
        '[\n {\n"a": 1,\n"b": "é]"\n}\n,\n{"a": 2},{"a": 3.5}\n]',
        '{"a": 1,\n "b": "é]"} {"a": 2}\n{"a": 3.5}',
        '{"a": 1, "b": "é]"}\n\n{"a": 2}\n{"a": 3.5}\n',
    ):
        assert [record.fields for record in records(tmp_path, text)] == expected
    assert [record.line for record in records(tmp_path, '[\n {"a":\n1},\n{"a": 2}]')] == [2, 4]


def test_a_list_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that go over the ends of pieces, letters of several bytes among them, come out whole."""
    monkeypatch.setattr(json_items, "_CHUNK", 3)
    items = [{"text": "ä€😀" * number, "n": number} for number in range(20)]
    content = json.dumps(items, ensure_ascii=False, indent=2)
    assert [record.fields for record in records(tmp_path, content)] == items


def test_a_long_list_is_not_read_for_its_beginning(tmp_path: Path) -> None:
    """The first items of megabytes come after some kilobytes."""
    file = io.BytesIO(b"[" + b",".join([b'{"a": "%s"}' % (b"x" * 1000)] * 5000) + b"]")
    reading = json_items.json_items(file, "t")
    assert [next(reading).line for _ in range(10)] == [1] * 10
    assert file.tell() < 200_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "trace: holds nothing"),
        ("\n \n", "trace: holds nothing"),
        (gzip.compress(b"", mtime=0), "trace: holds nothing"),
        ("[]", "trace: holds no request"),
        (HEADER, "trace: holds no request"),
        ("a,b\n1,2\n", "trace: no form of a trace that is known: it has columns 'a, b'. Known: Azure LLM"),
        ('{"a": 1}', "trace: no form of a trace that is known: it has keys 'a'. Known: "),
        ("TIMESTAMP,GeneratedTokens\n1,2\n", "trace: no form of a trace that is known"),
        (HEADER + GOOD + "yesterday,1,1\n", "trace:3: column TIMESTAMP: expected a date such as "),
        (HEADER + GOOD + "2023-13-16 18:15:46,1,1\n", "trace:3: column TIMESTAMP: expected a date"),
        (HEADER + GOOD + f"{DATE},x,1\n", f"trace:3: column ContextTokens: {TOKENS}, found 'x'"),
        (HEADER + GOOD + f"{DATE},1\n", f"trace:3: column GeneratedTokens: {TOKENS}, found nothing"),
        (HEADER + GOOD + f"{DATE},1,-4\n", f"trace:3: column GeneratedTokens: {TOKENS}, found '-4'"),
        (HEADER + GOOD + f"{DATE},NaN,4\n", f"trace:3: column ContextTokens: {TOKENS}, found 'NaN'"),
        (HEADER + GOOD + f"{DATE},99999999,4\n", "trace:3: column ContextTokens: expected at most 10,000,000 tokens"),
        (HEADER + GOOD + f"{DATE},1,2,3\n", "trace:3: 4 cells under a header of 3 columns"),
        (HEADER + GOOD + f'{DATE},"1,1\n', "trace:3: no CSV: "),
        ("a,b,a\n1,2,3\n", "trace:1: two columns are called 'a'"),
        ("{oops\n", "trace:1: not valid JSON: Expecting property name"),
        (LINE + "[1]\n", "trace:2: expected a JSON object, found [1]"),
        (LINE + '{"timestamp": 0, "input_len', "trace:2: expected a JSON object, found '{\"timestamp\": 0"),
        (LINE + '{"timestamp": NaN}', "trace:2: expected a JSON object, found '{\"timestamp\": NaN}'"),
        (LINE + "[" * 100_000 + "\n", "trace:2: expected a JSON object, found 'brackets nested too deep'"),
        ("[" * 100_000, "trace:1: brackets nested too deep"),
        ('[{"a": 1}, {"a"', "trace:1: ends in the middle of a JSON object"),
        ('[{"a": 1}, 5]', "trace:1: expected a JSON object, found 5"),
        ('[{"a": 1}', "trace:1: ends in the middle of its list"),
        ('[{"a": 1}] x', "trace:1: something follows the list"),
        ('[{"a": 1},\n{"a" 2}]', "trace:2: not valid JSON: Expecting ':' delimiter"),
        ('{"timestamp": "now", "input_length": 1, "output_length": 1}', "trace:1: column timestamp: expected a moment"),
        ('{"timestamp": 0, "input_length": 1}', f"trace:1: column output_length: {TOKENS}, found nothing"),
        ('{"timestamp": 0, "input_length": true, "output_length": 1}', "trace:1: column input_length: expected"),
        (
            '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": ["a"]}',
            "trace:1: column hash_ids: expected a list of whole numbers",
        ),
        (HEADER.encode() + b"\xff\xfe,1,1\n", "trace:2: not UTF-8 at byte 0 of the line"),
        (b'[{"a": 1}, "\xff"]', "trace:1: not UTF-8"),
        (AZURE.encode("utf-16"), "trace: is UTF-16, not UTF-8"),
        (b"PK\x03\x04rest", "trace: is a zip archive: unpack it"),
        (b"\x1f\x8b\x08\x00rest", "trace: ends in the middle of its compressed data"),
        (ZIPPED[:60], "trace: ends in the middle of its compressed data. Fetch the file again."),
        (ZIPPED[:-4] + b"oops", "trace: cannot be read: Incorrect length of data"),
        (ZIPPED + b"junk", "trace: cannot be read: Not a gzipped file"),
        (pa.compress(AZURE.encode(), codec="zstd", asbytes=True)[:40], "trace: cannot be read: "),
        (parquet([{"a": 1}])[:40], "trace: no Parquet that can be read: "),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_one_line(content: bytes | str, message: str, tmp_path: Path) -> None:
    """File, line, column, what was expected and what was found; exit 2."""
    with pytest.raises(UsageError) as caught:
        read_trace(TraceFile.of(write(tmp_path, content), "trace"))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """Missing, a folder, a pipe, which could not be read twice, and a name that no file has."""
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("none", "No such file"),
        ("", "is a directory. Name a file in it."),
        ("pipe", "is not a regular file"),
        ("a\0b", "is not a file's name"),
        ("x" * 300, "File name too long"),
    ):
        with pytest.raises(UsageError, match=message):
            open_container(Path(f"{tmp_path}/{name}"), "trace")


def test_a_line_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it fills the memory."""
    monkeypatch.setattr("harness.workload.traces.text_lines.LONGEST", 100)
    monkeypatch.setattr(json_items, "LONGEST", 100)
    for content in ("a" * 200, '{"a": "' + "x" * 200, '[{"a": "' + "x" * 200):
        with pytest.raises(UsageError, match="MiB in one line or item"):
            records(tmp_path, content)


def test_the_head_of_long_lines_is_no_more_than_was_read_anyway(tmp_path: Path) -> None:
    """A line may be a conversation of megabytes; a short one gives a hundred."""
    long = '{"a": "%s"}\n' % ("x" * 200_000)
    assert len(read_head(open_container(write(tmp_path, long * 5), "t")).records) == 1
    assert len(read_head(open_container(write(tmp_path, MOONCAKE * 200), "t")).records) == 100
    assert len(read_head(open_container(write(tmp_path, '{"a": 1}'), "t")).records) == 1
