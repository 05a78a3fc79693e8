"""TraceLab: JSON lines of coding agents' model calls, each with the events of its round and how much of it was cached.

https://github.com/uw-syfi/TraceLab, data under CC BY 4.0. A call is sent when its last input was there, a message of
the user's or a tool's result; its answer lasts until the round's last event. The trace has no hashes: blocks are made
of `prefix_tokens`, so that a call shares with those before it in its session what the provider found in its cache.
What sessions share is not in it, nor which session is another's sub-agent. Rows are ordered by session, so the whole
file is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

from harness.workload.traces.blocks import Blocks
from harness.workload.traces.clock import NANO, Clock
from harness.workload.traces.container import Head
from harness.workload.traces.form import FileReading, Opening
from harness.workload.traces.row import Record, Timed, TraceRow
from harness.workload.traces.sessions import Sessions
from harness.workload.traces.tally import Tally
from harness.workload.traces.values import name, tokens

BLOCK = 512  # made, not recorded; smaller ones take as much more memory
_INPUTS, _REPORTS = {"user_message", "tool_result"}, {"usage_report"}
_CLOCK = Clock("timestamp", None, "")
_APART = "its sessions share no beginning: it says only what a session shares with itself"


class TraceLab:
    name = "tracelab"
    about = "TraceLab (JSON lines, coding agents)"

    def recognises(self, head: Head) -> bool:
        return {"input_tokens_total", "prefix_tokens", "timing_events"} <= head.names

    def moments(self, head: Head) -> bool:
        return True

    def open(self, opening: Opening) -> FileReading:
        size = opening.block_tokens or BLOCK
        blocks = Blocks(None, size, "made of its prefix_tokens")

        def rows(records: Iterator[Record], tally: Tally) -> Iterator[Timed]:
            sessions, numbers, known = Sessions(), count(1), dict[str, tuple[int, ...]]()
            tally.remark(_APART)
            for record in records:
                began, ended = _round(record)
                session_id = name(record, "session_id")
                length, cached = tokens(record, "input_tokens_total"), tokens(record, "prefix_tokens")
                before = known.get(session_id or "", ())[: min(cached, length) // size]
                made = (*before, *(next(numbers) for _ in range(-(-length // size) - len(before))))
                if session_id is not None:
                    known[session_id] = made
                row = TraceRow(
                    0.0,
                    length,
                    tokens(record, "output_tokens"),
                    made,
                    session_id,
                    sessions.turn(session_id),
                    answered=(ended - began) / NANO,
                )
                yield began if opening.timed else None, row

        return FileReading(_CLOCK if opening.timed else None, rows, blocks, ordered=False)


def _round(record: Record) -> tuple[int, int]:
    """When the call was sent and when its answer was whole, in nanoseconds."""
    events = record.fields.get("timing_events")
    if not isinstance(events, list) or not events or not all(isinstance(each, Mapping) for each in events):
        raise record.wrong("timing_events", "a list of events", events)
    told = [
        (_CLOCK.read(record._replace(fields=each)), each.get("event_type"))
        for each in events
        if each.get("event_type") not in _REPORTS
    ]
    answers = [at for at, kind in told if kind not in _INPUTS]
    first = min(answers, default=None)
    inputs = [at for at, kind in told if kind in _INPUTS and (first is None or at <= first)]
    if not inputs:
        raise record.wrong("timing_events", "a user_message or a tool_result before the answer", events)
    return max(inputs), max([*answers, *inputs])
