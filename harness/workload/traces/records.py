"""Our own records.parquet as a trace: what a run sent, in the lengths that the server counted, else as asked."""

from __future__ import annotations

from collections.abc import Iterator

from harness.workload.traces.container import Head
from harness.workload.traces.form import FileReading, Opening
from harness.workload.traces.row import Record, Timed, TraceRow
from harness.workload.traces.tally import Tally
from harness.workload.traces.values import name, optional_tokens, seconds


class RunRecords:
    name = "records"
    about = "records.parquet of a run"

    def recognises(self, head: Head) -> bool:
        return {"request_id", "level", "scheduled_at", "sent_at", "status"} <= head.names

    def moments(self, head: Head) -> bool:
        return True

    def open(self, opening: Opening) -> FileReading:
        clock = opening.clock("scheduled_at", form="records.parquet", unit="s")

        def rows(records: Iterator[Record], tally: Tally) -> Iterator[Timed]:
            for record in records:
                moment = clock.read(record) if clock else None
                inputs, outputs = _length(record, "input_tokens"), _length(record, "output_tokens")
                if inputs is None or outputs is None:
                    tally.drop("neither the server nor the run says how long they were")
                    continue
                row = TraceRow(
                    0.0,
                    inputs,
                    outputs,
                    session_id=name(record, "session_id"),
                    turn=optional_tokens(record, "turn"),
                    answered=_answered(record),
                )
                yield moment, row

        return FileReading(clock, rows)


def _length(record: Record, column: str) -> int | None:
    counted = optional_tokens(record, column)
    return counted if counted is not None else optional_tokens(record, f"asked_{column}")


def _answered(record: Record) -> float | None:
    began, ended = seconds(record, "scheduled_at"), seconds(record, "finished_at")
    return None if began is None or ended is None else max(0.0, ended - began)
