"""Where a level's metrics are taken."""

from __future__ import annotations

import pytest

from harness.measure.arrivals import arrival_of
from harness.measure.records import Records
from harness.measure.run_folder import Level
from harness.stats.window import steady_window
from tests.runs import closed_level, closed_loop, open_level, ticking


def window(level: Level, records=()):
    return steady_window(level, Records.from_list(list(records)))


@pytest.mark.parametrize(
    ("level", "records", "expected"),
    [
        # a tenth of the level
        (closed_level(0, 1, 10.0, 60.0), [ticking(0, 10.0)], (16.0, 70.0)),
        # at most 30 s
        (closed_level(0, 1, 0.0, 600.0), [ticking(0, 0.0)], (30.0, 600.0)),
        # at least the median end-to-end latency: 0.2 s + 100 x 0.1 s
        (closed_level(0, 1, 0.0, 60.0), [ticking(0, 0.0, gap=0.1, tokens=101)], (10.2, 60.0)),
        # at most half of the level
        (closed_level(0, 1, 0.0, 10.0), [ticking(0, 0.0, gap=0.1, tokens=101)], (5.0, 10.0)),
        # as asked
        (closed_level(0, 1, 0.0, 60.0, warmup=0.0), [ticking(0, 0.0)], (0.0, 60.0)),
        (closed_level(0, 1, 0.0, 60.0, warmup=20.0), [ticking(0, 0.0)], (20.0, 60.0)),
        # none with a trace
        (open_level(0, None, 0.0, 60.0, arrival=arrival_of("trace")), [ticking(0, 0.0)], (0.0, 60.0)),
        # a warm-up longer than the level leaves nothing
        (closed_level(0, 1, 0.0, 10.0, warmup=20.0), [ticking(0, 0.0)], (10.0, 10.0)),
    ],
)
def test_the_rule(level: Level, records: list, expected: tuple[float, float]) -> None:
    """Each clause of the stated rule."""
    found = window(level, records)
    assert (found.start, found.end) == pytest.approx(expected)


def test_a_level_that_was_cut_off_ends_with_the_last_moment_recorded() -> None:
    """After a kill the window still covers what is there."""
    level = Level(0, users=1, duration=60.0, warmup=0.0, started_at=0.0)
    found = window(level, [ticking(0, 0.0, tokens=11), ticking(1, 5.0, tokens=11)])
    assert found.end == pytest.approx(5.4)
    assert found.holds(Records.from_list([ticking(1, 5.0)]).scheduled_at).all()


def test_a_level_that_stalled_ends_with_the_last_sign_of_life() -> None:
    """A minute of silence must not make a warm-up of all that came before."""
    answered = [ticking(n, n * 0.5) for n in range(10)]
    stuck = [ticking(10, 5.0, tokens=0, status="in_flight", finished_at=None)]
    level = closed_level(0, 1, 0.0, 64.0, ended_by="stalled")
    found = window(level, [*answered, *stuck])
    assert (found.start, found.end) == pytest.approx((0.49, 4.9))


def test_a_level_without_records_has_an_empty_window() -> None:
    """Nothing recorded, nothing covered."""
    assert window(Level(0, users=1)).length == pytest.approx(0, abs=1e-300)


def test_the_rule_is_stated_in_words() -> None:
    """The report says what was left out and why."""
    level = closed_level(0, 1, 0.0, 60.0)
    text = window(level, closed_loop(level)).rule
    assert "first 6.00 s as warm-up" in text
    assert "cool-down" in text
