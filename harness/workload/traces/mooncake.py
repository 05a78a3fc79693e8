"""Mooncake: JSON lines with a moment in milliseconds, lengths, and a hash for each block of 512 tokens of the prompt.

Qin et al., Mooncake, FAST 2025, https://github.com/kvcache-ai/Mooncake. Other tools write the same names with sessions,
delays and texts beside them (NVIDIA AIPerf's mooncake_trace), and also with other blocks and other units. So the form's
own units hold only where the lengths agree with blocks of 512 tokens, or, without blocks, moments are whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.workload.traces.blocks import agree, find_blocks
from harness.workload.traces.clock import NANO
from harness.workload.traces.container import Head
from harness.workload.traces.form import FileReading, Opening, no_moments
from harness.workload.traces.row import Record, Timed, TraceRow
from harness.workload.traces.sessions import Sessions
from harness.workload.traces.tally import Tally
from harness.workload.traces.values import hashes, name, optional_tokens, seconds, text, tokens

BLOCK = 512
_MILLISECOND = 1e-3


class Mooncake:
    name = "mooncake"
    about = "Mooncake (JSON lines)"

    def recognises(self, head: Head) -> bool:
        return bool({"input_length", "text_input"} & head.names) and "chat_id" not in head.names

    def moments(self, head: Head) -> bool:
        return head.column("timestamp") is not None

    def open(self, opening: Opening) -> FileReading:
        head = opening.head
        inputs, outputs = opening.needed("input_length"), opening.needed("output_length")
        ids, words = opening.column("hash_ids"), opening.column("text_input")
        session, delay = opening.column("session_id"), opening.column("delay")
        agrees = agree(head, ids, inputs, BLOCK)
        unit = "ms" if agrees or (agrees is None and _whole_moments(head)) else None
        clock = opening.clock("timestamp", form="Mooncake", unit=unit)
        blocks = find_blocks(head, ids, inputs, given=opening.block_tokens, form="Mooncake", size=BLOCK)

        def rows(records: Iterator[Record], tally: Tally) -> Iterator[Timed]:
            sessions, moments = Sessions(), dict[str, int]()
            for record in records:
                session_id, waited = name(record, session), seconds(record, delay, _MILLISECOND)
                moment: int | None = None
                if clock is not None and record.fields.get(clock.column) is not None:
                    moment = clock.read(record)
                elif clock is not None:
                    moment = _after(record, moments.get(session_id or ""), waited, tally)
                if session_id is not None and moment is not None:
                    moments[session_id] = moment
                asked = text(record, words, tally)
                length = optional_tokens(record, inputs) if asked is not None else tokens(record, inputs)
                row = TraceRow(
                    0.0,
                    length,
                    tokens(record, outputs),
                    blocks.read(record, length, tally) if length is not None else hashes(record, None),
                    session_id,
                    sessions.turn(session_id),
                    waited,
                    asked,
                )
                yield moment, row

        return FileReading(clock, rows, blocks, alone=session is None)


def _whole_moments(head: Head) -> bool:
    column = head.column("timestamp")
    values = [str(record.fields.get(column, "")) for record in head.records] if column else []
    return not any(value.partition(".")[2].strip("0") for value in values)


def _after(record: Record, before: int | None, delay: float | None, tally: Tally) -> int:
    """A turn that tells a delay in place of a moment is due so long after the turn before it."""
    if before is None or delay is None:
        raise no_moments(f"{record.file}:{record.line}")
    tally.move("they tell a delay after an answer and no moment; due that long after the turn before was")
    return before + round(delay * NANO)
