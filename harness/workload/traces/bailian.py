"""Bailian: JSON lines of a Qwen service, in seconds, with chats, turns and a hash for each block of 16 tokens.

Wang et al., KVCache Cache in the Wild, USENIX ATC 2025, https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon.
Each request has a chat_id of its own and names the one it follows; a conversation goes by the id of its first.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.workload.traces.blocks import find_blocks
from harness.workload.traces.container import Head
from harness.workload.traces.form import FileReading, Opening
from harness.workload.traces.row import Record, Timed, TraceRow
from harness.workload.traces.tally import Tally
from harness.workload.traces.values import name, optional_tokens, tokens

BLOCK = 16
_FIRST = "-1"  # the parent of a request that follows none


class Bailian:
    name = "bailian"
    about = "Qwen-Bailian (JSON lines)"

    def recognises(self, head: Head) -> bool:
        return {"chat_id", "parent_chat_id", "input_length"} <= head.names

    def moments(self, head: Head) -> bool:
        return head.column("timestamp") is not None

    def open(self, opening: Opening) -> FileReading:
        inputs, outputs = opening.needed("input_length"), opening.needed("output_length")
        chat, parent, turn = (opening.column(each) for each in ("chat_id", "parent_chat_id", "turn"))
        clock = opening.clock("timestamp", form="Bailian", unit="s")
        blocks = find_blocks(
            opening.head,
            opening.column("hash_ids"),
            inputs,
            given=opening.block_tokens,
            form="Bailian",
            size=BLOCK,
        )

        def rows(records: Iterator[Record], tally: Tally) -> Iterator[Timed]:
            first: dict[str, str] = {}
            for record in records:
                chat_id, follows = name(record, chat), name(record, parent)
                session_id = chat_id if follows in (None, _FIRST) else first.get(follows, follows)
                if chat_id is not None and session_id is not None:
                    first[chat_id] = session_id
                length = tokens(record, inputs)
                row = TraceRow(
                    0.0,
                    length,
                    tokens(record, outputs),
                    blocks.read(record, length, tally),
                    session_id,
                    optional_tokens(record, turn),
                )
                yield clock.read(record) if clock else None, row

        return FileReading(clock, rows, blocks)
