"""A small file of each form, as its publisher writes it: the same four requests where the form can tell them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.measure.record import RequestRecord
from harness.measure.records import Records, write_parquet

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:16:46.6805899,879,55
2023-11-16 18:16:46.6805900,91,16
"""

BURSTGPT = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
19440110.0,1722ac82-0a46-4bf0,43,GPT-4,906,446,1352,Conversation log
19440161.0,,2,ChatGPT,36,29,65,API log
19440192.5,1722ac82-0a46-4bf0,10,GPT-4,1400,12,1412,Conversation log
19440200.0,,3,ChatGPT,0,0,0,API log
"""


def lines(*objects: Mapping[str, Any]) -> str:
    return "".join(json.dumps(each) + "\n" for each in objects)


def mooncake(moment: int, tokens: int, blocks: list[int]) -> dict[str, Any]:
    return {"timestamp": moment, "input_length": tokens, "output_length": 5, "hash_ids": blocks}


MOONCAKE = lines(
    mooncake(0, 6758, list(range(14))),
    mooncake(0, 1100, [0, 20, 21]),
    mooncake(3000, 1100, [0, 20, 22]),
    mooncake(10535, 600, [30, 31]),
)


def bailian(chat: int, parent: int, at: float, tokens: int, turn: int, blocks: list[int]) -> dict[str, Any]:
    return {
        "chat_id": chat,
        "parent_chat_id": parent,
        "timestamp": at,
        "input_length": tokens,
        "output_length": 8,
        "type": "text",
        "turn": turn,
        "hash_ids": blocks,
    }


BAILIAN = lines(
    bailian(11, -1, 0.0, 40, 1, [1, 2, 3]),
    bailian(12, -1, 2.0, 48, 1, [4, 5, 6]),
    bailian(13, 11, 4.0, 64, 2, [1, 2, 3, 7]),
    bailian(14, 13, 61.114, 70, 3, [1, 2, 3, 7, 8]),
)

SHAREGPT = json.dumps(
    [
        {
            "id": "QWJhYvA_0",
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "What is a KV cache?"},
                {"from": "gpt", "value": "x" * 400},
                {"from": "human", "value": "Thanks!"},
                {"from": "gpt", "value": "You are welcome."},
            ],
        },
        {"id": "i6IyJda_0", "conversations": [{"from": "gpt", "value": "I go on."}, {"from": "human", "value": "Do."}]},
    ],
    indent=1,
)

CHAT_LOG = lines(
    {
        "created": 1708011482,
        "model": "m",
        "messages": [{"role": "user", "content": "One?"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 30},
    },
    {
        "created": 1708011484,
        "model": "m",
        "messages": [
            {"role": "system", "content": "S"},
            {"role": "user", "content": [{"type": "text", "text": "Two?"}]},
        ],
        "max_tokens": 77,
    },
)

WEKA = lines(
    {
        "id": "trace_0026",
        "models": ["m"],
        "block_size": 64,
        "hash_id_scope": "local",
        "tool_tokens": 100,
        "system_tokens": 20,
        "requests": [
            {"t": 0.0, "type": "n", "in": 200, "out": 20, "hash_ids": [1, 2, 3], "api_time": 4.0, "think_time": 0.0},
            {
                "t": 11.0,
                "type": "subagent",
                "agent_id": "a1",
                "duration_ms": 5000,
                "requests": [
                    {"t": 0.0, "type": "s", "in": 130, "out": 5, "hash_ids": [1, 9], "api_time": 1.0},
                    {"t": 3.0, "type": "s", "in": 200, "out": 5, "hash_ids": [1, 9, 10], "api_time": 1.0},
                ],
            },
            {"t": 12.0, "type": "n", "in": 270, "out": 9, "hash_ids": [1, 2, 3, 4], "api_time": 2.0, "think_time": 8.0},
        ],
    },
)


def attribute(key: str, value: str | int) -> dict[str, Any]:
    kind = {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)}
    return {"key": key, "value": kind}


def span(identity: str, parent: str, began: float, ended: float, **attributes: str | int) -> dict[str, Any]:
    """Seconds since 2023-11-14."""
    base = 1_700_000_000_000_000_000
    return {
        "traceId": "t1",
        "spanId": identity,
        "parentSpanId": parent,
        "startTimeUnixNano": str(base + round(began * 1e9)),
        "endTimeUnixNano": str(base + round(ended * 1e9)),
        "attributes": [attribute("gen_ai." + key.replace("__", "."), value) for key, value in attributes.items()],
    }


def usage(tokens: int, answer: int) -> dict[str, int]:
    return {"usage__input_tokens": tokens, "usage__output_tokens": answer}


def spans(*each: Mapping[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"scope": {}, "spans": list(each)}]}]}


OTEL = lines(
    spans(
        span("c1", "agent", 1.0, 3.0, operation__name="chat", **usage(100, 20)),
        span("tool", "agent", 3.0, 7.5, operation__name="execute_tool"),
        span("h1", "helper", 4.0, 5.0, operation__name="chat", **usage(50, 5)),
    ),
    spans(
        span("helper", "tool", 3.5, 7.0, operation__name="invoke_agent", **usage(50, 5)),
        span("c2", "agent", 8.0, 9.0, operation__name="chat", **usage(180, 10)),
        span("agent", "", 0.5, 9.5, operation__name="invoke_agent", conversation__id="conv-5", **usage(330, 35)),
    ),
)


def dynamo(received: int, ended: int, trajectory: str, tokens: int, blocks: list[int]) -> dict[str, Any]:
    return {
        "schema": "dynamo.request.trace.v1",
        "event_type": "request_end",
        "event_time_unix_ms": ended,
        "agent_context": {"session_id": "run-42", "trajectory_id": trajectory},
        "request": {
            "request_id": f"r{received}",
            "output_tokens": 16,
            "request_received_ms": received,
            "replay": {"trace_block_size": 64, "input_length": tokens, "input_sequence_hashes": blocks},
        },
    }


DYNAMO = lines(
    dynamo(1777312800500, 1777312800900, "b", 70, [7]),
    dynamo(1777312800000, 1777312801000, "a", 128, [14879255164371896291, 274632075616497421]),
    {"schema": "dynamo.request.trace.v1", "event_type": "tool_end", "event_time_unix_ms": 1777312801500, "tool": {}},
    dynamo(1777312801600, 1777312802000, "a", 200, [14879255164371896291, 274632075616497421, 5]),
)

TABLE = """arrival_ms,prompt_tokens,completion_tokens
0,30,3
250,40,4
1000,50,5
"""


def records(folder: Path) -> bytes:
    """records.parquet as a run writes it: one request completed, one failed without a word from the server."""
    made = [
        RequestRecord("r-1", 0, 0.25, "completed", sent_at=0.25, finished_at=2.25, input_tokens=33, output_tokens=7,
                      token_at=[1.0], token_count=[7], session_id="s", turn=1, asked_input_tokens=30,
                      asked_output_tokens=9),
        RequestRecord("r-2", 0, 5.25, "failed", sent_at=5.25, session_id="s", turn=2, asked_input_tokens=60,
                      asked_output_tokens=10),
        RequestRecord("r-3", 0, 6.0, "failed", sent_at=6.0),
    ]  # fmt: skip
    path = folder / "made.parquet"
    write_parquet(Records.from_list(made), path)
    return path.read_bytes()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def tracelab(session: str, total: int, cached: int, *events: tuple[str, str]) -> dict[str, Any]:
    """events: kinds and the seconds of their moments."""
    return {
        "provider": session.partition(":")[0],
        "session_id": session,
        "round_index": 0,
        "input_tokens_total": total,
        "prefix_tokens": cached,
        "newly_append_tokens": total - cached,
        "output_tokens": 30,
        "timing_events": [
            {"event_type": kind, "timestamp": f"2026-06-01T05:40:{second}Z", "source": "x"} for kind, second in events
        ],
        "tools": [],
    }


TRACELAB = lines(
    tracelab("claude:b", 1500, 1000, ("user_message", "20.150"), ("reasoning", "22.5"), ("tool_call", "23.150")),
    tracelab("claude:b", 2100, 1499, ("tool_result", "24.1"), ("tool_result", "26.150"), ("text", "27.650")),
    tracelab("codex:a", 400, 0, ("user_message", "19.900"), ("text", "21.900"), ("usage_report", "29.0")),
)


def samples(folder: Path) -> dict[str, bytes]:
    """A file of each form by the form's name."""
    texts = {
        "azure": AZURE,
        "burstgpt": BURSTGPT,
        "mooncake": MOONCAKE,
        "bailian": BAILIAN,
        "sharegpt": SHAREGPT,
        "chat-log": CHAT_LOG,
        "weka": WEKA,
        "otel": OTEL,
        "dynamo": DYNAMO,
        "tracelab": TRACELAB,
        "table": TABLE,
    }
    return {**{name: text.encode() for name, text in texts.items()}, "records": records(folder)}
