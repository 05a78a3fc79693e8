"""Who waits for whom in a trace, and for how long afterwards, with hand-written rows."""

from __future__ import annotations

import pytest

from harness.workload.traces.row import TraceRow
from harness.workload.traces.waits import Wait, waits_of


def row(at: float, session: str | None, answered: float | None = None, delay: float | None = None) -> TraceRow:
    return TraceRow(at, 10, 5, session_id=session, delay=delay, answered=answered)


@pytest.mark.parametrize(
    ("rows", "waits"),
    [
        pytest.param([row(0, None, 5), row(1, None)], [Wait(), Wait()], id="alone"),
        pytest.param([row(0, "a", 2), row(5, "a"), row(6, "b")], [Wait(), Wait((0,), 3.0), Wait()], id="thinking"),
        pytest.param([row(0, "a", 7), row(5, "a")], [Wait(), Wait((0,), 0.0)], id="asked before it was answered"),
        pytest.param([row(0, "a"), row(5, "a", delay=4)], [Wait(), Wait((0,), 4.0)], id="told in words"),
        pytest.param([row(0, "a"), row(5, "a")], [Wait(), Wait((0,))], id="not told"),
        pytest.param(
            [row(0, "a", 2), row(3, "a/x", 1), row(4, "a/y", 2), row(7, "a", 1), row(9, "a")],
            [Wait(), Wait((0,), 1.0), Wait((0,), 2.0), Wait((0, 1, 2), 1.0), Wait((3,), 1.0)],
            id="two helpers side by side",
        ),
        pytest.param(
            [row(0, "a", 2), row(3, "a/x", 1), row(5, "a", 1), row(6, "a/x", 1), row(9, "a")],
            [Wait(), Wait((0,), 1.0), Wait((0,), 3.0), Wait((1,), 2.0), Wait((2, 3), 2.0)],
            id="a helper in the background",
        ),
        pytest.param(
            [row(0, "a", 1), row(3, "a/x", 9), row(5, "a")],
            [Wait(), Wait((0,), 2.0), Wait((0,), 4.0)],
            id="a helper that had no answer yet",
        ),
        pytest.param([row(0, "a", 9), row(3, "a/x")], [Wait(), Wait()], id="begun while its agent was answered"),
        pytest.param([row(3, "a/x", 1), row(5, "a")], [Wait(), Wait()], id="its agent came later"),
        pytest.param(
            [row(0, "a", 1), row(2, "a/x", 1), row(4, "a/x/z", 1), row(6, "a/x", 1), row(8, "a")],
            [Wait(), Wait((0,), 1.0), Wait((1,), 1.0), Wait((1, 2), 1.0), Wait((0, 3), 1.0)],
            id="a helper's helper",
        ),
    ],
)
def test_who_waits_for_whom(rows: list[TraceRow], waits: list[Wait]) -> None:
    """By the names of the sessions and what was over when, as recorded."""
    assert waits_of(rows) == tuple(waits)
