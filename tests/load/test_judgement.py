"""When events count as read late, and when a queue as growing for ever: known answers, no clock."""

from __future__ import annotations

import pytest

from harness.load.connection import Exchange
from harness.load.live import GROWTH_AFTER, Growth, Live, live_line
from harness.load.recorder import late_events, sent_late
from harness.load.transport import Absences
from harness.measure.arrivals import arrival_of
from harness.measure.run_folder import Level


@pytest.mark.parametrize(
    ("moments", "absences", "late"),
    [
        ([1.00, 1.02, 1.04], [(1.0, 1.05)], []),  # one event a read: the kernel's stamp is true however late the read
        ([1.00, 1.08, 1.08, 1.08, 1.08], [], []),  # glued, but the reader was there: the server wrote so
        ([1.00, 1.08, 1.08, 1.08, 1.08], [(1.079, 1.081)], []),  # away for less than half a gap of 20 ms
        ([1.00, 1.08, 1.08, 1.08, 1.08], [(1.01, 1.085)], [1, 2, 3]),  # away while they came: the last one is true
        ([1.00, 1.08, 1.08, 1.08, 1.08], [(1.09, 1.2)], []),  # away later
        ([1.05, 1.05, 1.05, 1.07], [(0.9, 1.06)], [0, 1]),  # the first tokens, with the answer's usual gap
        # a rush of what the server had held back: late by 2 ms where gaps are 10 ms, which no figure shows
        ([0.01 * n for n in range(30)] + [2.3] * 6 + [2.302] * 5, [(2.2995, 2.303)], []),
        ([2.9] * 20, [(2.85, 2.95)], []),  # all of an answer in one rush, 2 s after it was asked for: 50 ms do not show
        ([2.9] * 20, [(2.75, 2.95)], list(range(19))),  # 150 ms do
        ([1.00], [(0.0, 2.0)], []),
        ([], [(0.0, 2.0)], []),
    ],
)
def test_events_whose_moment_was_lost(
    moments: list[float], absences: list[tuple[float, float]], late: list[int]
) -> None:
    """Glued events are late where the reader had been away for more than half of their gap."""
    away = Absences()
    for start, end in absences:
        away.add(start, end)
    assert late_events(moments, away, sent_at=0.9) == late


@pytest.mark.parametrize(
    ("sending", "first", "late"),
    [
        (0.0001, 0.05, False),
        (0.004, 0.05, True),  # put aside for 4 ms in the middle of the sending: 8 % of this TTFT are the client's
        (0.004, 1.0, False),
        (0.2, 1.0, True),
    ],
)
def test_a_request_that_left_long_after_its_moment_counts_as_late(sending: float, first: float, late: bool) -> None:
    """Its TTFT holds time in which the client, not the server, made the user wait."""
    exchange = Exchange(b"")
    exchange.sent_at, exchange.sending = 10.0, sending
    assert sent_late(exchange, [10.0 + first, 10.0 + first + 0.02]) is late
    assert not sent_late(exchange, [])


def tick(at: float, waiting: int, **more: object) -> dict[str, object]:
    told = {"process": 0, "level": 0, "at": at, "open": waiting, "waiting": waiting, "counts": {}, "decoded": 0}
    return {**told, "each_a_token": True, "ttft": [], "itl": [], "silent": 0.0, "refused_in_a_row": 0, **more}


def ends_at(level: Level, waiting: list[int]) -> int | None:
    """The second at which a level with so many waiting requests at each second is ended."""
    growth, live = Growth(level), Live(level)
    for second, count in enumerate(waiting):
        live.take(tick(float(second), count))
        if growth.endless(live):
            return second
    return None


OPEN = Level(0, rate=10.0, arrival=arrival_of("poisson"), started_at=0.0)


def test_a_queue_that_grows_for_ever_ends_the_level() -> None:
    """At twice the capacity it is seen as soon as there is enough to see it by."""
    assert ends_at(OPEN, [5 * second for second in range(60)]) == GROWTH_AFTER


@pytest.mark.parametrize(
    "waiting",
    [
        [3] * 120,  # steady
        [40 if 30 <= second < 40 else 2 for second in range(120)],  # a hiccup that passes
        [min(second, 15) * 4 for second in range(120)],  # fills up and stays
    ],
)
def test_a_queue_that_does_not_grow_for_ever_does_not(waiting: list[int]) -> None:
    """Neither a full queue nor a passing one is over-saturation."""
    assert ends_at(OPEN, waiting) is None


def test_a_trace_and_a_closed_loop_are_never_ended_so() -> None:
    """A trace's load changes by nature; in a closed loop no more can wait than there are users."""
    grows = [5 * second for second in range(60)]
    assert ends_at(Level(0, arrival=arrival_of("trace"), started_at=0.0), grows) is None
    assert ends_at(Level(0, users=300, started_at=0.0), grows) is None


def test_the_live_line_pools_all_processes() -> None:
    """Counts and rates add up, percentiles are of all, and the time left is shown."""
    live = Live(Level(0, users=4, duration=60.0, started_at=10.0))
    for process in (0, 1):
        counts = {"completed": 10 + process, "failed": process}
        more = {"process": process, "open": 2, "counts": counts, "ttft": [0.1] * 9 + [0.3], "itl": [0.02, 0.04]}
        live.take(tick(23.0, 1, decoded=300 + process, **more))
        live.take(tick(25.0, 1, decoded=400 + process, **more))
    line = live_line(live)
    for part in (
        "4 users",
        "15.0 s of 60.0 s",
        "21 done",
        "4 open",
        "1 failed",
        "p50 100 ms",
        "100 tokens/s",
        "45.0 s left",
    ):
        assert part in line


def test_the_live_rate_is_that_of_ten_seconds() -> None:
    """An engine that sends eight tokens every 0.9 s sends 8 in some seconds and 16 in others; 8.9 a second in truth."""
    live = Live(Level(0, users=8, started_at=0.0))
    shown = set()
    for second in range(60):
        live.take(tick(float(second), 0, decoded=8 * int(second / 0.9)))
        shown.add(round(live.events_per_second, 1) if second >= 10 else 8.8)
    assert min(shown) >= 8.8
    assert max(shown) <= 9.6
    live.take(tick(60.0, 0, decoded=530, each_a_token=False))
    assert " events/s" in live_line(live)


def test_the_live_line_leaves_out_what_was_told_of_the_level_before() -> None:
    """A process that has not begun this level yet still tells of that one."""
    live = Live(Level(1, users=4, started_at=10.0))
    live.take(tick(11.0, 0, level=0, counts={"completed": 300, "failed": 600}))
    assert "0 done" in live_line(live)
    assert "failed" not in live_line(live)
    live.take(tick(12.0, 0, level=1, counts={"completed": 5, "failed": 7}))
    assert "5 done" in live_line(live)
    assert "7 failed" in live_line(live)
