"""Which runs belong to one series, and what is said of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.report.history import answer
from harness.stats.good_share import STEP, Tally, tally
from harness.stats.history import Point, history, point_of
from harness.stats.run_figures import recorded
from tests.stats.test_compare import run, side

PLAIN = point_of(recorded([run(1)]), "plain")


def point(at: int, ttft: float = 0.2, **service: Any) -> Point:
    return replace(
        PLAIN,
        name=f"run {at}",
        starts=(f"2025-01-{1 + at:02}T00:00:00Z",),
        service={**PLAIN.service, **service},
        figures=(("8 users", "ttft_p50", ttft),),
        tallies=(),
    )


@pytest.mark.parametrize("other", [{"model": "b"}, {"gpu": "H100"}, {"gpus": 2}, {"engine": "vllm 0.9.0"}])
def test_another_key_is_a_series_of_its_own(other: dict[str, Any]) -> None:
    """And the title says what parts them."""
    found = history([point(0), point(1, **other), point(2)])
    assert [len(series.points) for series in found.series] == [2, 1]
    titles = [series.title(found.series) for series in found.series]
    assert len(set(titles)) == 2
    assert str(next(iter(other.values()))).partition(" ")[0] in titles[1]


def test_another_question_is_a_series_of_its_own() -> None:
    """Also where only the length of the level differs."""
    asked = replace(point(1), question={**PLAIN.question, "load": {"": "8 users for 5 s"}})
    found = history([point(0), asked])
    assert len(found.series) == 2
    assert "load 8 users for 5 s" in found.series[1].title(found.series)
    assert len({series.id for series in found.series}) == 2


def test_releases_and_commits_change_along_a_series() -> None:
    """Oldest first, whatever the order they were found in; named where they change."""
    found = history([point(2, engine="tgi 3.3.8", commit="b"), point(0, commit="a"), point(1, commit="a")])
    (series,) = found.series
    assert [each.name for each in series.points] == ["run 0", "run 1", "run 2"]
    assert [series.news(at) for at in range(3)] == [(), (), ("engine tgi 3.3.7 -> tgi 3.3.8", "commit a -> b")]


def test_a_step_is_named_with_its_size() -> None:
    """Twelve runs at 200 ms, twelve at 250 ms; a point without the figure takes no part and shifts no place."""
    levels = [0.2 if at < 12 else 0.25 for at in range(24)]
    points = [point(at, level * (1 + 0.001 * (at % 5))) for at, level in enumerate(levels)]
    points[3] = replace(points[3], figures=())
    (trend,) = history(points).series[0].trends
    (shift,) = trend.shifts
    assert (shift.at, trend.values[3]) == (12, None)
    assert shift.ratio == pytest.approx(1.25, rel=0.002)
    assert trend.is_worse(shift)


def test_a_few_points_do_not_show_that_nothing_changed() -> None:
    """Seven runs, of which the last three take twice as long: said to be too few, never that all is as it was."""
    few = [point(at, 0.4 if at > 3 else 0.2) for at in range(7)]
    many = [point(10 + at, 0.2 + 0.001 * (at % 5), gpu="H100") for at in range(12)]
    assert answer(history(few)) == "Too few points to tell whether a figure changed for good: 8 are needed."
    assert answer(history(many)) == "No figure changed for good."
    both = history([*few, *many])
    assert answer(both) == "No figure changed for good. Too few points to tell in 1 of 2 series: 8 are needed."
    told = [figure["enough_points"] for each in both.as_dict()["series"] for figure in each["figures"]]
    assert sorted(told) == [False, True]


def test_less_throughput_is_worse() -> None:
    """The other way about than times."""
    points = [
        replace(point(at), figures=(("8 users", "output_tokens_per_second", 100.0 if at < 8 else 80.0 + 0.01 * at),))
        for at in range(16)
    ]
    (trend,) = history(points).series[0].trends
    assert trend.is_worse(trend.shifts[0])


def test_repeats_are_one_point() -> None:
    """The geometric mean of the runs; found a second time, as a baseline, it is still one."""
    runs = side(1, 2, 3, slower=2.0)
    one = point_of(recorded(runs), "repeats")
    alone = [point_of(recorded([each]), "") for each in runs]
    names = [(load, figure) for load, figure, _ in one.figures]
    assert ("8 users", "ttft_p50") in names
    for at, (_, _, value) in enumerate(one.figures):
        product = alone[0].figures[at][2] * alone[1].figures[at][2] * alone[2].figures[at][2]
        assert value == pytest.approx(product ** (1 / 3))
    found = history([one, point_of(recorded(runs), "baseline chat")])
    assert [each.name for each in found.series[0].points] == ["repeats"]


def night(at: int, bad: int, seconds: float | None) -> Point:
    """A thousand requests of about half a second, of which so many were never answered, or took so long."""
    steps = {-8: 600, -7: 400 - bad}
    if seconds is not None:
        steps[math.ceil(math.log(seconds) / math.log(STEP))] = bad
    usual = 60.0 if seconds is not None and bad > 10 else 0.51
    return replace(point(at), tallies=(Tally("8 users", 1000, usual, tuple(sorted(steps.items()))),))


@pytest.mark.parametrize("seconds", [60.0, None])
def test_the_share_of_good_answers_has_a_trend(seconds: float | None) -> None:
    """From the seventh night on one and a half per cent hang for a minute, or are never answered: that is a change for
    the worse, and no median would show it.
    """
    (series,) = history([night(at, 15 if at >= 6 else 0, seconds) for at in range(12)]).series
    trend = next(each for each in series.trends if each.figure == "good_share")
    assert trend.values == (1.0,) * 6 + (0.985,) * 6
    assert [each.at for each in trend.shifts] == [6]
    assert trend.is_worse(trend.shifts[0])


def test_a_night_without_a_good_answer_and_one_of_an_older_release_are_points_too() -> None:
    """A share of 0 has no logarithm; where nothing was kept there is no share."""
    nothing = replace(point(1), tallies=(Tally("8 users", 10, math.inf, ()),))
    (series,) = history([night(0, 0, None), nothing, point(2), night(3, 0, None)]).series
    assert series.trends[0].values == (1.0, 0.0, None, 1.0)


def test_a_tally_knows_a_bound_to_a_tenth() -> None:
    """Of real parts: the answers within it, never fewer, and none that took a tenth longer."""
    (part,) = recorded([run(1)])[0].levels.values()
    found = tally([part])
    assert found is not None
    assert found.due == part.due
    for bound in (0.3, 0.4, 0.45):
        least, most = (float(np.sum(part.answers <= times * bound)) / part.due for times in (1.0, STEP))
        assert least <= found.share(bound) <= most
    assert found.share(math.inf) == 1.0
