"""Logs of chat requests in OpenAI's terms, one JSON object to a line.

Known are the request itself (`messages`), the line of a batch file (`body`), and a request with its response, as
proxies write it (`request`, `response`). Counts come from `usage`, moments from `timestamp`, `created` and their like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.workload.traces.container import Head
from harness.workload.traces.form import FileReading, Opening
from harness.workload.traces.messages import ESTIMATED, estimated_tokens, joined, read_messages
from harness.workload.traces.row import Record, Timed, TraceRow
from harness.workload.traces.sessions import Sessions
from harness.workload.traces.tally import Tally
from harness.workload.traces.values import name, optional_tokens, whole_text

_REQUESTS, _RESPONSES = ("", "body", "request", "request_body"), ("response", "response_body", "")
_MOMENTS = ("timestamp", "created", "created_at", "time", "start_time", "request_time", "response.created")
_SESSIONS = ("session_id", "conversation_id", "chat_id")


class ChatLog:
    name = "chat-log"
    about = "chat requests in OpenAI's terms (JSON lines)"

    def recognises(self, head: Head) -> bool:
        return "messages" in _flat(head.records[0]).fields

    def moments(self, head: Head) -> bool:
        return _flat_head(head).column(*_MOMENTS) is not None

    def open(self, opening: Opening) -> FileReading:
        flat = Opening(_flat_head(opening.head), opening.timed, opening.time_unit, opening.block_tokens)
        clock = flat.clock(*_MOMENTS)
        session = flat.column(*_SESSIONS)

        def rows(records: Iterator[Record], tally: Tally) -> Iterator[Timed]:
            sessions = Sessions()
            for record in map(_flat, records):
                session_id = name(record, session)
                asked, answer = _asked(record, tally)
                if not asked:
                    tally.drop("they hold no text")
                    continue
                if answer is None:
                    answer = optional_tokens(record, "max_tokens")
                moment = clock.read(record) if clock else None
                inputs, turn = optional_tokens(record, "input"), sessions.turn(session_id)
                yield moment, TraceRow(0.0, inputs, answer, (), session_id, turn, None, asked)

        return FileReading(clock, rows)


def _asked(record: Record, tally: Tally) -> tuple[str, int | None]:
    """The text of a request, and the tokens of its answer as counted, or else estimated from the answer's text."""
    messages = read_messages(record, "messages", record.fields.get("messages"), tally)
    answer = record.fields.get("answer")
    while messages and messages[-1].is_answer:
        answer = answer or messages[-1].text
        messages.pop()
    if len(messages) > 1:
        tally.alter("their messages are sent as one text, without roles")
    counted = optional_tokens(record, "output")
    if counted is None and isinstance(answer, str) and answer:
        counted = estimated_tokens(whole_text(answer, tally))
        tally.remark(ESTIMATED)
    return joined(messages), counted


def _flat(record: Record) -> Record:
    """The record with what matters at its top: messages, input, output, max_tokens, answer, and its own scalars."""
    fields = record.fields
    request = next((each for key in _REQUESTS if "messages" in (each := _part(fields, key))), {})
    found = {key: value for key, value in fields.items() if not isinstance(value, (Mapping, list))}
    if "messages" in request:
        found["messages"] = request["messages"]
        found |= {key: request[key] for key in _SESSIONS if key in request}
        found["max_tokens"] = request.get("max_completion_tokens", request.get("max_tokens"))
    for key in reversed(_RESPONSES):
        response = _part(fields, key)
        usage = _part(response, "usage")
        if usage:
            found["input"] = usage.get("prompt_tokens", usage.get("input_tokens"))
            found["output"] = usage.get("completion_tokens", usage.get("output_tokens"))
        if key and "created" in response:
            found["response.created"] = response["created"]
        choices = response.get("choices")
        if isinstance(choices, list) and choices:
            found["answer"] = _part(choices[0], "message").get("content")
    return record._replace(fields=found)


def _part(fields: Any, key: str) -> Mapping[str, Any]:
    value = fields.get(key) if key and isinstance(fields, Mapping) else fields
    return value if isinstance(value, Mapping) else {}


def _flat_head(head: Head) -> Head:
    return Head(head.kind, tuple(map(_flat, head.records)), head.name)
