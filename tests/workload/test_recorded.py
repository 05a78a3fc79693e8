"""Lengths as they were recorded: lists and traces, each side by itself, or prompts and answers together."""

from __future__ import annotations

import gzip
import json
import statistics
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.workload.lengths import Listed, parse_lengths
from harness.workload.recorded import recorded
from harness.workload.workload import DrawnWorkload, drawn, from_dict
from tests.workload.traces.samples import AZURE, SHAREGPT, parquet

TOGETHER = "".join(f"{length} {length + 1}\n" for length in range(10, 1010, 10))


def write(folder: Path, content: str | bytes, name: str = "lengths.txt") -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def sample(lengths: Listed) -> list[int]:
    return [lengths.at((step + 0.5) / 1000) for step in range(1000)]


def test_a_list_gives_each_length_as_often_as_it_stands_there(tmp_path: Path) -> None:
    """One to a line, `4k` too, with remarks; packed as well."""
    text = "# of our service\n100\n4k  # long\n\n100\n300\n"
    for content in (text, gzip.compress(text.encode())):
        lengths = parse_lengths("file:" + write(tmp_path, content))
        assert isinstance(lengths, Listed)
        assert [sample(lengths).count(tokens) for tokens in (100, 300, 4096)] == [500, 250, 250]
        assert str(lengths).startswith("file:lengths.txt (4 rows; sha256 ")


def test_a_trace_gives_prompts_or_answers(tmp_path: Path) -> None:
    """By the side that asks; of Parquet too."""
    trace = "file:" + write(tmp_path, AZURE, "azure.csv")
    assert parse_lengths(trace, "input_tokens").longest == 879
    assert parse_lengths(trace, "output_tokens").longest == 109
    table = write(tmp_path, parquet([{"input_tokens": 5, "output_tokens": 6}]), "table.parquet")
    assert parse_lengths(f"file:{table}", "output_tokens").at(0.5) == 6


def test_the_same_file_on_both_sides_is_drawn_in_pairs(tmp_path: Path) -> None:
    """Each answer one token longer than its prompt, as in the file; two files are drawn apart."""
    one, other = ("file:" + write(tmp_path, TOGETHER, name) for name in ("one.txt", "other.txt"))
    pairs, apart = drawn("x", one, one, seed=1), drawn("x", one, other, seed=1)
    asked = [pairs.lengths(number) for number in range(500)]
    assert all(answer == prompt + 1 for prompt, answer in asked)
    assert len(set(asked)) > 90
    inputs, outputs = zip(*(apart.lengths(number) for number in range(500)), strict=True)
    assert abs(statistics.correlation(inputs, outputs)) < 0.2
    assert pairs.describe()["lengths"] == "prompt and answer drawn together, as pairs"
    assert pairs.describe()["hash"] != apart.describe()["hash"]


def test_one_number_to_a_line_has_no_pairs(tmp_path: Path) -> None:
    """Nothing says which answer belongs to which prompt."""
    text = "file:" + write(tmp_path, "10\n20\n30\n")
    workload = drawn("x", text, text, seed=1)
    assert workload.pairs is None
    assert len({workload.lengths(number) for number in range(100)}) == 9


def test_recorded_lengths_travel_without_their_file(tmp_path: Path) -> None:
    """A load process on another machine draws the same."""
    path = write(tmp_path, TOGETHER)
    for inputs, outputs in ((f"file:{path}", f"file:{path}"), (f"file:{path}", "5")):
        workload = drawn("x", inputs, outputs, seed=3)
        text = json.dumps(workload.as_dict())
        Path(path).unlink()
        again = from_dict(json.loads(text))
        assert isinstance(again, DrawnWorkload)
        assert [again.request(number) for number in range(20)] == [workload.request(number) for number in range(20)]
        write(tmp_path, TOGETHER)


def test_rows_of_no_token_are_left_out_and_counted(tmp_path: Path) -> None:
    """Nobody can ask for none."""
    lengths = recorded(write(tmp_path, "10 0\n0 10\n5 6\n"))
    assert lengths.pairs == ((5, 6),)
    assert "1 rows, 2 of no token left out" in str(lengths)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds nothing"),
        ("5\nmany\n", r"lengths.txt:2: expected a number such as 200 or 4k, found 'many'"),
        ("5\n6 7\n", r"lengths.txt:2: 2 numbers, where the first line has 1"),
        ("5 6 7\n", r"lengths.txt:1: 3 numbers"),
        ("5\n-7\n", r"lengths.txt:2: expected a number"),
        ("0\n0\n", "holds no length above zero"),
        ("a,b\n1,2\n", "no form of a trace that is known"),
        (b"5\n\xff\n", "lengths.txt:2: not UTF-8"),
        (gzip.compress(b"5\n6\n" * 1000, mtime=0)[:30], "ends in the middle of its compressed data"),
        (SHAREGPT, "hold texts whose tokens nobody counted. Give it as --dataset"),
    ],
)
def test_a_wrong_file_is_one_line(content: str | bytes, message: str, tmp_path: Path) -> None:
    """Exit 2, with the place."""
    with pytest.raises(UsageError, match=message):
        parse_lengths("file:" + write(tmp_path, content))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Nor a name."""
    with pytest.raises(UsageError, match="No such file"):
        parse_lengths(f"file:{tmp_path}/none")
    with pytest.raises(UsageError, match="file: names no file"):
        parse_lengths("file:")
    with pytest.raises(UsageError, match="is a directory"):
        parse_lengths(f"file:{tmp_path}")
