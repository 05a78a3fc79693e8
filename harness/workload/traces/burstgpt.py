"""BurstGPT: CSV of requests to Azure OpenAI services, in seconds; from release 2.0 on with sessions and answer times.

Wang et al., BurstGPT, KDD 2025, https://github.com/HPMLL/BurstGPT. A request that failed has 0 response tokens. Rows of
a conversation have a session; those of the API have none.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.workload.traces.container import Head
from harness.workload.traces.form import FileReading, Opening
from harness.workload.traces.row import Record, Timed, TraceRow
from harness.workload.traces.sessions import Sessions
from harness.workload.traces.tally import Tally
from harness.workload.traces.values import name, seconds, tokens


class BurstGpt:
    name = "burstgpt"
    about = "BurstGPT (CSV)"

    def recognises(self, head: Head) -> bool:
        return {"timestamp", "request tokens", "response tokens"} <= head.names

    def moments(self, head: Head) -> bool:
        return True

    def open(self, opening: Opening) -> FileReading:
        clock = opening.clock("timestamp", form="BurstGPT", unit="s")
        inputs, outputs = opening.needed("request tokens"), opening.needed("response tokens")
        session, elapsed = opening.column("session id"), opening.column("elapsed time")

        def rows(records: Iterator[Record], tally: Tally) -> Iterator[Timed]:
            sessions = Sessions()
            for record in records:
                moment = clock.read(record) if clock else None
                session_id = name(record, session)
                row = TraceRow(
                    0.0,
                    tokens(record, inputs),
                    tokens(record, outputs),
                    session_id=session_id,
                    turn=sessions.turn(session_id),
                    answered=seconds(record, elapsed),
                )
                yield moment, row

        return FileReading(clock, rows, alone=session is None)
