"""What the report says beside the figures."""

from __future__ import annotations

from harness.engines.base import EngineFacts
from harness.probe import loads
from harness.probe.card import Cell
from harness.probe.evidence import gather
from harness.probe.findings import corrected
from harness.probe.setting import LoadResult, Outcome, Setting


def test_the_card_says_what_ran_together_where_less_did_than_should() -> None:
    """19 by arithmetic beside 17 that ran together is a contradiction, and the measurement is right."""
    load = loads.cell(2000, 19, 512, 1.0)
    assert load.leave_after_tokens is not None
    facts = EngineFacts("flash", True, 50_000)
    evidence = gather([Outcome(Setting(), facts, True, None, (LoadResult(load, "held", beside=17),))])
    cells, lines = corrected([Cell(2000, 512, 19), Cell(500, 512, 40)], evidence)
    assert [cell.chats_fit for cell in cells] == [17, 40]
    assert len(lines) == 1
    evidence = gather([Outcome(Setting(), facts, True, None, (LoadResult(load, "held", beside=19),))])
    assert corrected([Cell(2000, 512, 19)], evidence) == ([Cell(2000, 512, 19)], [])
