"""What a load that filled a budget says, where its requests were not read as they were sent."""

from __future__ import annotations

import pytest

from harness.drive.judging import judge
from harness.engines.base import EngineFacts, FailureCause
from harness.load.burst import Burst, BurstAnswer
from harness.probe import loads
from harness.probe.fills import fill_points
from harness.probe.setting import Failure, LoadResult, Outcome, Setting
from harness.probe.stairs import climb
from harness.workload.request import Request

SETTING = Setting(10_089, 10_601, 10_089, purpose="explore")


@pytest.mark.parametrize(("leads_over", "most"), [(True, 20_000), (False, 30_090)])
def test_a_leading_request_that_had_not_ended_was_in_flight_too(leads_over: bool, most: int) -> None:
    """A long prompt is overtaken by shorter ones while it is tokenised; read last, it comes on top of them all."""
    load = loads.stacked(20_000, 1000, 10_089, 10_089, 10_601, rows=40, equal=True)
    assert load.leading == 1
    begun = 39
    tokens = sum(shape.total for shape in load.shapes[:begun])
    result = LoadResult(load, "died", begun, tokens, completed=int(leads_over), reason="out of memory")
    (point,) = fill_points([(Outcome(SETTING, EngineFacts("padded"), True, None, (result,)), result)])
    assert point.died is not None
    assert 0.99 * most <= point.died <= most


def test_nobody_leads_where_nobody_has_to_arrive() -> None:
    """One prompt alone needs no time for others to come."""
    load = loads.stacked(10_094, 10_086, 10_089, 10_089, 10_601, rows=128, equal=True)
    assert len(load.shapes) == 1
    assert load.leading == 0


@pytest.mark.parametrize(("cause", "blamed"), [("hang", 1), ("memory", 2)])
def test_a_hang_is_not_blamed_on_a_step_that_weighs_less_than_the_one_before(cause: FailureCause, blamed: int) -> None:
    """It may have come of the last token written there, and shows when the next, shorter prompt gets none; what ran out
    of memory died of the prompt that was read.
    """
    load = climb([9_900, 9_950], [4092, 3069], prefill=4092, longest=4092, total=4220)
    sizes = [size for _, size, _ in load.stairs]
    assert sizes[2] < sizes[1]
    result = LoadResult(load, "died", 5, 0, reads=(9_890, 9_940), reason="gone")
    outcome = Outcome(SETTING, EngineFacts("padded"), True, Failure("under load", cause, "gone", 4), (result,))
    (died,) = [each for each in fill_points([(outcome, result)]) if each.died]
    assert (died.died, died.length) == (sizes[blamed], load.shapes[load.stairs[blamed][0] - 1].input_tokens)


@pytest.mark.parametrize(
    ("begun", "died"),
    [((0, 1, 2), 9_950), ((0, 1, 3), 9_900 + 78), ((0, 1, 4), None), ((0, 1, 2, 4, 5), None)],
)
def test_a_death_is_not_blamed_on_a_step_that_was_overtaken(begun: tuple[int, ...], died: int | None) -> None:
    """An engine that still reads a long request takes others first; it comes on top of all of them then. Steps are
    requests 0 to 2, 3 and 4, 5 and 6; a short one of a later step is counted with the step.
    """
    load = climb([9_900, 9_950], [5000, 2500], prefill=5000, longest=5000, total=5200)
    assert [end for end, *_ in load.stairs] == [3, 5, 7]
    answers = [BurstAnswer(Request("x", shape.input_tokens, shape.max_new_tokens), 0, 0.0) for shape in load.shapes]
    for at in begun:
        answers[at].token_at = [1.0 + at]
    result = judge(load, Burst(tuple(answers), "died", 3.0))
    points = list(fill_points([(Outcome(SETTING, EngineFacts("padded"), True, None, (result,)), result)]))
    assert [each.died for each in points if each.died] == [died] * (died is not None)
