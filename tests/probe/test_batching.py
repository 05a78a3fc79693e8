"""The knee and the largest batch within the SLO, on curves made by hand."""

from __future__ import annotations

from dataclasses import replace

from harness.probe.batching import BatchPoint, knee, largest_within, of_history, points
from harness.probe.loads import batch, rows
from harness.probe.setting import LoadResult, ProbeGoal

CURVE = [
    BatchPoint(500, 1, 0.1, 0.020, 50.0),
    BatchPoint(500, 2, 0.1, 0.021, 95.0),
    BatchPoint(500, 4, 0.2, 0.025, 160.0),
    BatchPoint(500, 8, 0.4, 0.045, 178.0),
    BatchPoint(500, 16, 0.9, 0.090, 180.0),
]


def test_the_knee_is_where_one_more_chat_brings_little() -> None:
    """From 4 to 8 each chat adds 4.5 tokens/s, less than a quarter of the first one's 50."""
    assert knee(CURVE) == 4


def test_no_knee_while_speed_still_grows() -> None:
    """A curve that ends before it bends has no knee."""
    assert knee(CURVE[:3]) is None


def test_the_largest_batch_within_the_slo() -> None:
    """All smaller numbers must hold too; without an SLO there is none."""
    assert largest_within(CURVE, ProbeGoal(itl=0.05, ttft=1.0)) == 8
    assert largest_within(CURVE, ProbeGoal(itl=0.05, ttft=0.15)) == 2
    assert largest_within(CURVE, ProbeGoal(itl=0.01)) is None
    assert largest_within(CURVE, ProbeGoal()) is None


def test_points_are_loads_of_equal_chats_that_held() -> None:
    """Deaths, other loads and such of which some had to wait are no points; a repeated load counts once."""
    results = [
        LoadResult(rows(4), "held", ttft_p95=0.2, itl_p95=0.03, rate=100.0),
        LoadResult(rows(4), "held", ttft_p95=0.1, itl_p95=0.02, rate=120.0),
        LoadResult(rows(8), "died"),
        LoadResult(replace(rows(9), queued=4), "held", itl_p95=0.02),
        LoadResult(batch(2, 2000), "held", ttft_p95=0.3, itl_p95=0.03, rate=60.0),
    ]
    found = points(results)
    assert [(point.chats, point.rate) for point in of_history(found, 2000)] == [(2, 60.0)]
    assert len(found) == 2
    assert max(point.rate or 0 for point in found) == 120.0
