"""NVIDIA Dynamo's request traces: JSON lines of ended requests, with agents' sessions and a hash for each full block.

Schema dynamo.request.trace.v1, https://docs.nvidia.com/dynamo (Agent Tracing). Lines are written as requests end, so
the whole file is read. Between an answer and the next request of a session its tools run: that is the pause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.workload.traces.blocks import Blocks
from harness.workload.traces.clock import Clock
from harness.workload.traces.container import Head
from harness.workload.traces.form import FileReading, Opening
from harness.workload.traces.row import Record, Timed, TraceRow
from harness.workload.traces.sessions import Sessions
from harness.workload.traces.tally import Tally
from harness.workload.traces.values import name, optional_tokens, tokens

SCHEMA = "dynamo.request.trace.v1"
_CLOCK = Clock("request_received_ms", "ms", "by the form, Dynamo")
_ENDED = Clock("event_time_unix_ms", "ms", "")


class Dynamo:
    name = "dynamo"
    about = "NVIDIA Dynamo request trace (JSON lines, with agents)"

    def recognises(self, head: Head) -> bool:
        return _event(head.records[0]).get("schema") == SCHEMA

    def moments(self, head: Head) -> bool:
        return True

    def open(self, opening: Opening) -> FileReading:
        clock = _CLOCK if opening.timed else None
        requests = [_flat(record) for record in opening.head.records if _is_request(record)]
        size = next((optional_tokens(each, "trace_block_size") for each in requests if each.fields), None)
        given = opening.block_tokens
        blocks = Blocks("input_sequence_hashes", given or size or 1, "as given" if given else "by its trace_block_size")

        def rows(records: Iterator[Record], tally: Tally) -> Iterator[Timed]:
            sessions = Sessions()
            for record in sorted((_flat(each) for each in records if _is_request(each)), key=_CLOCK.read):
                began, ended = _CLOCK.read(record), _ENDED.read(record)
                session_id = _session(record)
                length = tokens(record, "input_length" if "input_length" in record.fields else "input_tokens")
                hashes = blocks.read(record, length, tally) if size or given else ()
                turn, took = sessions.turn(session_id), max(0, ended - began) / 1e9
                outputs = tokens(record, "output_tokens")
                row = TraceRow(0.0, length, outputs, hashes, session_id, turn, answered=took)
                yield began if clock else None, row

        return FileReading(clock, rows, blocks, ordered=False)


def _event(record: Record) -> Mapping[str, Any]:
    """A sink may wrap it together with a time of its own."""
    inner = record.fields.get("event")
    return inner if isinstance(inner, Mapping) else record.fields


def _is_request(record: Record) -> bool:
    return _event(record).get("event_type") == "request_end"


def _flat(record: Record) -> Record:
    fields = dict(_event(record))
    for part in ("agent_context", "request", "replay"):
        inner = fields.get(part)
        if inner is not None and not isinstance(inner, Mapping):
            raise record.wrong(part, "an object", inner)
        fields |= inner or {}
    return record._replace(fields=fields)


def _session(record: Record) -> str | None:
    """An agent's own line of calls; below the agent that started it, where it says which."""
    own = name(record, "trajectory_id") or name(record, "session_id")
    parent = name(record, "parent_trajectory_id") or name(record, "parent_session_id")
    return f"{parent}/{own}" if own and parent else own
