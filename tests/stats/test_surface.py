"""What a service does at each history and load: what was measured stays, what lies between is marked as such."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.catalog.slo import parse_slo
from harness.measure.records import FAILED
from harness.stats.binding import Binding, Resource, binding, scaled_by_history
from harness.stats.decision import BoundShare
from harness.stats.outcome import Outcome
from harness.stats.server import NOTHING_TOLD, ServerFigures
from harness.stats.surface import Figures, row_of, surface_of
from tests.stats.made_up import records_of

TTFT, ITL = parse_slo("ttft_p95=1s,itl_p95=60ms").bounds


def told(load: float, **changes: Any) -> tuple[Outcome, Figures]:
    """A level at this load whose TTFT is a hundredth of it, and its tokens per second ten times it."""
    found = BoundShare(TTFT, 0.97, 100, 50.0, (0.9, 0.99))
    plain: dict[str, Any] = {
        "ttft_p95": load / 100, "itl_p95": 0.02, "waiting": 0.0, "output_tokens_per_second": 10 * load,
        "kv_used": 0.01 * load, "binds": Binding("prefill", "made up"),
    }  # fmt: skip
    return Outcome(load, (found,), 60.0), Figures(**{**plain, **changes})


def test_measured_cells_stay_and_those_between_are_marked() -> None:
    """Geometric means between two loads; nothing beyond the outermost."""
    surface = surface_of([row_of(2000, [told(4.0), told(16.0), told(64.0)])], [8.0, 200.0], whole=True)
    assert surface.loads == (4.0, 8.0, 16.0, 64.0, 200.0)
    assert [surface.at(2000, load).measured for load in surface.loads] == [True, False, True, True, False]
    between = surface.at(2000, 8.0)
    assert between.figures is not None
    assert between.figures.ttft_p95 == pytest.approx(0.08)
    assert between.figures.output_tokens_per_second == pytest.approx(80)
    assert between.figures.kv_used == pytest.approx(0.1)
    assert (between.share, between.figures.binds.resource) == (None, "prefill")
    assert surface.at(2000, 200.0).figures is None


def test_a_history_between_two_is_interpolated_from_both() -> None:
    """At their geometric mean; where the two sides are bound by different things nothing is claimed."""
    slower = [told(load, ttft_p95=4 * load / 100, binds=Binding("kv memory", "made up")) for load in (4.0, 16.0)]
    surface = surface_of([row_of(8000, slower), row_of(2000, [told(4.0), told(16.0)])], [], whole=True)
    assert surface.histories == (2000, 4000, 8000)
    cell = surface.at(4000, 4.0)
    assert cell.figures is not None
    assert not cell.measured
    assert cell.figures.ttft_p95 == pytest.approx(0.08)
    assert cell.figures.binds.resource is None


def test_figures_come_back_from_their_document() -> None:
    """Those that are not known as null."""
    _, figures = told(4.0, itl_p95=math.nan, kv_used=None)
    entry = figures.as_dict()
    assert entry["itl_p95"] is None
    again = Figures.from_dict(entry)
    assert math.isnan(again.itl_p95)
    assert (again.ttft_p95, again.kv_used, again.binds) == (figures.ttft_p95, None, figures.binds)


@pytest.mark.parametrize(
    ("server", "bound", "changes", "resource"),
    [
        (ServerFigures(running=8, waiting=3, kv_used=0.99), TTFT, {}, "kv memory"),
        (ServerFigures(running=8, waiting=0, kv_used=0.5, preempted=2), ITL, {}, "kv memory"),
        (ServerFigures(running=16, waiting=3, kv_used=0.5), TTFT, {}, "queue limit"),
        (ServerFigures(running=8, waiting=3, kv_used=0.5), TTFT, {}, "prefill"),
        (ServerFigures(running=8, waiting=0, kv_used=0.5), ITL, {}, "decode"),
        (NOTHING_TOLD, ITL, {}, "decode"),
        (NOTHING_TOLD, TTFT, {}, None),
        (ServerFigures(running=8, waiting=0, kv_used=0.5), TTFT, {"refused": True}, "queue limit"),
        (ServerFigures(running=8, waiting=0, kv_used=0.99), TTFT, {"late": True}, "client"),
        (NOTHING_TOLD, None, {}, None),
        # One of a hundred was refused, and no answer was slow: the bound is near for that one alone.
        (ServerFigures(running=8, waiting=0, kv_used=0.5), TTFT, {"one": "overloaded"}, "queue limit"),
        (ServerFigures(running=8, waiting=0, kv_used=0.5), ITL, {"one": "overloaded"}, "queue limit"),
        (ServerFigures(running=8, waiting=0, kv_used=0.5), TTFT, {"one": "dropped"}, "client"),
        (ServerFigures(running=8, waiting=0, kv_used=0.5), TTFT, {"one": "stream_broken"}, None),
        (ServerFigures(running=8, waiting=0, kv_used=0.5), TTFT, {"one": "timeout"}, "prefill"),
        (ServerFigures(running=8, waiting=0, kv_used=0.5), TTFT, {"one": "overloaded", "slow": True}, "prefill"),
    ],
)
def test_what_binds(server: ServerFigures, bound: Any, changes: dict[str, Any], resource: str | None) -> None:
    """The engine's own word goes before the bound, and a late client before both; a bound that is near because
    requests failed says nothing of prefill or decode.
    """
    lost = 5 if "refused" in changes else 1 if "one" in changes else 0
    first = np.where(np.arange(100) > 90, 1.5, 0.1) if "slow" in changes else np.full(100, 0.1)
    records = records_of(np.arange(100.0), first, np.full((100, 4), 0.02), np.arange(100) < lost)
    if "one" in changes:
        records.error_kind[0] = changes["one"]
    if "late" in changes:
        records = replace(records, sent_at=records.scheduled_at + 0.3)
    assert binding(records, server, bound, 16.0).resource == resource
    assert np.count_nonzero(records.having(FAILED)) == lost


@pytest.mark.parametrize(
    ("resource", "factor"),
    [("kv memory", 0.25), ("prefill", 0.25), ("decode", 0.5), (None, 0.5), ("queue limit", 1.0), ("client", 1.0)],
)
def test_where_a_longer_history_puts_the_limit(resource: Resource | None, factor: float) -> None:
    """From 2,000 to 8,000 tokens, and back."""
    assert scaled_by_history(resource, 2000, 8000) == pytest.approx(factor)
    assert scaled_by_history(resource, 8000, 2000) == pytest.approx(1 / factor)


def test_no_rate_is_interpolated_beside_one_that_was_measured() -> None:
    """The limit of a rate is never quite one that came; users are whole."""
    row = row_of(2000, [told(4.0), told(16.0), told(64.0)])
    assert surface_of([row], [16.1], whole=False).loads == (4.0, 16.0, 64.0)
    assert surface_of([row], [17.0], whole=False).loads == (4.0, 16.0, 17.0, 64.0)
    assert surface_of([row], [16.0, 17.0], whole=True).loads == (4.0, 16.0, 17.0, 64.0)
