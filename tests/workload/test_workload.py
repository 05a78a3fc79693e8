"""Workloads as values: the same requests everywhere, and other ones exactly where something else was asked."""

from __future__ import annotations

import json
import pickle
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.workload.seeds import derive, random_bytes, uniform
from harness.workload.workload import Drawn, Replayed, drawn, from_dict, replayed

TRACE = "timestamp,input_tokens,output_tokens\n5,30,3\n6,40,0\n7,2000000,9\n"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    return path


def both(trace: Path) -> list[Drawn | Replayed]:
    return [
        drawn("chat", "normal:100:20:10:200", "uniform:5:9", seed=4, salt="run-1", shared=8),
        replayed(str(trace), duration=1.5, seed=4, salt="run-1"),
    ]


def test_a_workload_survives_json_and_pickle(trace: Path) -> None:
    """A load process makes the same requests of the plan as the process that wrote it."""
    for workload in both(trace):
        again = from_dict(json.loads(json.dumps(workload.as_dict())))
        assert again == workload == pickle.loads(pickle.dumps(workload))
        assert [again.request(number) for number in (1, 0)] == [workload.request(number) for number in (1, 0)]


def test_lengths_do_not_depend_on_the_words_nor_on_each_other() -> None:
    """Another salt asks other words of the same lengths; another question length leaves the answers' lengths."""
    base = drawn("x", "uniform:50:400", "uniform:1:999", seed=1)
    salted = replace(base, salt="other")
    shorter = drawn("x", "20", "uniform:1:999", seed=1)
    for number in range(50):
        one, other = base.request(number), salted.request(number)
        assert (one.input_tokens, one.max_new_tokens) == (other.input_tokens, other.max_new_tokens)
        assert one.prompt != other.prompt
        assert shorter.request(number).max_new_tokens == one.max_new_tokens
    assert {base.request(n).max_new_tokens for n in range(50)} != {
        replace(base, seed=2).request(n).max_new_tokens for n in range(50)
    }


def test_drawn_lengths_follow_their_distributions() -> None:
    """Input and output lengths have the asked means, and nothing to do with each other."""
    workload = drawn("x", "normal:300:60", "exponential:100", seed=7)
    requests = [workload.request(number) for number in range(4000)]
    inputs = [request.input_tokens for request in requests]
    outputs = [request.max_new_tokens for request in requests]
    assert statistics.mean(inputs) == pytest.approx(300, rel=0.02)
    assert statistics.mean(outputs) == pytest.approx(100, rel=0.05)
    assert abs(statistics.correlation(inputs, outputs)) < 0.05


def test_the_hash_tells_another_workload_and_not_another_seed(trace: Path) -> None:
    """Repeats with other seeds can be compared; other lengths, another trace or another minute cannot."""
    workload = drawn("x", "10", "10", seed=1)
    same = [replace(workload, seed=2), replace(workload, salt="y")]
    other = [replace(workload, shared=1), drawn("x", "11", "10", seed=1), drawn("x", "10", "11", seed=1)]
    assert {each.describe()["hash"] for each in same} == {workload.describe()["hash"]}
    assert len({each.describe()["hash"] for each in [workload, *other]}) == 4
    hashes = {replayed(str(trace), duration=duration, seed=1).describe()["hash"] for duration in (None, 1.5, 60)}
    assert len(hashes) == 3


def test_a_description_is_short_and_json(trace: Path) -> None:
    """The manifest does not repeat the vocabulary, and says whether it was checked."""
    for workload in both(trace):
        text = json.dumps(workload.describe())
        assert len(text) < 700
        assert "assumed to be one token each" in text


def test_sampling_gives_each_request_its_seed() -> None:
    """Greedy without; with it, every request has a seed of its own, the same each time."""
    workload = drawn("x", "10", "10", seed=1)
    assert workload.request(0).seed is None
    sampled = replace(workload, sampled=True)
    assert len({sampled.request(number).seed for number in range(20)}) == 20
    assert sampled.request(3) == sampled.request(3)


def test_a_trace_is_sent_as_it_is(trace: Path) -> None:
    """Its moments, its lengths, also those that no service allows; an answer of no token becomes one of one."""
    workload = replayed(str(trace), seed=1)
    assert workload.offsets == (0.0, 1.0, 2.0)
    requests = [workload.request(number) for number in range(3)]
    assert [request.input_tokens for request in requests] == [30, 40, 2000000]
    assert [request.max_new_tokens for request in requests] == [3, 1, 9]
    assert requests[2].prompt.count(" ") == 1999999


def test_a_trace_that_changed_since_is_refused(trace: Path) -> None:
    """The processes of one run must not send different traces."""
    plan = replayed(str(trace), seed=1).as_dict()
    trace.write_text(TRACE.replace("30", "31"))
    with pytest.raises(UsageError, match="has changed since the run was planned"):
        from_dict(plan)


def test_random_values_never_change() -> None:
    """Known answers: a published seed must mean the same requests next year."""
    assert derive(1, "arrivals", 0) == 5133174151830102617
    assert uniform(1, "input length", 0) == 0.5121557249653832
    assert random_bytes(1, "a", size=4) == random_bytes(1, "a", size=9)[:4]
    assert drawn("x", "8", "4", seed=1).request(0).prompt == "ready parent warm summer others campaign old condition"


def test_uniform_numbers_are_uniform() -> None:
    """Mean, spread, and no end that is never reached."""
    values = [uniform(3, "x", number) for number in range(20_000)]
    assert statistics.mean(values) == pytest.approx(0.5, abs=0.01)
    assert statistics.pstdev(values) == pytest.approx(12**-0.5, rel=0.01)
    assert min(values) < 0.001
    assert max(values) > 0.999
