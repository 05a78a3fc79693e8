"""Readings: each rule finds what it is for, and nothing on a level of which nothing stands out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from harness.measure.arrivals import arrival_of
from harness.measure.record import RequestRecord
from harness.measure.records import Records
from harness.stats.level_stats import LevelStats
from harness.stats.readings import READINGS, readings
from harness.stats.server import ServerFigures
from harness.stats.summary import summarise
from harness.stats.time_parts import TimeParts
from tests.runs import closed_level, closed_loop, failed, manifest, open_level, ticking
from tests.stats.reading_cells import HEALTHY, healthy, ill

QUIET = ServerFigures(running=4.0, waiting=0.0, preempted=0.0)


def told(records: Sequence[RequestRecord], server: ServerFigures = QUIET) -> LevelStats:
    level = open_level(0, 10.0, 0.0, 60.0, arrival=arrival_of("constant"))
    return replace(summarise(Records.from_list(list(records)), manifest([level])).levels[0], server=server)


def even(**changes) -> list[RequestRecord]:
    return [ticking(n, n / 10, **changes) for n in range(600)]


def now_and_then(**changes) -> list[RequestRecord]:
    """One request in twenty is unlike the others."""
    return [ticking(n, n / 10, **(changes if n % 20 == 0 else {})) for n in range(600)]


def sweep(gaps: Sequence[float], firsts: Sequence[float], server: ServerFigures = QUIET) -> list[LevelStats]:
    """Levels of 2, 4, 8, ... users."""
    levels = [closed_level(place, 2 << place, 70.0 * place, 60.0) for place in range(len(gaps))]
    records = [
        record
        for level, first, gap in zip(levels, firsts, gaps, strict=True)
        for record in closed_loop(level, first, gap, tokens=20, spread=0.1)
    ]
    found = summarise(Records.from_list(records), manifest(levels)).levels
    return [replace(level, server=server) for level in found]


CASES = {
    "long_prefills": [told(now_and_then(first=4.0))],
    "stalls": [told(now_and_then(gap=0.5))],
    "put_back": [told(even(), replace(QUIET, preempted=7.0))],
    "queueing": sweep((0.02, 0.02), (0.1, 0.8), replace(QUIET, waiting=6.0)),
    "full": sweep((0.02, 0.04), (0.1, 0.2)),
    "refused": [told([*even(), *(failed(1000 + n, n * 2.0) for n in range(30))])],
}


@pytest.mark.parametrize("rule", CASES)
def test_each_rule_finds_what_it_is_for(rule: str) -> None:
    """With its evidence in figures, on the level that shows it."""
    found = {each.rule: each for each in readings(CASES[rule])}
    assert rule in found
    assert any(letter.isdigit() for letter in found[rule].found)
    assert set(CASES) == {each.__name__ for each in READINGS}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_service_has_no_reading(name: str) -> None:
    """Below its knee, whatever limits it and however few requests there are; reading_cells.py counts over hundreds."""
    assert [healthy(name, np.random.default_rng(seed)) for seed in range(3)] == [()] * 3


@pytest.mark.parametrize("rule", CASES)
def test_each_rule_finds_a_generated_run_of_its_cause(rule: str) -> None:
    """In the whole summary of a service that has it, with the gauges that its engine would have told."""
    assert rule in {each.rule for each in ill(rule, np.random.default_rng(1))}


def test_where_nothing_stands_out_nothing_is_said() -> None:
    """Neither of a level alone, nor of a sweep whose tokens grow with its load."""
    assert readings([told(even())]) == ()
    assert readings(sweep((0.02, 0.02, 0.02), (0.1, 0.1, 0.1))) == ()


def test_late_first_tokens_behind_a_queue_are_no_prefill() -> None:
    """The same tail while requests wait, or where the engine does not tell, is not blamed on prompts."""
    for waiting in (5.0, None):
        level = told(now_and_then(first=4.0), replace(QUIET, waiting=waiting))
        assert "long_prefills" not in {each.rule for each in readings([level])}


def test_a_service_that_refuses_is_not_called_full() -> None:
    """Tokens that do not grow while requests are turned away are the limit's doing, not the GPU's."""
    low, high = sweep((0.02, 0.04), (0.1, 0.2))
    turned_away = replace(high, errors={"overloaded": high.requests.sent // 2})
    assert {each.rule for each in readings([low, high])} >= {"full"}
    assert {each.rule for each in readings([low, turned_away])} & {"full", "refused"} == {"refused"}


def test_what_is_left_without_the_queue_is_estimated() -> None:
    """0.6 s of 0.8 s wait for a place: 0.2 s are left; nothing is said where the engine does not tell."""
    low, high = CASES["queueing"]
    parts = TimeParts(100, total=1.2, client=0.0, ttft=0.8, queue=0.6)
    told_parts = readings([low, replace(high, time_parts=parts)])
    advice = {each.rule: each.advice for each in told_parts}["queueing"]
    assert "estimate: 75.0 % of the mean TTFT of 800 ms is that wait, without it 200 ms is left" in advice
    untold = readings([low, replace(high, time_parts=replace(parts, queue=None))])
    assert "estimate" not in {each.rule: each.advice for each in untold}["queueing"]


def test_the_ratio_is_that_of_the_figures() -> None:
    """Four seconds over 0.2 s are twenty times."""
    found = readings([told(now_and_then(first=4.0))])
    assert "p99 TTFT is 20.0 times p50 while the queue is empty" in [each.found for each in found]
