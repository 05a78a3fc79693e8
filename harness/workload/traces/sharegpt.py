"""Conversations as texts: ShareGPT's JSON list, and data sets of the same shape (LMSYS-Chat-1M, WildChat).

A row is a turn: what the user says there, without what was said before. Nobody counted tokens, and nobody noted when.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.workload.traces.container import Head
from harness.workload.traces.form import FileReading, Opening
from harness.workload.traces.messages import ESTIMATED, Message, estimated_tokens, joined, read_messages
from harness.workload.traces.row import Record, Timed, TraceRow
from harness.workload.traces.tally import Tally
from harness.workload.traces.values import name


class ShareGpt:
    name = "sharegpt"
    about = "conversations with texts: ShareGPT and its like"

    def recognises(self, head: Head) -> bool:
        return bool({"conversations", "conversation"} & head.names)

    def moments(self, head: Head) -> bool:
        return False

    def open(self, opening: Opening) -> FileReading:
        clock = opening.clock()
        column = opening.column("conversations", "conversation") or "conversations"
        identity = opening.column("id", "conversation_id", "conversation_hash")

        def rows(records: Iterator[Record], tally: Tally) -> Iterator[Timed]:
            tally.remark(ESTIMATED)
            for record in records:
                session_id = name(record, identity) or f"conversation-{record.line}"
                messages = read_messages(record, column, record.fields.get(column), tally)
                turns = [turn for turn in _turns(messages, tally) if turn.text]
                for number, turn in enumerate(turns, start=1):
                    yield None, TraceRow(0.0, None, turn.answer_tokens, (), session_id, number, None, turn.text)

        return FileReading(clock, rows, whole=False)


class _Turn:
    """What is said until the model answers, and how long that answer is; None where there is none."""

    def __init__(self, said: list[Message], answer: Message | None) -> None:
        self.text = joined(said)
        self.answer_tokens = None if answer is None else estimated_tokens(answer.text)


def _turns(messages: list[Message], tally: Tally) -> Iterator[_Turn]:
    said: list[Message] = []
    for message in messages:
        if not message.is_answer:
            said.append(message)
        elif said:
            yield _Turn(said, message)
            said = []
        else:
            tally.drop("an answer that follows no question")
    if said:
        yield _Turn(said, None)
