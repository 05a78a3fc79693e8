"""OpenTelemetry spans of generative AI, in OTLP's JSON: model calls, with the agents and tools around them.

https://opentelemetry.io/docs/specs/semconv/gen-ai/. Only spans of a model call are sent: those of an agent repeat the
sum of its calls. A conversation goes by `gen_ai.conversation.id`, else by its trace; an agent inside another agent is a
conversation `outer/span`. Between an answer and the next call of a conversation its tools run: that is the pause.
Spans are written as they end, in no order, so the whole file is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.workload.traces.clock import Clock
from harness.workload.traces.container import Head
from harness.workload.traces.form import FileReading, Opening
from harness.workload.traces.row import Record, Timed, TraceRow
from harness.workload.traces.sessions import Sessions
from harness.workload.traces.tally import Tally
from harness.workload.traces.values import name, tokens

_START, _END = "startTimeUnixNano", "endTimeUnixNano"
_CLOCK = Clock(_START, "ns", "by the form, OTLP")
_CALLS = {"chat", "text_completion", "generate_content", "completion"}
_AGENTS, _TOOLS = {"invoke_agent", "create_agent"}, {"execute_tool"}
_INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
_OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
_OPERATION, _CONVERSATION = "gen_ai.operation.name", "gen_ai.conversation.id"
_DEEPEST = 64


class OpenTelemetry:
    name = "otel"
    about = "OpenTelemetry GenAI spans (OTLP JSON)"

    def recognises(self, head: Head) -> bool:
        return "resourcespans" in head.names

    def moments(self, head: Head) -> bool:
        return True

    def open(self, opening: Opening) -> FileReading:
        clock = _CLOCK if opening.timed else None

        def rows(records: Iterator[Record], tally: Tally) -> Iterator[Timed]:
            spans = [span for record in records for span in _spans(record)]
            calls = sorted((span for span in spans if span.is_call), key=lambda span: span.began)
            if not calls:
                raise opening.head.records[0].wrong("resourceSpans", "a span with gen_ai.usage of a model call", None)
            family, sessions = {span.identity: span for span in spans}, Sessions()
            for call in calls:
                session_id = _session(call, family)
                turn, took = sessions.turn(session_id), (call.ended - call.began) / 1e9
                inputs, outputs = call.tokens(_INPUT), call.tokens(_OUTPUT)
                row = TraceRow(0.0, inputs, outputs, session_id=session_id, turn=turn, answered=took)
                yield call.began if clock else None, row

        return FileReading(clock, rows, ordered=False)


@dataclass(frozen=True)
class _Span:
    record: Record  # its fields: the span's own, and its attributes by name
    trace: str
    identity: tuple[str, str]
    parent: tuple[str, str]
    began: int
    ended: int

    @property
    def operation(self) -> str | None:
        return name(self.record, _OPERATION)

    @property
    def is_call(self) -> bool:
        counted = any(each in self.record.fields for each in _INPUT)
        return counted and (self.operation in _CALLS or self.operation is None)

    @property
    def is_agent(self) -> bool:
        return self.operation in _AGENTS

    def tokens(self, names: tuple[str, ...]) -> int:
        column = next((each for each in names if each in self.record.fields), names[0])
        return tokens(self.record, column)


def _session(call: _Span, family: Mapping[tuple[str, str], _Span]) -> str:
    """The conversation's name, and, below a second agent, that agent's."""
    above, agents, conversation = call, [], name(call.record, _CONVERSATION)
    for _ in range(_DEEPEST):
        parent = family.get(above.parent)
        if parent is None:
            break
        above = parent
        conversation = name(above.record, _CONVERSATION) or conversation
        if above.is_agent:
            agents.append(above.identity[1])
    return "/".join([conversation or call.trace, *reversed(agents[:-1])])


def _spans(record: Record) -> Iterator[_Span]:
    for resource in _parts(record, record.fields, "resourceSpans"):
        for scope in _parts(record, resource, "scopeSpans"):
            for span in _parts(record, scope, "spans"):
                yield _span(record, span)


def _span(record: Record, fields: Mapping[str, Any]) -> _Span:
    attributes = {
        str(each.get("key")): _value(each.get("value")) for each in _parts(record, fields, "attributes", optional=True)
    }
    one = record._replace(fields={**fields, **attributes})
    trace = name(one, "traceId") or ""
    began = _CLOCK.read(one)
    ended = Clock(_END, "ns", "").read(one) if fields.get(_END) is not None else began
    identity = (trace, name(one, "spanId") or "")
    return _Span(one, trace, identity, (trace, name(one, "parentSpanId") or ""), began, max(began, ended))


def _value(value: Any) -> Any:
    """Of one of OTLP's `{"intValue": "5"}`; 64-bit numbers are texts there."""
    return next(iter(value.values()), None) if isinstance(value, Mapping) else None


def _parts(record: Record, fields: Mapping[str, Any], key: str, *, optional: bool = False) -> Iterator[Any]:
    found = fields.get(key, [] if optional else None)
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise record.wrong(key, "a list of objects", found)
    yield from found
