"""What a load that filled a budget says, where its requests were not read as they were sent."""

from __future__ import annotations

import pytest

from harness.engines.base import EngineFacts
from harness.probe import loads
from harness.probe.fills import fill_points
from harness.probe.setting import LoadResult, Outcome, Setting

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
