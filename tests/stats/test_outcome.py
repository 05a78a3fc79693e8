"""From which level on a run that the service put an end to tells of the outage, not of the load."""

from __future__ import annotations

import pytest

from harness.measure.record import RequestRecord
from harness.measure.records import Records
from harness.stats.outcome import unanswered_from
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
