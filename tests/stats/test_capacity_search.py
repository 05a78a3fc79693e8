"""Searches against made-up services whose knee is known: does the interval hold it, and how wide is it?

docs/capacity.md has the figures of a hundred seeds of each kind; here are a few.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.catalog.slo import parse_slo
from harness.report.capacity_text import level_line
from harness.stats import knee
from harness.stats.capacity_search import Answer, Ask, CapacitySearch, Goal
from harness.stats.decision import BoundShare
from harness.stats.knee import Dose, KneeFit, fit_knee, smoothed_sizes
from harness.stats.outcome import Outcome, outcome_of
from tests.stats.made_up import KvBound, PrefillQueue
from tests.stats.searches import SERVICES, TWELVE_MINUTES, holds_the_truth, measured, searched, width

BOUND = parse_slo("ttft_p95=1s").bounds[0]


def test_the_interval_holds_the_knee() -> None:
    """Within twelve minutes; how narrow it gets is a matter of how sharp the knee is. One in twenty may miss it."""
    missed = 0
    for service, widest in SERVICES.values():
        searches = [searched(service, seed) for seed in range(1 if isinstance(service, KvBound) else 2)]
        answers = [each.answer() for each in searches]
        missed += sum(not holds_the_truth(each, service.knee) for each in answers)
        assert np.median([width(each) for each in answers]) <= widest, service
        assert all(each.spent <= TWELVE_MINUTES + 1e-6 for each in searches)
    assert missed <= 1


def test_levels_that_drift_are_left_out() -> None:
    """One level in four gets a fifth slower at half time: the answer is that of the others."""
    service = KvBound()
    random = np.random.default_rng(3)
    search = searched(service, 3, odd=lambda plain, _: replace(plain, step=0.2 * (random.uniform() < 0.25)))
    assert any(each.drifts for each in search.told)
    assert holds_the_truth(search.answer(), service.knee)


def test_each_side_of_the_knee_is_come_to_from_both() -> None:
    """A server whose cache is full after an overload may hold less than before."""
    search = searched(KvBound(), 1)
    best = search.answer().best
    near = [each for each in search.told if best and abs(each.load / best - 1) < 0.1]
    ways = [each.approach for each in near if not each.brief]
    assert min(ways.count(way) for way in ("below", "above")) >= 3


def test_an_overload_that_is_not_recovered_from_is_said() -> None:
    """The interval then holds for both ways: it claims less than what held coming from below."""
    service = KvBound(hysteresis=0.12)
    answer = searched(service, 2).answer()
    assert holds_the_truth(answer, service.knee)
    assert any("does not recover" in note for note in answer.notes)
    assert answer.holds < service.knee - 2


def told(load: float, share: float, size: float = 400.0, **changes) -> Outcome:
    ends = (share - 0.02, min(1.0, share + 0.02))
    return replace(Outcome(load, (BoundShare(BOUND, share, round(size), size, ends),), 60.0), **changes)


@pytest.mark.parametrize(
    ("failures", "by"),
    [
        ({}, "ttft_p95"),
        ({"overloaded": 0.04}, "ttft_p95"),
        ({"overloaded": 0.7, "timeout": 0.1}, "refused requests (queue limit)"),
        ({"stream_broken": 0.3}, "failed requests (stream_broken)"),
    ],
)
@pytest.mark.parametrize("holding", [True, False])
def test_failures_that_alone_break_a_bound_are_named_in_its_place(
    failures: dict[str, float], by: str, holding: bool
) -> None:
    """By the broken level nearest to the limit; one far beyond it does not tell."""
    levels = [told(8.0, 0.1, failures=failures), told(64.0, 0.01, failures={"refused": 0.99})]
    levels += [told(4.0, 0.999)] if holding else []
    found = CapacitySearch(Goal(4.0, True), levels).answer()
    assert found.limited_by == by
    again = [Outcome.from_dict(json.loads(json.dumps(each.as_dict()))) for each in levels]
    assert again == levels
    assert ("of the requests failed" in level_line(levels[0], "users")) is (by != "ttft_p95")


def run(search: CapacitySearch, knee: float, sharp: float = 20.0) -> Answer:
    """Against a service that answers by formula."""
    while (ask := search.ask()) is not None:
        share = 1 / (1 + (0.05 / 0.95) * (ask.load / knee) ** sharp)
        search.tell(told(ask.load, share, seconds=ask.seconds, approach=ask.approach, brief=ask.brief))
    return search.answer()


@settings(max_examples=8, deadline=None)
@given(
    knee=st.integers(3, 3000).map(lambda whole: whole + 0.5),
    start=st.sampled_from([1.0, 8.0, 100.0]),
    whole=st.booleans(),
)
def test_any_knee_is_bracketed_from_any_start(knee: float, start: float, whole: bool) -> None:
    """In whole loads and in others."""
    search = CapacitySearch(Goal(start, whole, budget=3600.0))
    answer = run(search, knee)
    assert holds_the_truth(answer, np.floor(knee) if whole else knee)
    assert answer.narrow
    assert not whole or all(each.load == int(each.load) for each in search.told)


@pytest.mark.parametrize(("first", "second"), [(40.0, 56.0), (50.0, 36.0), (1.0, 2.0)])
def test_a_guess_is_left_in_small_steps(first: float, second: float) -> None:
    """1.4 times it first, so that two levels bracket a limit that lies where it was thought to; then twofold."""
    search = CapacitySearch(Goal(first, True, guessed=True))
    asked = []
    for _ in range(3):
        ask = search.ask()
        assert ask is not None
        asked.append(ask.load)
        search.tell(told(ask.load, 0.2 if second < first else 1.0, seconds=ask.seconds, brief=ask.brief))
    assert asked == [first, second, second / 2 if second < first else 2 * second]


@pytest.mark.parametrize(
    ("share", "samples", "brief", "then"), [(0.9, 10, True, 8.0), (0.9, 100, True, 2.0), (0.0, 2, True, 2.0)]
)
def test_one_miss_of_a_few_requests_does_not_turn_a_search_back(
    share: float, samples: int, brief: bool, then: float
) -> None:
    """Where one in thirty fails at any load, brief levels of ten requests are no sign of a limit."""
    search = CapacitySearch(Goal(4.0, True), [told(4.0, share, size=float(samples), brief=brief)])
    ask = search.ask()
    assert ask is not None
    assert ask.load == then


def test_a_level_between_two_is_asked_for_once_briefly() -> None:
    """One that tells nothing is measured at length, not again and again."""
    search = CapacitySearch(Goal(8.0, True), [told(8.0, 1.0, brief=True), told(16.0, 0.0, brief=True)])
    search.tell(told(11.0, 0.9, size=10.0, brief=True))
    again = search.ask()
    assert again is not None
    assert not again.brief


def test_an_open_loop_tells_of_the_rate_that_came() -> None:
    """Chance sends more or less than was asked for; users are as many as asked for."""
    service = PrefillQueue(capacity=40)
    level, records = service.level(20.0, 30.0, np.random.default_rng(1))
    found = outcome_of(level, records, service.slo, seconds=30.0)
    inside = np.count_nonzero(records.scheduled_at >= 3.0)
    assert found.came == pytest.approx(inside / 27.0, rel=1e-3)
    assert found.offered == found.came != found.load == 20.0
    assert measured(KvBound(), Ask(10.0, 30.0, "below", True), np.random.default_rng(1), False).offered == 10.0


def test_a_service_that_never_holds_is_given_up() -> None:
    """With 0 as what holds and nothing as the estimate; one user also at length, as a brief level may be chance, be it
    the second one.
    """
    search = CapacitySearch(Goal(8.0, True))
    while (ask := search.ask()) is not None:
        search.tell(told(ask.load, 0.2, seconds=ask.seconds, brief=ask.brief))
        if ask.load == 1.0 and ask.brief:
            search.tell(search.told[-1])
    answer = search.answer()
    assert (answer.holds, answer.best, answer.narrow) == (0.0, None, False)
    assert [each.load for each in search.told] == [8, 4, 2, 1, 1, 1]
    assert not search.told[-1].brief
    assert "Not even 1 held" in answer.notes[0]


def test_a_service_without_a_limit_is_given_up_too() -> None:
    """At the most that may be tried; nothing is known to break."""
    search = CapacitySearch(Goal(8.0, True, most=100))
    while (ask := search.ask()) is not None:
        search.tell(told(ask.load, 1.0, seconds=ask.seconds))
    answer = search.answer()
    assert max(each.load for each in search.told) == 100
    assert (answer.breaks, answer.best, answer.narrow) == (None, None, False)
    assert 0 < answer.holds <= 100


def test_levels_without_a_figure_claim_nothing() -> None:
    """Every request failed, or none was due."""
    search = CapacitySearch(Goal(4.0, True))
    nothing = BoundShare(BOUND, float("nan"), 0, 0.0, (0.0, 1.0))
    while (ask := search.ask()) is not None:
        search.tell(Outcome(ask.load, (nothing,), ask.seconds))
    assert search.answer().holds == 0.0
    assert CapacitySearch(Goal(4.0, True)).answer().holds == 0.0


def test_a_brief_level_without_a_figure_is_measured_at_length() -> None:
    """Of users who pause for longer than it lasts nobody may ask in its window: that is no miss."""
    search = CapacitySearch(Goal(8.0, True))
    search.tell(told(8.0, 1.0, seconds=21.0, brief=True))
    silent = BoundShare(BOUND, float("nan"), 0, 0.0, (0.0, 1.0))
    search.tell(Outcome(32.0, (silent,), 21.0, brief=True))
    again = search.ask()
    assert again is not None
    assert (again.load, again.brief, again.approach) == (32.0, False, "below")
    search.tell(told(32.0, 0.99, seconds=60.0))
    further = search.ask()
    assert further is not None
    assert further.load == 64.0
    assert search.answer().breaks is None


def test_the_budget_is_kept() -> None:
    """No level is asked for that would go beyond it, and none that would be all warm-up."""
    search = CapacitySearch(Goal(1.0, False, budget=100.0))
    run(search, 1000.0)
    assert search.spent <= 100.0
    assert all(each.seconds >= 10 for each in search.told)
    assert not search.answer().narrow


def test_a_search_goes_on_where_it_was_cut_off() -> None:
    """What was told before counts as if it had never been away: the same next level, also from JSON."""
    search = CapacitySearch(Goal(1.0, True))
    random, service = np.random.default_rng(5), KvBound()
    for _ in range(9):
        ask = search.ask()
        assert ask is not None
        search.tell(measured(service, ask, random, spoilt=False))
    again = CapacitySearch(search.goal, [Outcome.from_dict(each.as_dict()) for each in search.told])
    assert again.ask() == search.ask()
    assert again.answer() == search.answer()


def test_a_drifting_level_holds_nothing() -> None:
    """Its share is an average of two services."""
    assert told(4, 0.99).decision == "holds"
    assert told(4, 0.99, drifts=True).decision == "undecided"
    assert told(4, 0.99, saturated=True).decision == "breaks"


def test_lucky_levels_do_not_weigh_more() -> None:
    """A queue that happened to grow has few independent samples: of the same load all weigh the same."""
    sizes = smoothed_sizes([Dose(10.0, 0.0, 400, 100.0), Dose(10.0, 0.3, 400, 4.0), Dose(1.0, 0.0, 400, 400.0)])
    assert sizes == pytest.approx([20.0, 20.0, 400.0], rel=0.01)


def test_the_fit_finds_what_a_line_through_the_logits_says() -> None:
    """Exact shares on a line of slope 20: the knee is where the line says, and more samples make it surer."""
    loads = np.array([80.0, 90.0, 100.0, 110.0, 120.0])
    misses = 1 / (1 + 19 * (loads / 101.0) ** -20)
    few, many = (
        fit_knee([Dose(x, p, n, n) for x, p in zip(loads, misses, strict=True)], 0.05, 0.95) for n in (60, 20_000)
    )
    assert many.best == pytest.approx(101.0, rel=0.01)
    assert many.low < 101 < many.high
    assert many.high - many.low < few.high - few.low


def test_levels_on_one_side_leave_the_other_end_open() -> None:
    """Where nothing broke there is no upper end, where nothing held no lower one."""
    held = fit_knee([Dose(x, 0.0, 400, 400.0) for x in (1.0, 2.0, 4.0)], 0.05, 0.95)
    broke = fit_knee([Dose(x, 0.9, 400, 400.0) for x in (1.0, 2.0, 4.0)], 0.05, 0.95)
    assert held.low > 3
    assert np.isinf(held.high)
    assert broke.high < 1.1
    assert broke.low == 0.0


def width_of(size: float, strays: float) -> float:
    """Of the interval of ten levels of so many independent samples each, that lie so far off one line."""
    doses = []
    for number, load in enumerate((40, 42, 44, 46, 48) * 2):
        line = np.log(0.05 / 0.95) + 14 * np.log(load / 44) + strays * (-1) ** (number % 3)
        doses.append(Dose(float(load), float(1 / (1 + np.exp(-line))), 400, size))
    knee = fit_knee(doses, 0.05, 0.95)
    return float(np.log(knee.high / knee.low))


def test_how_levels_scatter_says_more_than_each_of_them_can() -> None:
    """Ten short levels that claim forty independent samples each: on one line they are surer than that, off it less."""
    assert width_of(40.0, 0.0) < 0.14
    assert width_of(40.0, 1.0) > 1.2 * width_of(40.0, 0.0)


def test_levels_without_misses_scatter_little_and_prove_nothing_by_it() -> None:
    """Of eight samples one in twenty misses: most levels have none, so that they agree whatever they are worth."""
    nothing = [Dose(load, 0.007, 400, 8.0) for load in np.linspace(41.0, 44.0, 16)]
    fit = KneeFit([*nothing, Dose(48.0, 0.3, 400, 8.0)], 0.05)
    assert fit.near == 17
    assert fit.size.max() < 1.3 * 8.0


def test_a_level_beyond_the_knee_only_tells_its_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much more than 70 % of it misses says nothing of the slope at the knee: a queue beyond its capacity misses
    everything.
    """
    near = [Dose(load, miss, 400, 20.0) for load, miss in ((40.0, 0.035), (42.0, 0.05), (44.0, 0.066)) * 2]
    found = [fit_knee([*near, Dose(50.0, miss, 400, 30.0)], 0.05, 0.95) for miss in (0.75, 1.0)]
    assert found[0] == found[1]
    monkeypatch.setattr(knee, "ON_THE_LINE", 1.0)
    assert found[1].low < fit_knee([*near, Dose(50.0, 1.0, 400, 30.0)], 0.05, 0.95).low - 0.3


