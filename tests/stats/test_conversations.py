"""Figures of conversations, known beforehand."""

from __future__ import annotations

from dataclasses import replace

from harness.measure.arrivals import arrival_of
from harness.measure.client import ClientFacts, ClientSample, Floor, SessionCount
from harness.measure.record import RequestRecord
from harness.measure.records import Records
from harness.report.run import run_document
from harness.report.to_html import to_html
from harness.report.to_markdown import to_markdown
from harness.stats.summary import Summary, summarise
from tests.runs import manifest, open_level, ticking


def chats(count: int = 100, turns: int = 5) -> list[RequestRecord]:
    """A conversation a second of turns two seconds apart; each turn waits 100 ms longer, with 1,000 tokens more."""
    return [
        ticking(
            number * turns + turn, number + 2.0 * (turn - 1), first=0.1 * turn, session_id=f"0-{number}", turn=turn,
            history_tokens=1000 * (turn - 1),
        )
        for number in range(count)
        for turn in range(1, turns + 1)
    ]  # fmt: skip


def summary(records: list[RequestRecord], *sessions: SessionCount) -> Summary:
    level = open_level(0, 1.0, 0.0, 100.0, arrival=arrival_of("constant"))
    samples = tuple(ClientSample(float(at), "0", 0.25, 0.002, streams=4, events=100) for at in range(110))
    facts = ClientFacts(samples, floor=Floor(0.0005, 0.0001, 64), sessions=sessions)
    return summarise(Records.from_list(records), manifest([level]), facts)


def test_ttft_is_told_by_turn_and_by_history() -> None:
    """In classes that double, over the requests in the window; ends as they were noted."""
    found = summary(chats(), SessionCount(0, "completed", 90), SessionCount(0, "cut", 10), SessionCount(7, "cut", 5))
    told = found.as_dict()["conversations"]
    assert (told["begun"], told["turns_max"]) == (100, 5)
    assert told["ended"] == {"completed": 90, "history_full": 0, "failed": 0, "cut": 10}
    turns = [(each["turn_from"], each["turn_to"], round(each["p50"], 3)) for each in told["ttft_by_turn"]]
    assert turns[:2] == [(1, 1, 0.1), (2, 2, 0.2)]
    assert [each[:2] for each in turns[2:]] == [(3, 4), (5, 8)]
    history = [(each["history_tokens_from"], round(each["p95"], 3)) for each in told["ttft_by_history"]]
    assert history == [(0, 0.2), (1025, 0.3), (2049, 0.5)]
    for text in (to_markdown(run_document(found)), to_html(run_document(found))):
        assert "1.00 conversations/s" in text
        assert "History no longer fitted" in text
        assert "1,025–2,048" in text
    assert "sent_rate" not in {reason.rule for reason in found.total.reasons}


def test_requests_that_stand_alone_have_none() -> None:
    """Nor do the turns of a trace, whose moments and prompts are recorded."""
    plain = [replace(each, history_tokens=None) for each in chats()]
    assert "conversations" not in summary(plain).as_dict()


def test_turns_of_a_trace_that_were_moved_are_told() -> None:
    """Of each level that moved some, in one statement of the method; of others nothing is said."""
    levels = [
        open_level(0, 1.0, 0.0, 100.0),
        replace(open_level(1, 2.0, 0.0, 100.0), moved_turns=3, moved_mean=0.25, moved_max=1.5),
    ]
    found = summarise(Records.from_list([replace(each, history_tokens=None) for each in chats()]), manifest(levels))
    text = to_markdown(run_document(found))
    assert text.count("of the trace that waited") == 1
    assert (
        "before (2.00 requests/s): 3, sent 250 ms later than recorded on average, 1.50 s at most, with the pauses"
        in text
    )


def test_a_level_that_cuts_many_is_warned_of() -> None:
    """What is left are the early turns."""
    rules = [reason.rule for reason in summary(chats(), SessionCount(0, "cut", 40)).total.warnings]
    assert rules == ["conversations_cut"]
    assert not summary(chats(), SessionCount(0, "cut", 20)).total.warnings


def test_a_turn_that_the_server_found_too_long_is_no_error() -> None:
    """It ends its conversation; the same refusal of a first turn is a failure."""
    refused = {"status": "failed", "error_kind": "validation", "token_at": [], "token_count": []}
    late = [replace(each, **refused) if each.turn == 5 else each for each in chats()]
    assert "errors" not in {reason.rule for reason in summary(late).total.reasons}
    early = [replace(each, **refused) if each.turn == 1 else each for each in chats()]
    assert "errors" in {reason.rule for reason in summary(early).total.reasons}
