"""A data set as a workload: its rows one after another, and level after level from another place on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.workload.request import LEVEL_NUMBERS
from harness.workload.workload import Dataset, dataset
from tests.workload.traces.samples import AZURE, SHAREGPT


def write(folder: Path, text: str) -> Path:
    (folder / "data").write_text(text)
    return folder / "data"


def conversations(count: int) -> str:
    said = [
        [{"from": "human", "value": f"Question {number}"}, {"from": "gpt", "value": "x" * 40}]
        for number in range(count)
    ]
    return json.dumps([{"id": str(number), "conversations": each} for number, each in enumerate(said)])


def test_texts_are_sent_as_they_stand_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Nobody counted them, so their length is named an estimate; after the last comes the first."""
    workload = dataset(write(tmp_path, conversations(5)), seed=1)
    requests = [workload.request(number) for number in range(6)]
    assert [each.prompt for each in requests] == [f"Question {number % 5}" for number in range(6)]
    assert {(each.max_new_tokens, each.counted, each.turn) for each in requests} == {(10, False, 1)}
    assert workload.offsets is None


def test_levels_begin_far_from_each_other(tmp_path: Path) -> None:
    """What the first level asked is in the prefix cache when the second begins."""
    workload = dataset(write(tmp_path, conversations(1000)), seed=1)
    asked = [{workload.request(level * LEVEL_NUMBERS + index).prompt for index in range(90)} for level in range(4)]
    assert all(len(each) == 90 for each in asked)
    assert len(set.union(*asked)) == 360


def test_later_turns_do_not_stand_alone(tmp_path: Path) -> None:
    """Nor do questions whose answer has no length, unless one is asked for; both are said."""
    path = write(tmp_path, SHAREGPT)
    workload = dataset(path, seed=1)
    assert [row.text for row in workload.asked] == ["Be brief.\n\nWhat is a KV cache?"]
    assert workload.notes() == [
        "left out: 1 later turns of conversations, since each request is sent alone",
        "left out: 1 without the length of an answer; --output-tokens gives one",
    ]
    asked = dataset(path, seed=1, output_tokens="uniform:1:50")
    assert [row.text for row in asked.asked] == ["Be brief.\n\nWhat is a KV cache?", "Do."]
    assert len({asked.request(number).max_new_tokens for number in range(100)}) > 30


def test_rows_of_a_trace_are_whole_requests(tmp_path: Path) -> None:
    """Lengths in the order of the file; each request has words of its own."""
    workload = dataset(write(tmp_path, AZURE), seed=1, rows=3)
    assert [workload.lengths(number) for number in range(4)] == [(374, 44), (396, 109), (879, 55), (374, 44)]
    assert workload.request(0).prompt.split()[:4] != workload.request(3).prompt.split()[:4]
    assert workload.trace.notes == ("only its first 3 rows are asked",)


def test_a_data_set_without_answers_needs_their_length(tmp_path: Path) -> None:
    """Exit 2, and the option."""
    path = write(tmp_path, '{"messages": [{"role": "user", "content": "Q"}]}\n')
    with pytest.raises(UsageError, match=r"tells no length of an answer\. Give --output-tokens\."):
        dataset(path, seed=1)
    workload = dataset(path, seed=1, output_tokens="3")
    assert isinstance(workload, Dataset)
    assert workload.request(0).max_new_tokens == 3
