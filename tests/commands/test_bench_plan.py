"""The plan of a run: options are read once, and what a manifest keeps of a plan gives it again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.drive.bench_options import BenchOptions, plan_from, plan_of
from harness.drive.bench_plan import AskedRows, AskedUsers, BenchPlan
from harness.errors import UsageError
from harness.measure.arrivals import Ramp
from harness.workload.lengths import Bounded, Fixed

DURATIONS = st.sampled_from(["500ms", "12s", "5m", "1m30s", "0.125", "1h"])
LENGTHS = st.sampled_from(["4k", "uniform:10:20", "lognormal:500:300:1:4000", "list:100,200*3", "exponential:40"])
ARRIVALS = st.sampled_from(["poisson", "constant", "gamma:0.25", "ramp:20:60", "steps:30:4:8.5"])


def again(plan: BenchPlan) -> BenchPlan:
    """What its document gives, as JSON has it."""
    return plan_from(json.loads(json.dumps(plan.as_dict())), "manifest.json")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "duration": DURATIONS, "timeout": DURATIONS, "requests": st.integers(1, 9), "input_tokens": LENGTHS,
            "output_tokens": LENGTHS, "workload": st.just("chat"), "api": st.just("tgi"), "stream": st.booleans(),
            "slo": st.sampled_from(["ttft_p95=1s,itl_p95=60ms", "e2e_p99=2.5s"]), "require_valid": st.booleans(),
            "processes": st.integers(1, 4), "seed": st.integers(0, 99),
        },
    ),
    st.one_of(
        st.fixed_dictionaries({"users": st.sampled_from(["4", "1,4,16"]), "in_step": st.booleans(),
                               "think_time": st.sampled_from(["0", "30s", "250ms"])}),
        st.fixed_dictionaries({"rate": st.sampled_from(["4", "0.25,3.5"]), "arrival": ARRIVALS}),
        st.just({}),
    ),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_a_plan_comes_back_from_its_document(plain: dict[str, Any], load: dict[str, Any]) -> None:
    """To the last value."""
    plan = plan_of(BenchOptions(**plain, **load))
    told = again(plan)
    assert replace(told, think_time=None) == replace(plan, think_time=None)
    assert (told.think_time and told.think_time.mean) == (plan.think_time and plan.think_time.mean)


@pytest.mark.parametrize(
    "options",
    [
        BenchOptions(trace="rows.csv", trace_speed=20.0, trace_start="10m", duration="30s", trace_loop=True),
        BenchOptions(dataset="org/talk@abc:part.json", dataset_rows=50, rate="2", output_tokens="200"),
        BenchOptions(dataset="./rows.jsonl", trace_form="azure", trace_time_unit="ms", trace_block_tokens=16),
    ],
)
def test_so_does_one_that_asks_the_rows_of_a_file(options: BenchOptions) -> None:
    """A path stays a path, and an address on the Hub one."""
    plan = plan_of(options)
    assert isinstance(plan.asked, AskedRows)
    assert again(plan) == plan


def test_pairs_of_a_file_are_drawn_together_again(tmp_path: Path) -> None:
    """The document names the file; both sides of it are still one."""
    path = tmp_path / "pairs.csv"
    path.write_text("10,100\n20,200\n")
    plan = plan_of(BenchOptions(input_tokens=f"file:{path}", output_tokens=f"file:{path}"))
    told = again(plan)
    assert told == plan
    assert plan.as_dict()["input_tokens"] == f"file:{path}"


def test_options_become_values() -> None:
    """Nothing below the border reads a text."""
    plan = plan_of(
        BenchOptions(rate="2", arrival="ramp:20:60", input_tokens="4k", output_tokens="normal:9:2", timeout="1m")
    )
    assert plan.asked == AskedUsers("questions", Fixed(4096), Bounded("normal", 9.0, 2.0))
    (level,) = plan.loads.levels()
    assert (level.rate, level.arrival, level.duration, plan.timeout) == (2.0, Ramp(20.0, 60.0), 60.0, 60.0)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"users": "many"}, "--users"),
        ({"users": 4}, r"\$.users"),
        ({"duration": "soon"}, "--duration"),
        ({"slo": "fast"}, "--slo"),
        ({"users": "1", "rate": "1"}, "exclude each other"),
        ({"input_tokens": "some"}, "not a length"),
    ],
)
def test_a_damaged_document_is_refused_in_one_line(document: dict[str, Any], words: str) -> None:
    """By the same reader as the options."""
    with pytest.raises(UsageError, match=words):
        plan_from(document, "manifest.json")
