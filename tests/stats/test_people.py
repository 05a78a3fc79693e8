"""From loads to people, by numbers that can be checked by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harness.catalog.slo import parse_slo
from harness.report.capacity import capacity_document
from harness.report.capacity.subject import SearchReport
from harness.report.capacity_text import load_of, to_text
from harness.report.to_markdown import to_markdown
from harness.stats.binding import Binding
from harness.stats.capacity_file import capacity_from
from harness.stats.capacity_report import CapacityReport, HistoryCapacity
from harness.stats.capacity_search import CapacitySearch, Goal
from harness.stats.decision import BoundShare
from harness.stats.money import MoneyQuestion, Price
from harness.stats.outcome import Outcome
from harness.stats.people import NO_HABITS, PROFILES, TOO_SHORT, Flow, Habits, flow_of, people
from harness.stats.surface import Figures
from harness.stats.window import steady_window
from tests.report.subjects import searched_history
from tests.stats.made_up import Slots

SLO = parse_slo("ttft_p95=1s")
FLOW = Flow(43.0, 2.0, 10.0, 20.5, 500.0)


def test_people_by_hand() -> None:
    """2 requests/s of 10 s with 30 s of thought: 20 answers at once, 80 people talking; 6 turns, once an hour: 1200."""
    found = people(FLOW, Habits(think=30.0, turns=6.0))
    assert FLOW.by_little == 20.0
    assert (found.talking, found.busy_hour) == (80.0, 1200.0)
    assert found.per_load == pytest.approx(1200 / 43)
    assert people(FLOW, Habits(30.0, 6.0, sessions_per_hour=2.0)).busy_hour == 600.0


def test_a_day_that_idles_is_used_less() -> None:
    """Half of the hours, and all of them."""
    assert Habits(day=[1.0, 0.0]).utilisation == 0.5
    assert Habits(day=PROFILES["flat"]).utilisation == 1.0


def test_littles_law_agrees_with_a_count_over_time() -> None:
    """On records that were made without it, within what falls over the window's edges."""
    level, records = Slots().level(30, 120.0, np.random.default_rng(1))
    flow = flow_of(30.0, records, steady_window(level, records))
    assert flow.by_little == pytest.approx(flow.at_once, rel=0.05)
    assert Flow.from_dict(flow.as_dict()) == flow


def history(tokens: int | None, knee: float) -> HistoryCapacity:
    """A search whose levels say that this is where it breaks."""
    search, flows, figures = CapacitySearch(Goal(1.0, True, budget=3600.0)), [], []
    while (ask := search.ask()) is not None:
        share = 0.99 if ask.load <= knee else 0.5
        found = BoundShare(SLO.bounds[0], share, 2000, 2000.0, (share - 0.01, share + 0.005))
        search.tell(Outcome(ask.load, (found,), ask.seconds, approach=ask.approach, brief=ask.brief))
        flows.append(Flow(ask.load, ask.load / 10, 10.0, ask.load, 100.0))
        figures.append(Figures(0.01 * ask.load, 0.02, 0.0, 100.0, None, Binding("decode", "made up")))
    return HistoryCapacity(tokens, search, tuple(flows), tuple(figures))


def test_people_are_told_by_a_level_that_lasted() -> None:
    """Not by a brief one at the same load, half of which is warm-up, whichever was first; of two the longer one."""
    search, lengths = CapacitySearch(Goal(1.0, True)), [(10.0, True), (60.0, False), (80.0, False), (10.0, True)]
    share = BoundShare(SLO.bounds[0], 0.99, 2000, 2000.0, (0.98, 0.995))
    for seconds, brief in lengths:
        search.tell(Outcome(8.0, (share,), seconds, brief=brief))
    flows = [Flow(8.0, seconds, 1.0, 8.0, 100.0) for seconds, _ in lengths]
    figures = (Figures(0.1, 0.02, 0.0, 100.0, None, Binding(None, "made up")),) * len(lengths)
    assert HistoryCapacity(None, search, tuple(flows), figures).at_capacity == flows[2]
    only_brief = CapacitySearch(search.goal, search.told[:1])
    assert HistoryCapacity(None, only_brief, tuple(flows[:1]), figures[:1]).at_capacity == flows[0]


@pytest.mark.parametrize(("answered", "known"), [(2.0, False), (44.0, False), (60.0, True), (190.0, True)])
def test_levels_shorter_than_an_answer_tell_of_no_people(answered: float, known: bool) -> None:
    """Of 100 answers at once, each of a second, so many end in a second: by less than half nobody and nothing costs."""
    search = CapacitySearch(Goal(1.0, True))
    share = BoundShare(SLO.bounds[0], 0.99, 2000, 2000.0, (0.98, 0.995))
    search.tell(Outcome(100.0, (share,), 60.0))
    figures = (Figures(0.1, 0.02, 0.0, 100.0, None, Binding(None, "made up")),)
    part = HistoryCapacity(None, search, (Flow(100.0, answered, 1.0, 100.0, 100.0, 300.0),), figures)
    asked = MoneyQuestion(for_users=500)
    report = CapacityReport("m", "users", SLO, Habits(turns=4), Price(0.8, 1), (part,), asked=asked)
    document, text = report.as_dict(), to_markdown(capacity_document(SearchReport(report, report.as_dict(), None, "x")))
    assert (document["users"] is not None, document["cost"] is not None) == (known, known)
    assert (f"not known: {TOO_SHORT}" in text, f"has no answer: {TOO_SHORT}" in text) == (not known, not known)
    assert (f"not known: {TOO_SHORT}" in to_text(report)) is not known


