"""What was reckoned before a start beside what it told."""

from __future__ import annotations

import pytest

from harness.catalog.models import Model, parse_catalogue
from harness.engines import accepted
from harness.sizing.predicted import BUDGET, LimitComparison, compare, predict, suspicion


def model(entry: str) -> Model:
    return parse_catalogue(f"models: {{m: {{{entry}}}}}", engines=accepted()).models["m"]


def test_only_what_both_sides_have_is_compared() -> None:
    """By name, as a share of what was predicted."""
    (one,) = compare({BUDGET: 1000, "other": 5}, {BUDGET: 900, "other": None})
    assert one.as_json() == {"predicted": 1000, "found": 900, "off_by": -0.1}
    assert compare({BUDGET: 1000}, {}) == []
    assert compare({}, {BUDGET: 900}) == []


@pytest.mark.parametrize(
    ("found", "words"), [(1000, "predicted 1,000"), (900, "predicted 1,000, 10.0% less"), (1500, "50.0% more")]
)
def test_it_is_said_in_words(found: int, words: str) -> None:
    """More or less, never a sign alone."""
    assert words in LimitComparison(BUDGET, 1000, found).text()


@pytest.mark.parametrize(("found", "said"), [(860, False), (840, True), (1140, False), (1160, True)])
def test_a_large_difference_points_at_the_entry(found: int, said: bool) -> None:
    """More than fifteen percent is not the sum's own error."""
    assert (suspicion([LimitComparison(BUDGET, 1000, found)], "m") is not None) == said


@pytest.mark.parametrize(
    ("entry", "known"),
    [
        ("repo: Qwen/Qwen2.5-7B, gpu: L4", True),
        ("repo: Qwen/Qwen2.5-7B", False),  # on what?
        ("repo: org/unheard-of, gpu: L4", False),
        ("repo: meta-llama/Llama-3.1-70B, gpu: L4", False),  # no start, no budget
        ("repo: Qwen/Qwen2.5-7B, gpu: L4, engine: {name: vllm, variant: cpu}", False),
    ],
)
def test_nothing_is_predicted_that_is_not_reckoned(entry: str, known: bool) -> None:
    """And nobody is asked."""
    assert (BUDGET in predict(model(entry))) == known


def test_the_card_at_hand_stands_for_one_that_is_not_named() -> None:
    """As `--gpu` does."""
    entry = model("repo: Qwen/Qwen2.5-7B")
    assert predict(entry, "A100")[BUDGET] > predict(entry, "L4")[BUDGET]
