"""The part of a trace that is sent: where it begins and ends, its pace, its order, and how far a file is read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.workload.traces.clock import NANO
from harness.workload.traces.row import Timed, TraceRow
from harness.workload.traces.tally import Tally
from harness.workload.traces.window import ChosenRows, Window, choose, first_rows


def rows(*seconds: float) -> Iterator[Timed]:
    """Row n asks with n + 1 tokens."""
    for number, at in enumerate(seconds):
        yield round(at * NANO), TraceRow(0.0, number + 1, 5, session_id=f"s{number}")


def pick(*seconds: float, tally: Tally | None = None, ordered: bool = True, **window: float | bool) -> ChosenRows:
    return choose(rows(*seconds), Window(**window), tally or Tally(), "t", ordered=ordered)  # type: ignore[arg-type]


def shown(chosen: ChosenRows) -> list[tuple[float, int | None]]:
    return [(row.offset, row.input_tokens) for row in chosen.rows]


def test_a_duration_takes_the_rows_before_its_end() -> None:
    """The row at the very end is not in."""
    assert shown(pick(10, 11, 12.5, duration=2.5)) == [(0.0, 1), (1.0, 2)]
    assert len(pick(10, 11, 12.5, duration=2.500001).rows) == 3


def test_a_faster_replay_keeps_the_proportions() -> None:
    """--duration is the replay's: twenty times as fast, a second holds twenty of the trace."""
    assert shown(pick(0, 10, 19, 21, speed=20, duration=1)) == [(0.0, 1), (0.5, 2), (0.95, 3)]


def test_a_slice_counts_from_where_it_begins() -> None:
    """Not from its first row, which may come later."""
    assert shown(pick(0, 10, 19, 21, start=5, duration=15)) == [(5.0, 2), (14.0, 3)]
    assert shown(pick(0, 10, 19, 21, start=9, speed=2)) == [(0.5, 2), (5.0, 3), (6.0, 4)]


def test_rows_are_sent_at_their_moments_whatever_their_order() -> None:
    """One from before the first row has none and is dropped; both are counted."""
    tally = Tally()
    assert shown(pick(10, 12, 11, 9, tally=tally)) == [(0.0, 1), (1.0, 3), (2.0, 2)]
    assert tally.notes() == (
        "1 row dropped: they lie before the first row's moment",
        "1 row moved: they come after later ones; sent at their moments",
    )
    assert shown(pick(10, 12, 9, ordered=False)) == [(0.0, 3), (1.0, 1), (3.0, 2)]


def test_so_many_requests_are_the_earliest() -> None:
    """Also where they do not stand in order."""
    assert shown(pick(0, 3, 1, 2, requests=3)) == [(0.0, 1), (1.0, 3), (2.0, 4)]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 45), st.integers(1, 70))
def test_disorder_loses_no_row(moments: list[int], duration: int, most: int) -> None:
    """What is sent is what a reading of the whole file would send."""
    first = moments[0]
    tally = Tally()
    due = sorted((at - first, number) for number, at in enumerate(moments) if 0 <= at - first < duration)[:most]
    chosen = pick(*moments, tally=tally, duration=duration, requests=most)
    assert [(row.offset, int((row.session_id or "")[1:])) for row in chosen.rows] == due
    assert tally.of("dropped") == sum(at < first for at in moments)


def test_reading_ends_soon_after_the_last_row_that_is_wanted() -> None:
    """A million rows are not read for the first ten seconds, nor for the first ten requests."""

    def endless() -> Iterator[Timed]:
        for number in range(1_000_000):
            read.append(number)
            yield number * NANO, TraceRow(0.0, 1, 1)

    for window in (Window(duration=10), Window(requests=10)):
        read: list[int] = []
        chosen = choose(endless(), window, Tally(), "t", ordered=True)
        assert len(chosen.rows) == 10
        assert len(read) < 1100
        assert chosen.cut


def test_disorder_makes_it_look_further() -> None:
    """A row that comes 2,000 s late is found 2,000 rows after the end, because another one came late before."""
    moments = [*range(1000), 400, *range(1000, 3000), 5, *range(3000, 20000)]
    chosen = pick(*moments, duration=700)
    assert len(chosen.rows) == 702
    assert chosen.cut


def test_a_trace_goes_on_from_its_beginning() -> None:
    """One mean gap after its last row; a conversation of the second pass is another one."""
    chosen = pick(0, 1, 4, loop=True, duration=13)
    assert [row.offset for row in chosen.rows] == [0.0, 1.0, 4.0, 6.0, 7.0, 10.0, 12.0]
    assert [row.session_id for row in chosen.rows[2:4]] == ["s2", "s0#2"]
    assert [row.repeat for row in chosen.rows] == [0, 0, 0, 1, 1, 1, 2]
    assert len(pick(0, 1, loop=True, requests=7).rows) == 7
    with pytest.raises(UsageError, match="goes on for ever"):
        pick(0, 1, loop=True)
    with pytest.raises(UsageError, match="how long one pass lasts is not known"):
        pick(3, 3, loop=True, requests=9)


def test_nothing_to_send_is_refused() -> None:
    """Before anything starts, and with how long the trace is."""
    with pytest.raises(UsageError, match=r"t: no request in this part: the trace lasts 4.00 s\. Begin earlier\."):
        pick(0, 4, start=5)
    with pytest.raises(UsageError, match="no request in this part"):
        choose([], Window(), Tally(), "t", ordered=True)
    with pytest.raises(UsageError, match="holds no request"):
        first_rows([], 5, Tally(), "t")


def test_moments_that_cannot_belong_together_are_refused() -> None:
    """Decades between two rows are a wrong unit or a damaged line, and nobody would wait for the second."""
    with pytest.raises(UsageError, match="Another unit of time, or a damaged line"):
        pick(0, 4e8)
    assert len(pick(0, 4e8, duration=60).rows) == 1


def test_the_hash_is_of_the_rows_as_they_stand_in_the_file() -> None:
    """The same rows at another pace have it too; other rows, moments or texts have not."""
    base = pick(0, 1, 2)
    assert pick(5, 6, 7, speed=2).sha256 == base.sha256
    assert len({each.sha256 for each in (base, pick(0, 1), pick(0, 1, 3), pick(0, 1, 2, duration=1.5))}) == 3
    texts = [first_rows([(None, TraceRow(0.0, None, 1, text=text))], 1, Tally(), "t").sha256 for text in "ab"]
    assert texts[0] != texts[1]


@given(st.lists(st.floats(0, 1e5), min_size=2, max_size=20), st.sampled_from([0.5, 1.0, 20.0]))
def test_moments_rise(moments: list[float], speed: float) -> None:
    """Whatever the file's order."""
    due = [row.offset for row in pick(*moments, speed=speed, ordered=False).rows]
    assert all(one <= next_ for one, next_ in pairwise(due))
    assert list(islice(due, 1)) == [0.0]
