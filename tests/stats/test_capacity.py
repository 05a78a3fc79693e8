"""The highest load that holds: read off levels, or searched for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stats.capacity import CapacitySearch, find_capacity


def level(load: float, holds: bool | None, valid: bool = True):
    """All that capacity looks at."""
    return SimpleNamespace(load=load, users=int(load), attainment=SimpleNamespace(holds=holds), valid=valid)


@pytest.mark.parametrize(
    ("levels", "highest", "above"),
    [
        ([level(1, True), level(4, True), level(16, False)], 4, 16),
        ([level(16, False), level(4, True), level(1, True)], 4, 16),  # in any order
        ([level(1, True), level(4, True)], 4, None),  # the end was not reached
        ([level(1, False), level(4, True)], None, 1),  # what holds above a level that does not is luck
        ([level(1, True, valid=False), level(4, True), level(16, False)], 4, 16),  # nothing speaks against 1
        ([level(1, True), level(4, True, valid=False), level(16, False)], 1, 4),  # 4 cannot be judged
        ([level(1, True, valid=False)], None, 1),
        ([level(1, None)], None, None),  # no SLO
        ([], None, None),
    ],
)
def test_the_highest_level_that_holds_with_its_neighbour(levels, highest, above) -> None:
    """One case per rule."""
    found = find_capacity(levels)
    loads = [section.load if section else None for section in (found.highest, found.above)]
    assert loads == [highest, above]


@given(st.floats(0.05, 2000), st.floats(0.5, 50))
def test_a_search_finds_the_knee_of_a_server_to_its_precision(knee: float, start: float) -> None:
    """Wherever the knee lies, within 10 % and a bounded number of levels."""
    search, asked = CapacitySearch(start, precision=0.1), 0
    while (load := search.next_load()) is not None:
        search.tell(load, load <= knee)
        asked += 1
    holding, failing = search.bracket
    assert holding <= knee < failing
    assert failing - holding <= 0.1 * failing + 1e-9
    assert asked <= 25


@given(st.integers(1, 3000))
def test_a_search_in_whole_users_ends_at_neighbours_or_within_precision(knee: int) -> None:
    """Users are not divisible."""
    search = CapacitySearch(4, precision=0.02, whole=True)
    while (load := search.next_load()) is not None:
        assert load == int(load)
        search.tell(load, load <= knee)
    holding, failing = search.bracket
    assert holding <= knee < failing
    assert failing - holding <= max(1, 0.02 * failing)


def test_a_search_gives_up_where_nothing_holds() -> None:
    """A server that never holds the SLO is not asked for ever."""
    search, asked = CapacitySearch(8.0), 0
    while (load := search.next_load()) is not None:
        search.tell(load, False)
        asked += 1
    assert search.bracket[0] == 0
    assert asked < 15


def test_a_search_gives_up_where_everything_holds() -> None:
    """Nor is one that has no limit."""
    search = CapacitySearch(8.0, most=1000)
    while (load := search.next_load()) is not None:
        search.tell(load, True)
    assert search.bracket == (512.0, float("inf"))
