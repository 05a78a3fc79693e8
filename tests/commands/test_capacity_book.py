"""Where the search of a further history begins: by the limit of the one before it, and by what binds there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.drive.bench_options import BenchOptions, plan_of
from harness.drive.capacity_book import CapacityBook
from harness.drive.capacity_plan import CapacityOptions, make_plan
from harness.serve.target import Target
from harness.stats.binding import Binding, Resource
from harness.stats.capacity_search import CapacitySearch
from tests.report.subjects import searched_history
from tests.report.test_what_binds import Decided


def book_of(history: str, resource: Resource | None, folder: Path) -> CapacityBook:
    """The first history was searched, and the estimate is 39."""
    asked = plan_of(BenchOptions(slo="ttft_p95=1s,itl_p95=60ms", output_tokens="6", report=False))
    plan = make_plan(Target(url="http://127.0.0.1:1"), CapacityOptions(asked, unit="chats", history=history, start=4.0))
    book = CapacityBook(plan, folder)
    known = searched_history(None, 40.0)
    book.searches[0] = Decided(plan.goal)
    for outcome, flow, figures in zip(known.search.told, known.flows, known.figures, strict=True):
        book.searches[0].tell(outcome)
        book.flows[0].append(flow)
        book.figures[0].append(replace(figures, binds=Binding(resource, "made up")))
    return book


@pytest.mark.parametrize(
    ("history", "resource", "start"),
    [
        ("2000,8000", "kv memory", 10.0),
        ("2000,8000", "queue limit", 39.0),
        ("2000,8000", "decode", 20.0),
        ("8000,2000", "prefill", 156.0),
        ("2000,900000", "prefill", 1.0),
    ],
)
def test_a_further_history_begins_where_the_limit_is_thought_to_lie(
    history: str, resource: Resource, start: float, tmp_path: Path
) -> None:
    """In small steps from there; a search that has begun is left as it is."""
    book = book_of(history, resource, tmp_path)
    book.begin_at_what_is_known(1)
    first = book.searches[1].ask()
    assert first is not None
    assert first.load == book.searches[1].goal.start == start
    assert book.searches[1].goal.guessed
    book.searches[1].tell(book.searches[0].told[0])
    begun = book.searches[1]
    book.begin_at_what_is_known(1)
    assert book.searches[1] is begun


def test_without_a_limit_before_it_a_history_begins_as_asked(tmp_path: Path) -> None:
    """And the first one always does."""
    book = book_of("2000,8000", "prefill", tmp_path)
    searched, fresh = book.searches[0], CapacitySearch(book.plan.goal)
    for searches, place in (([fresh, fresh], 1), ([fresh, searched], 0)):
        book.searches[:] = searches
        book.begin_at_what_is_known(place)
        assert book.searches[place] is fresh
        book.flows.reverse()
        book.figures.reverse()
