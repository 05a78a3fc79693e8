"""Azure's traces of its inference services: CSV with dates, context tokens and generated tokens.

2023: Patel et al., Splitwise, ISCA 2024. 2024: Stojkovic et al., DynamoLLM, HPCA 2025; dates with a time zone. 2025,
multimodal: Qiu et al., ModServe, SoCC 2025. https://github.com/Azure/AzurePublicDataset
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.workload.traces.container import Head
from harness.workload.traces.form import FileReading, Opening
from harness.workload.traces.row import Record, Timed, TraceRow
from harness.workload.traces.tally import Tally
from harness.workload.traces.values import optional_tokens, tokens


class Azure:
    name = "azure"
    about = "Azure LLM inference trace (CSV; 2023, 2024, 2025)"

    def recognises(self, head: Head) -> bool:
        return {"timestamp", "contexttokens", "generatedtokens"} <= head.names

    def moments(self, head: Head) -> bool:
        return True

    def open(self, opening: Opening) -> FileReading:
        clock = opening.clock("timestamp")
        inputs, outputs = opening.needed("contexttokens"), opening.needed("generatedtokens")
        images = opening.column("numimages")

        def rows(records: Iterator[Record], tally: Tally) -> Iterator[Timed]:
            for record in records:
                if optional_tokens(record, images):
                    tally.alter("sent without their images")
                row = TraceRow(0.0, tokens(record, inputs), tokens(record, outputs))
                yield clock.read(record) if clock else None, row

        return FileReading(clock, rows, alone=True)