def test_levels_are_longer_where_few_independent_misses_come() -> None:
    """As of a bound that few may miss; up to a sixth of the budget."""
    asked = []
    for size in (400.0, 8.0, 2.0):
        levels = [told(load, share, size=size) for load, share in ((40.0, 0.97), (44.0, 0.93), (42.0, 0.95))]
        ask = CapacitySearch(Goal(1.0, True, budget=720.0), levels).ask()
        assert ask is not None
        asked.append(ask.seconds)
    assert asked[0] == 60.0 < asked[1] < asked[2] == 120.0


def test_the_last_level_takes_what_is_left() -> None:
    """A rest of less than half a level would be warm-up for the most part."""
    levels = [told(load, share, seconds=105.0) for load, share in ((40.0, 0.96), (44.0, 0.94), (42.0, 0.95))]
    ask = CapacitySearch(Goal(1.0, True, budget=400.0), levels).ask()
    assert ask is not None
    assert ask.seconds == 85.0


def test_levels_too_short_for_a_queue_are_made_longer() -> None:
    """Until they show twenty independent samples, up to a minute: most of a shorter one is spent before the queue is
    what it will be. Where the service remembers little they stay as asked.
    """
    asked = []
    for size in (400.0, 8.0, 2.0):
        levels = [told(load, share, size, seconds=15.0) for load, share in ((40.0, 0.96), (44.0, 0.94), (42.0, 0.95))]
        ask = CapacitySearch(Goal(1.0, True, budget=720.0, level=15.0), levels).ask()
        assert ask is not None
        asked.append(ask.seconds)
    assert asked[0] == 15.0
    assert asked[1] == pytest.approx(20 * 15 / 8, rel=0.3)
    assert asked[2] >= 60.0


def test_what_holds_is_lowered_where_levels_end_before_a_queue_forgets_its_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the answer says how long levels would have to be; not where they are long beside that."""
    shares = [(40.0, 0.985), (42.0, 0.965), (44.0, 0.94), (46.0, 0.9)] * 2
    short, long = (
        [replace(told(load, share, seconds / 3), seconds=seconds) for load, share in shares]
        for seconds in (15.0, 240.0)
    )
    answers = [CapacitySearch(Goal(1.0, False), levels).answer() for levels in (short, long)]
    said = [[note for note in answer.notes if "remembers for about" in note] for answer in answers]
    assert said[1] == []
    assert "--level 30s" in said[0][0] or "--level 40s" in said[0][0]
    monkeypatch.setattr(knee, "NEGLIGIBLE", 1.0)
    plain = [CapacitySearch(Goal(1.0, False), levels).answer() for levels in (short, long)]
    assert answers[0].holds < 0.99 * plain[0].holds
    assert answers[0].breaks == plain[0].breaks
    assert answers[1] == plain[1]
