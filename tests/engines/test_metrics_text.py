"""Figures of a /metrics page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from harness.engines.metrics_text import mean, samples, total

PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="org/a"} 3.0
vllm:num_requests_running{engine="1",model_name="org/a"} 4.0
vllm:num_requests_running_by_reason{engine="1"} 9.0
vllm:usage{engine="0"} 0.25
vllm:usage{engine="1"} 0.75
llamacpp:requests_deferred 2
old_form 1.5e+03 1395066363000
"""


def test_engines_that_answer_as_one_are_added() -> None:
    """Counts of several ranks are a sum, shares a mean, and a longer name is another figure."""
    assert total(PAGE, "vllm:num_requests_running") == 7
    assert mean(PAGE, "vllm:usage") == 0.5


def test_first_name_that_is_there_counts() -> None:
    """A figure that was renamed is found under either name; one that is not there is not zero."""
    assert total(PAGE, "new_name", "llamacpp:requests_deferred") == 2
    assert total(PAGE, "old_form") == 1500
    assert total(PAGE, "nothing") is None
    assert mean(PAGE, "nothing") is None


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e999", "1e300"])
def test_a_value_that_is_no_number_is_not_told(value: str) -> None:
    """Whoever counts with it would fail, or show it."""
    assert total(f"a {value}\n", "a") is None
    assert total(f"a {value}\na 2\n", "a") == 2


@pytest.mark.parametrize("labels", ["a" * 2_000_000, "a9_" * 700_000, 'a="b",' * 300_000, "a" * 999_999 + '="x"'])
def test_a_line_made_to_hurt_costs_time_linear_in_its_length(labels: str) -> None:
    """At a cost that grew with the square of it this would take hours, with the interpreter's lock held."""
    assert total(f"a{{{labels}}} 2\n", "a") == 2


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r"), max_size=20), st.floats(-1e18, 1e18))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_labels_are_what_was_written(text: str, value: float) -> None:
    """Labels and values come back from a page that the usual library wrote, whatever they hold."""
    registry = CollectorRegistry()
    Gauge("a_name", "help", ["label", "other"], registry=registry).labels(text, "x").set(value)
    (sample,) = samples(generate_latest(registry).decode(), "a_name")
    assert sample.labels == {"label": text, "other": "x"}
    assert sample.value == value
