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
from harness.workload.traces.window import Window
from harness.workload.workload import AnyWorkload, dataset, drawn, from_dict, replayed, summarise

TRACE = "timestamp_s,input_tokens,output_tokens\n5,30,3\n6,40,0\n7,2000000,9\n"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    return path


def each(trace: Path) -> list[AnyWorkload]:
    return [
        drawn("chat", "normal:100:20:10:200", "uniform:5:9", seed=4, salt="run-1", shared=8),
        replayed(trace, Window(duration=1.5, speed=2.0), seed=4, salt="run-1"),
        dataset(trace, seed=4, salt="run-1", rows=2, output_tokens="uniform:5:9"),
    ]


def test_a_workload_survives_json_and_pickle(trace: Path) -> None:
    """A load process makes the same requests of the plan as the process that wrote it."""
    for workload in each(trace):
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
    assert {one.describe()["hash"] for one in same} == {workload.describe()["hash"]}
    assert len({one.describe()["hash"] for one in [workload, *other]}) == 4
    windows = [Window(), Window(duration=1.5), Window(duration=60), Window(speed=2), Window(start=0.5)]
    assert len({replayed(trace, window, seed=1).describe()["hash"] for window in windows}) == 5
    sets = [{"rows": 3}, {"rows": 2}, {"rows": 3, "output_tokens": "5"}]
    assert len({dataset(trace, seed=1, **each).describe()["hash"] for each in sets}) == 3  # type: ignore[arg-type]


def test_a_description_is_short_and_json(trace: Path) -> None:
    """The manifest does not repeat the vocabulary, and says whether it was checked."""
    for workload in each(trace):
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
    workload = replayed(trace, seed=1)
    assert workload.offsets == (0.0, 1.0, 2.0)
    requests = [workload.request(number) for number in range(3)]
    assert [request.input_tokens for request in requests] == [30, 40, 2000000]
    assert [request.max_new_tokens for request in requests] == [3, 1, 9]
    assert requests[2].prompt.count(" ") == 1999999


def test_a_trace_that_changed_since_is_refused(trace: Path) -> None:
    """The processes of one run must not send different rows."""
    plans = [replayed(trace, seed=1).as_dict(), dataset(trace, seed=1).as_dict()]
    trace.write_text(TRACE.replace("30", "31"))
    for plan in plans:
        with pytest.raises(UsageError, match="has changed since the run was planned"):
            from_dict(plan)


def test_what_is_drawn_is_summarised(trace: Path) -> None:
    """The lengths that this seed asks first, whole traces, and nothing where nobody counted."""
    asked = summarise(drawn("x", "uniform:1:9", "7", seed=1), 400)
    assert asked["requests"] == 400
    assert asked["output_tokens"] == {"mean": 7.0, "deviation": 0.0, "min": 7, "p50": 7, "p95": 7, "max": 7}
    assert asked["input_tokens"]["mean"] == pytest.approx(5, abs=0.4)
    assert (asked["input_tokens"]["min"], asked["input_tokens"]["max"]) == (1, 9)
    assert summarise(drawn("x", "uniform:1:9", "7", seed=2), 400) != asked
    whole = summarise(replayed(trace, seed=1), 2)
    assert (whole["requests"], whole["input_tokens"]["p50"], whole["output_tokens"]["min"]) == (3, 40, 1)
    trace.write_text('[{"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}]')
    assert summarise(dataset(trace, seed=1), 5)["input_tokens"] is None


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
