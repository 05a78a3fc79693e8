"""What the records of levels tell a search: at what rate they came, and which of them tell of an outage."""

from __future__ import annotations

import pytest

from harness.catalog.slo import parse_slo
from harness.measure.arrivals import POISSON
from harness.measure.record import RequestRecord
from harness.measure.records import Records
from harness.measure.run_folder import Level
from harness.stats.outcome import outcome_of, unanswered_from
from tests.runs import failed, ticking

ANSWERED = [ticking(number, float(number)) for number in range(3)]


@pytest.mark.parametrize(
    ("records", "level"),
    [
        (ANSWERED, None),
        ([*ANSWERED, failed(3, 2.1), ticking(4, 3.0)], None),
        ([*ANSWERED, failed(3, 1.5), ticking(0, 5.0, level=1), failed(1, 9.0, level=1)], 1),
        ([*ANSWERED, failed(3, 9.0), failed(0, 10.0, level=1), failed(0, 11.0, level=2)], 0),
        ([failed(0, 1.0), failed(0, 3.0, level=1)], 0),
        ([], None),
    ],
)
def test_levels_are_of_the_outage_from_the_last_answer_on(records: list[RequestRecord], level: int | None) -> None:
    """Failures that answers came after are the load's."""
    assert unanswered_from(Records.from_list(records)) == level


@pytest.mark.parametrize(("turns", "came"), [(1, 2.0), (3, 2.0)])
def test_the_rate_that_came_is_that_of_arrivals(turns: int, came: float) -> None:
    """Two conversations a second, whatever follows in them: the load of a level is what the clock said."""
    records = [
        ticking(3 * number + turn, number / 2 + turn * 0.1, turn=turn + 1, history_tokens=0 if turns > 1 else None)
        for number in range(200)
        for turn in range(turns)
    ]
    level = Level(
        0, rate=2.0, arrival=POISSON, duration=100.0, started_at=0.0, sending_ended_at=100.0, ended_by="duration"
    )
    outcome = outcome_of(level, Records.from_list(records), parse_slo("ttft_p95=1s"), seconds=100.0)
    assert outcome.offered == pytest.approx(came, rel=0.01)
    assert outcome.due == pytest.approx(180 * turns, abs=turns)
