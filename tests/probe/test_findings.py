"""What the report says beside the figures."""

from __future__ import annotations

from harness.engines.base import EngineFacts
from harness.probe import loads
from harness.probe.ask import Search
from harness.probe.card import Cell
from harness.probe.evidence import gather
from harness.probe.findings import advice_of, corrected
from harness.probe.setting import Load, LoadResult, Outcome, Prior, ProbeGoal, Setting
from tests.probe.model_engine import ModelEngine, run


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


class Narrow(ModelEngine):
    """One that takes no request body as large as its longest chat."""

    def send(self, load: Load, setting: Setting, started: EngineFacts) -> LoadResult:
        if load.kind == "longest":
            return LoadResult(load, "refused", reason="Failed to buffer the request body: length limit exceeded")
        return super().send(load, setting, started)


def test_what_was_not_checked_is_said_with_what_would_help() -> None:
    """By name and in the server's words; nothing is said where every check ran and held."""
    narrow, plain = Narrow(30_000), ModelEngine(30_000)
    told = []
    for engine in (narrow, plain):
        search = run(Search(ProbeGoal(answer_tokens=128), Prior(context=131_072)), engine)
        assert search.found is not None
        told.append(" ".join(advice_of(search, search.found, None)))
    assert (
        "Not proved, because not every check ran and held: the longest chat (longest chat): it was refused" in told[0]
    )
    assert "PAYLOAD_LIMIT" in told[0]
    assert "Not proved" not in told[1]


def test_the_reason_for_a_number_of_chats_is_the_one_that_bounds_it() -> None:
    """Whether they fill the cache, are more than that, or are kept few for an engine that dies of its last blocks."""
    words = {
        "fill the KV cache": ModelEngine(60_000),
        "lets in by itself": ModelEngine(6_000),
        "stay below the tokens in flight": ModelEngine(30_000, full_dies=0.95),
    }
    for expected, engine in words.items():
        search = run(Search(ProbeGoal(answer_tokens=128), Prior(context=131_072)), engine)
        assert search.found is not None
        (flag,) = (each for each in search.found.flags if each.name == "max_concurrent_requests")
        assert expected in flag.reason
