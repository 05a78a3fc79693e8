"""Weka's traces of coding agents: a JSON object for each conversation, with sub-agents and a hash for each full block.

https://github.com/callanjfox/kv-cache-tester, and as data sets on the Hub (semianalysisai/cc-traces-weka-...). Moments
are seconds since the conversation's start; what is between an answer and the next request, tools and people, is
its `think_time`. Sub-agents' moments count from their start in the first, from the conversation's start in the second.
In the first the entry of a sub-agent is where its result came: of the 59 that say how long they took, each began
0.1 s or more after the answer that had asked for it and the next request came 3.7 s or more after the entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.workload.traces.blocks import Blocks, find_blocks
from harness.workload.traces.clock import NANO, Clock
from harness.workload.traces.container import Head
from harness.workload.traces.form import FileReading, Opening
from harness.workload.traces.row import Record, Timed, TraceRow
from harness.workload.traces.sessions import Sessions
from harness.workload.traces.tally import Tally
from harness.workload.traces.values import name, optional_tokens, seconds, tokens

_LOCAL_SPACE = 2**64  # of hashes: those of one conversation mean nothing in another
_DEEPEST = 8
_SEVERAL = "each conversation begins at 0: the file has no clock that they share"


class Weka:
    name = "weka"
    about = "Weka agent traces (JSON, with sub-agents)"

    def recognises(self, head: Head) -> bool:
        return {"requests", "block_size"} <= head.names

    def moments(self, head: Head) -> bool:
        return True

    def open(self, opening: Opening) -> FileReading:
        first = opening.head.records[0]
        calls = tuple(call for call in _entries(first) if "requests" not in call.fields)
        if not calls:
            raise first.wrong("requests", "a request", first.fields.get("requests"))
        inner = Opening(Head("json", calls, opening.head.name), opening.timed, opening.time_unit, opening.block_tokens)
        clock = inner.clock("t", form="Weka", unit="s")
        size = optional_tokens(first, "block_size") or None
        blocks = find_blocks(
            inner.head, inner.column("hash_ids"), "in", given=opening.block_tokens, form="its block_size", size=size
        )

        def rows(records: Iterator[Record], tally: Tally) -> Iterator[Timed]:
            for number, record in enumerate(records):
                if number and clock is not None:
                    tally.remark(_SEVERAL)
                scope = 0 if record.fields.get("hash_id_scope") == "global" else number * _LOCAL_SPACE
                identity = name(record, "id") or f"conversation-{record.line}"
                conversation = _Conversation(clock, blocks, scope, tally, Sessions())
                yield from conversation.rows(record, identity, 0, 0)

        return FileReading(clock, rows, blocks, ordered=False)


@dataclass
class _Conversation:
    clock: Clock | None
    blocks: Blocks
    scope: int
    tally: Tally
    sessions: Sessions

    def rows(self, agent: Record, session_id: str, began: int, depth: int) -> Iterator[Timed]:
        """Of one agent and its sub-agents. began: the moment that its own moments count from."""
        helpers, answered = 0, began
        if depth > _DEEPEST:
            raise agent.wrong("requests", f"at most {_DEEPEST} levels of sub-agents", "more")
        for call in _entries(agent):
            moment = None if self.clock is None else began + self.clock.read(call)
            if "requests" in call.fields:
                helpers += 1
                identity = f"{session_id}/{name(call, 'agent_id') or helpers}"
                yield from self.rows(call, identity, self._zero(call, began, moment, answered), depth + 1)
            else:
                answered = (moment or 0) + round((seconds(call, "api_time") or 0.0) * NANO)
                yield moment, self._row(call, session_id)

    def _zero(self, agent: Record, began: int, moment: int | None, answered: int) -> int:
        """What a sub-agent's moments count from: its start, where they would else lie before it. moment: of its entry,
        which is its end where it can have taken as long as it says since the answer before; its start otherwise.
        """
        if self.clock is None or moment is None:
            return 0
        took = round((seconds(agent, "duration_ms", 1e-3) or 0.0) * NANO)
        start = moment - took if moment - took >= answered else moment
        earliest = min((self.clock.read(call) for call in _entries(agent)), default=0)
        return start if began + earliest < start else began

    def _row(self, call: Record, session_id: str) -> TraceRow:
        length = tokens(call, "in")
        hashes = self.blocks.read(call, length, self.tally)
        turn = self.sessions.turn(session_id)
        return TraceRow(
            0.0,
            length,
            tokens(call, "out"),
            tuple(self.scope + each for each in hashes),
            session_id,
            turn,
            seconds(call, "think_time") if turn != 1 else None,
            answered=seconds(call, "api_time"),
        )


def _entries(agent: Record) -> Iterator[Record]:
    entries = agent.fields.get("requests")
    if not isinstance(entries, list):
        raise agent.wrong("requests", "a list of requests", entries)
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise agent.wrong("requests", "a request", entry)
        # A table gives every key to every entry, those that are not its own as null.
        yield agent._replace(fields={key: value for key, value in entry.items() if value is not None})
