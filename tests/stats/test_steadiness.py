"""Levels that drift or outgrow their server are found, and healthy ones are left alone: generated records, many seeds.

What is asked of 300 and 300 records elsewhere is asked of fewer here, with the same generators.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.catalog.slo import parse_slo
from harness.measure.records import Records
from harness.stats import steadiness
from harness.stats.steadiness import backlog_growth, growth_limit, longest_silence
from harness.stats.trend import trend_of, trends
from harness.stats.window import Window, steady_window
from tests.runs import ticking
from tests.stats.made_up import KvBound, MadeUp, PrefillQueue, Slots

FAST = PrefillQueue(capacity=40, slo=parse_slo("ttft_p95=500ms"))
HEALTHY = [(FAST, 20.0), (FAST, 32.0), (PrefillQueue(), 5.0), (KvBound(), 4), (KvBound(), 12), (Slots(), 24)]
ENGINES = [(FAST, 20.0), (PrefillQueue(), 5.0), (KvBound(), 4), (KvBound(), 12)]


def drifts(service: MadeUp, load: float, seconds: float, seed: int) -> bool:
    level, records = service.level(load, seconds, np.random.default_rng(seed))
    window = steady_window(level, records)
    return any(each.drifts for each in trends(records.select(window.holds(records.scheduled_at)), window))


def outgrown(service: MadeUp, load: float, seconds: float, seed: int) -> bool:
    level, records = service.level(load, seconds, np.random.default_rng(seed))
    window = steady_window(level, records)
    due = int(np.count_nonzero(window.holds(records.scheduled_at)))
    return backlog_growth(records, window) > growth_limit(due)


def share(check, cases, seconds: float, seeds: int) -> float:
    return float(np.mean([check(*case, seconds, seed) for case in cases for seed in range(seeds)]))


@pytest.mark.parametrize("seconds", [20.0, 60.0])
@pytest.mark.parametrize("how", ["drift", "step"])
def test_a_level_that_gets_a_fifth_slower_is_found(how: str, seconds: float) -> None:
    """Over its length, or all at once at half time; at loads at which an engine's own pace shows."""
    slower = [(replace(service, **{how: 0.2}), load) for service, load in ENGINES]
    assert share(drifts, slower, seconds, 10) >= (0.97 if seconds > 20 else 0.85)


@pytest.mark.parametrize("seconds", [20.0, 60.0])
def test_a_healthy_level_does_not_drift(seconds: float) -> None:
    """At most one in a hundred."""
    assert share(drifts, HEALTHY, seconds, 20) <= 0.01


def test_a_queue_that_wanders_is_no_drift() -> None:
    """Near its limit a wait rises and falls for longer than a level lasts, though nothing changes."""
    assert share(drifts, [(PrefillQueue(), 8.0), (Slots(), 45)], 60.0, 40) <= 0.01


def test_a_rate_beyond_capacity_outgrows_it() -> None:
    """1.1 times what the server can do; at 40 requests per second a minute shows it, at 10 four in five do."""
    assert share(outgrown, [(FAST, 44.0)], 60.0, 60) >= 0.95
    assert share(outgrown, [(PrefillQueue(), 11.0)], 60.0, 60) >= 0.75
    assert share(outgrown, [(PrefillQueue(), 13.0)], 60.0, 60) >= 0.98


@pytest.mark.parametrize("seconds", [20.0, 60.0])
def test_a_rate_that_is_served_does_not(seconds: float) -> None:
    """Up to seven tenths of the capacity of a single server whose work varies as much as waiting times do."""
    assert share(outgrown, [(FAST, 28.0), (PrefillQueue(), 7.0)], seconds, 100) <= 0.01


def test_a_ratio_is_read_as_it_is() -> None:
    """A quarter slower at half time is a ratio of 1.25; a line from 1 to 1.25 likewise, up to its ends."""
    moments = np.linspace(0, 60, 2000, endpoint=False)
    window, noise = Window(0.0, 60.0, 0.0, ""), np.exp(np.random.default_rng(1).normal(0, 0.01, 2000))
    for shape in ((moments >= 30) * 1.0, moments / 60):
        found = trend_of("itl", moments, 0.03 * np.exp(np.log(1.25) * shape) * noise, window)
        assert found is not None
        assert found.ratio == pytest.approx(1.25, abs=0.03)
        assert found.drifts


def test_too_few_samples_have_no_trend() -> None:
    """Nor has an empty window."""
    window = Window(0.0, 60.0, 0.0, "")
    assert trend_of("itl", np.arange(10.0), np.ones(10), window) is None
    assert trends(Records.from_list([]), window) == []


def test_a_moment_that_is_far_off_does_not_make_the_search_for_silences_endless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bins are as many as may be, and no finer: of 10,000 seconds in a thousand bins a silence is known to ten."""
    quiet = ticking(0, 0.0, first=4003.0)
    late = ticking(1, 10_000.0)
    records = Records.from_list([quiet, late])
    assert longest_silence(records) == pytest.approx(4003.0, abs=0.5)
    monkeypatch.setattr(steadiness, "MOST_BINS", 1000)
    assert 0.5 < abs(longest_silence(records) - 4003.0) < 15