def test_margins_are_those_of_the_level_that_tells_most() -> None:
    """Of three at one load: not of the first one, which was too short to decide."""
    search, names = CapacitySearch(Goal(1.0, True)), ("ttft_p95", "1.00 s", "99.0 % (98.0 % to 99.5 %)")
    for size, low, high in ((60.0, 0.6, 1.0), (2000.0, 0.98, 0.995), (300.0, 0.93, 0.999)):
        search.tell(Outcome(8.0, (BoundShare(SLO.bounds[0], 0.99, 2000, size, (low, high)),), 60.0))
    flows, figures = (Flow(8.0, 1.0, 8.0, 8.0, 100.0),), Figures(0.1, 0.02, 0.0, 100.0, None, Binding(None, "made up"))
    part = HistoryCapacity(None, search, flows * 3, (figures,) * 3)
    report = CapacityReport("m", "users", SLO, Habits(), None, (part,))
    text = to_markdown(capacity_document(SearchReport(report, report.as_dict(), None, "x")))
    row = next(line for line in text.splitlines() if names[0] in line and names[1] in line)
    assert names[2] in row
    assert row.rstrip("| ").endswith("holds")


@pytest.mark.parametrize(
    ("load", "unit", "words"),
    [
        (1.0, "users", "1 user"),
        (41.0, "chats", "41 chats"),
        (1.0, "rate", "1 requests/s"),
        (2.346, "conversations", "2.35 conversations/s"),
    ],
)
def test_a_load_in_words(load: float, unit: str, words: str) -> None:
    """One of it is singular; a rate never is."""
    assert load_of(load, unit) == words


def test_each_further_thousand_tokens_of_history_has_a_price() -> None:
    """40 users at 2,000 tokens and 28 at 8,000, with one request in a hundred that misses at any load."""
    parts = (history(2000, 40.5), history(8000, 28.5))
    report = CapacityReport("m", "users", SLO, Habits(think=30.0), Price(1.0, 1), parts)
    bests = [each.answer.best for each in parts]
    assert bests == [pytest.approx(40, abs=3), pytest.approx(28, abs=3)]
    cost, (few, many) = report.history_cost, [each.answer for each in parts]
    assert cost is not None
    assert (cost.shortest, cost.longest) == (2000, 8000)
    assert cost.loads == pytest.approx(((bests[0] or 0) - (bests[1] or 0)) / 6)
    assert cost.low == pytest.approx((few.holds - (many.breaks or 0)) / 6)
    assert cost.high == pytest.approx(((few.breaks or 0) - many.holds) / 6)
    assert cost.low < 2 < cost.high
    document = report.as_dict()
    answer = document["answer"]
    assert answer["holds"] <= 40 < answer["breaks"]
    assert [cell["history_tokens"] for cell in document["surface"]] == [2000, 8000]
    assert document["levels"] == document["surface"][0]["levels"]
    ends = [answer["holds"], answer["best"], answer["breaks"]]
    assert document["users"]["busy_hour_range"] == [pytest.approx(each * 360.0) for each in ends]
    assert CapacityReport("m", "users", SLO, Habits(), None, parts[:1]).history_cost is None


def test_nobody_is_counted_where_nothing_says_how_one_asks() -> None:
    """Nor has one a price, nor so many their GPUs; what is missing is said. A profile says nothing of it."""
    part, asked = searched_history(None, 40.0), MoneyQuestion(for_users=500)
    for untold in (Habits(), Habits(day=PROFILES["office"])):
        report = CapacityReport("m", "users", SLO, untold, Price(1.0, 1), (part,), asked=asked)
        document = json.loads(json.dumps(report.as_dict()))
        assert [document["users"][name] for name in ("busy_hour", "busy_hour_range", "per_load")] == [None] * 3
        assert document["cost"]["per_user_month"] is None
        assert "fleet" not in document["cost"]
        assert report.money.why_not == NO_HABITS
        for text in (to_text(report), to_markdown(capacity_document(SearchReport(report, document, None, "x")))):
            assert "--sessions-per-hour" in text
            assert "per user" not in text
            assert "users need" not in text
        assert capacity_from(document, asked=asked).habits.told is False
    for told in (Habits(think=30.0), Habits(turns=1.0), Habits(sessions_per_hour=1.0)):
        report = CapacityReport("m", "users", SLO, told, Price(1.0, 1), (part,), asked=asked)
        assert report.people_range is not None
        assert "1 turn a session and 1 session an hour" in to_text(report)
        assert "per user and month" in to_text(report)
        again = capacity_from(json.loads(json.dumps(report.as_dict())), asked=asked)
        assert (again.habits.told, again.people_range) == (True, report.people_range)


def test_a_search_without_levels_has_no_people() -> None:
    """Nothing is made up."""
    empty = HistoryCapacity(None, CapacitySearch(Goal(1.0, True)), (), ())
    report = CapacityReport("m", "rate", SLO, Habits(), Price(1.0, 1), (empty,))
    assert (report.people, report.people_range, report.as_dict()["users"], report.as_dict()["cost"]) == (None,) * 4
