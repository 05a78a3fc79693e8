"""Who waits for whom in a trace: a turn for the answer before it, a sub-agent for the one that starts it, which in turn
waits for its sub-agents; and how long each then paused.

Nobody asks on before they are answered, whatever a slower service does to the moments. The pause is what people
thought and tools took, so it follows the answer as it did when it was recorded. So do those who publish such traces and
replay them: NVIDIA AIPerf (think time after the turn before, a parent joined with its sub-agents), kv-cache-tester
(`think-only`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.workload.traces.row import TraceRow


@dataclass(frozen=True, slots=True)
class Wait:
    """answers: of the requests, by number, that one waits for. pause: seconds from the last of these to the request, as
    recorded, at the pace of the replay; None where the trace does not tell, and where there is nothing to wait for.
    """

    answers: tuple[int, ...] = ()
    pause: float | None = None


NOTHING = Wait()


def waits_of(rows: Sequence[TraceRow]) -> tuple[Wait, ...]:
    """Of each row, in the order of their moments, what it waits for."""
    last = {row.session_id: number for number, row in enumerate(rows) if row.session_id is not None}
    if not last:
        return (NOTHING,) * len(rows)
    latest = dict[str, int]()
    helpers = dict[str, list[str]]()  # sub-agents that a session has started and not yet waited for
    found = []
    for number, row in enumerate(rows):
        session = row.session_id
        if session is None:
            found.append(NOTHING)
            continue
        parent = session.rpartition("/")[0]
        before = latest.get(session)
        if before is not None:
            joined = [last[each] for each in helpers.get(session, ()) if _over(rows, last[each], number)]
            helpers[session] = [each for each in helpers.get(session, ()) if last[each] not in joined]
            answers: tuple[int, ...] = (before, *joined)
        elif parent in latest and _over(rows, latest[parent], number):
            helpers.setdefault(parent, []).append(session)
            answers = (latest[parent],)
        else:
            answers = ()
        latest[session] = number
        found.append(Wait(answers, _pause(rows, answers, row)) if answers else NOTHING)
    return tuple(found)


def _over(rows: Sequence[TraceRow], number: int, by: int) -> bool:
    """Whether a request had its answer, as recorded, when another one was sent; as far as is known."""
    return number < by and rows[number].offset + (rows[number].answered or 0.0) <= rows[by].offset


def _pause(rows: Sequence[TraceRow], answers: Sequence[int], row: TraceRow) -> float | None:
    """What the moments leave, else what the trace says in words."""
    ends = [rows[each].offset + took for each in answers if (took := rows[each].answered) is not None]
    return max(0.0, row.offset - max(ends)) if len(ends) == len(answers) else row.delay
