"""Any table with a column of prompt lengths and one of answer lengths: CSV, JSON lines or Parquet, by its column names.

Names are those that tools write. The unit of a moment is only known where a tool is known by its columns, or the name
of the column or the size of its numbers tells it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.workload.traces.blocks import find_blocks
from harness.workload.traces.container import Head
from harness.workload.traces.form import FileReading, Opening
from harness.workload.traces.row import Record, Timed, TraceRow
from harness.workload.traces.sessions import Sessions
from harness.workload.traces.tally import Tally
from harness.workload.traces.values import name, optional_tokens, tokens

INPUTS = (
    "input_tokens", "prompt_tokens", "context_tokens", "num_prefill_tokens", "num_input_tokens", "request_tokens",
    "input_len", "prompt_len", "input_length", "prompt_size", "isl",
)  # fmt: skip
OUTPUTS = (
    "output_tokens", "completion_tokens", "generated_tokens", "num_decode_tokens", "num_output_tokens",
    "response_tokens", "output_len", "output_length", "token_size", "osl",
)  # fmt: skip
_MOMENT = re.compile(
    r"(timestamp|time|arrival|arrived_at|arrival_time|arrival_timestamp|start_time|request_time|created_at|sent_at)"
    r"(_(s|secs?|seconds|ms|millis|milliseconds|us|micros|microseconds|ns|nanos?|nanoseconds))?"
)
_SESSIONS = ("session_id", "conversation_id", "session id")
# Tools that are known by their columns, and the unit that they write.
_TOOLS = (
    ({"arrived_at", "num_prefill_tokens", "num_decode_tokens"}, "Vidur", "s"),
    ({"arrival_timestamp", "prompt_size", "token_size"}, "SplitwiseSim", "s"),
)


class Table:
    name = "table"
    about = "a table with input_tokens and output_tokens, or their like"

    def recognises(self, head: Head) -> bool:
        return head.column(*INPUTS) is not None and head.column(*OUTPUTS) is not None

    def moments(self, head: Head) -> bool:
        return _moment(head) is not None

    def open(self, opening: Opening) -> FileReading:
        head = opening.head
        tool, unit = next(((tool, unit) for names, tool, unit in _TOOLS if names <= head.names), ("", None))
        moment = _moment(head)
        clock = opening.clock(*([moment.lower()] if moment else []), form=tool, unit=unit)
        inputs, outputs = opening.needed(*INPUTS), opening.needed(*OUTPUTS)
        session, turn = opening.column(*_SESSIONS), opening.column("turn")
        blocks = find_blocks(head, opening.column("hash_ids"), inputs, given=opening.block_tokens)

        def rows(records: Iterator[Record], tally: Tally) -> Iterator[Timed]:
            sessions = Sessions()
            for record in records:
                session_id, length = name(record, session), tokens(record, inputs)
                number = optional_tokens(record, turn) if turn else sessions.turn(session_id)
                hashes = blocks.read(record, length, tally)
                row = TraceRow(0.0, length, tokens(record, outputs), hashes, session_id, number)
                yield clock.read(record) if clock else None, row

        return FileReading(clock, rows, blocks, alone=session is None)


def _moment(head: Head) -> str | None:
    return next((each for each in head.records[0].fields if _MOMENT.fullmatch(each.lower())), None)
