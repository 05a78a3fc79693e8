"""Every form in the list: it knows its own files and no other's, and reads them to the last digit."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from harness.errors import UsageError
from harness.workload.traces import TRACE_FORMS
from harness.workload.traces.container import open_container, read_head
from harness.workload.traces.read import Trace, TraceFile, read_dataset, read_trace
from harness.workload.traces.row import TraceRow
from harness.workload.traces.waits import Wait, waits_of
from tests.workload.traces.samples import MOONCAKE, TRACELAB, WEKA, dynamo, lines, parquet, samples, span, spans, usage

NAMES = [form.name for form in TRACE_FORMS]
UNTIMED = ["sharegpt"]


def write(folder: Path, content: bytes | str, name: str = "trace") -> TraceFile:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return TraceFile.of(path, name)


def read(folder: Path, form: str) -> Trace:
    return read_trace(write(folder, samples(folder)[form]))


def offsets(trace: Trace) -> list[float]:
    return [row.offset for row in trace.rows]


@pytest.mark.parametrize("name", NAMES)
def test_a_form_knows_its_own_files_and_no_other_form_takes_them(name: str, tmp_path: Path) -> None:
    """But for the last of the list, which takes every table that none of the others knows."""
    file = write(tmp_path, samples(tmp_path)[name])
    head = read_head(open_container(Path(file.path), file.name))
    assert [form.name for form in TRACE_FORMS if form.recognises(head)][:1] == [name]
    assert [form.name for form in TRACE_FORMS[:-1] if form.recognises(head)] in ([name], [])
    assert next(form for form in TRACE_FORMS if form.name == name).moments(head) is (name not in UNTIMED)


@pytest.mark.parametrize("name", NAMES)
def test_a_packed_file_is_read_as_the_file_itself(name: str, tmp_path: Path) -> None:
    """gzip, in several members too, and zstd; whatever the file is called."""
    content = samples(tmp_path)[name]
    halves = gzip.compress(content[: len(content) // 2]) + gzip.compress(content[len(content) // 2 :])
    plain = read_dataset(write(tmp_path, content)).rows
    if content[:4] != b"PAR1":
        assert read_dataset(write(tmp_path, halves)).rows == plain
        assert read_dataset(write(tmp_path, pa.compress(content, codec="zstd", asbytes=True))).rows == plain
    assert plain


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNTIMED])
def test_a_data_set_has_the_rows_of_the_trace_without_their_moments(name: str, tmp_path: Path) -> None:
    """The same lengths, whichever way the file is given."""
    file = write(tmp_path, samples(tmp_path)[name])
    timed, untimed = read_trace(file), read_dataset(file)
    assert {(row.input_tokens, row.output_tokens) for row in timed.rows} == {
        (row.input_tokens, row.output_tokens) for row in untimed.rows
    }
    assert untimed.clock is None
    assert timed.clock is not None
    assert not any(row.offset for row in untimed.rows)


def test_azure_dates_are_read_to_their_last_digit(tmp_path: Path) -> None:
    """A tenth of a microsecond; moments count from the first row."""
    trace = read(tmp_path, "azure")
    assert trace.rows[1] == TraceRow(4.314579, 396, 109)
    assert offsets(trace) == [0.0, 4.314579, 59.9999999, 60.0]
    assert (trace.clock, trace.blocks) == ("dates", None)


def test_azure_2024_has_time_zones_and_2025_images(tmp_path: Path) -> None:
    """Both are CSV with the same names; images cannot be sent, which is said."""
    text = (
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
        "2024-05-12 00:00:00.009930+00:00,0,2162,5\n2024-05-12 01:00:00+01:00,2,2399,6\n2024-05-12 00:00:01Z,0,76,15\n"
    )
    trace = read_trace(write(tmp_path, text))
    assert offsets(trace) == [0.0, pytest.approx(0.99007, abs=1e-12)]
    assert trace.notes[0] == "1 row dropped: they lie before the first row's moment"
    images = read_dataset(write(tmp_path, text))
    assert images.notes == ("1 row altered: sent without their images",)


def test_burstgpt_is_in_seconds_with_sessions_and_answer_times_where_it_has_them(tmp_path: Path) -> None:
    """A failed request is sent, and said: 0 tokens become one."""
    trace = read(tmp_path, "burstgpt")
    assert offsets(trace) == [0.0, 51.0, 82.5, 90.0]
    assert trace.rows[2] == TraceRow(82.5, 1400, 12, session_id="1722ac82-0a46-4bf0", turn=2, answered=10.0)
    assert trace.rows[0].answered == 43.0
    assert trace.rows[1].session_id is None
    assert trace.clock == "seconds (by the form, BurstGPT)"
    assert trace.counts == {"dropped": 0, "altered": 2, "moved": 0}
    header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    older = header + "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,230,1317,API log\n"
    assert offsets(read_trace(write(tmp_path, older))) == [0.0, 40.0]


def test_mooncake_is_in_milliseconds_with_blocks_of_512(tmp_path: Path) -> None:
    """And says so."""
    trace = read(tmp_path, "mooncake")
    assert offsets(trace) == [0.0, 0.0, 3.0, 10.535]
    assert trace.rows[2] == TraceRow(3.0, 1100, 5, (0, 20, 22))
    assert (trace.block_tokens, trace.clock) == (512, "milliseconds (by the form, Mooncake)")


def test_mooncakes_names_with_other_blocks_leave_the_unit_unknown(tmp_path: Path) -> None:
    """Who writes blocks of 16 tokens may write seconds: refused, with both readings; blocks follow from the lengths."""
    rows = [{"timestamp": at, "input_length": 40, "output_length": 8, "hash_ids": [at, 2, 3]} for at in (0, 2, 4)]
    file = write(tmp_path, lines(*rows))
    with pytest.raises(UsageError) as caught:
        read_trace(file)
    assert str(caught.value) == (
        "trace: column timestamp: nothing tells the unit of its moments (0, 2, 4, ...); of its first 3 rows: "
        "as seconds they span 4.00 s, 0.500 requests/s; as milliseconds they span 4.00 ms, 500 requests/s. "
        "Give --trace-time-unit s, ms, us or ns."
    )
    told = read_trace(TraceFile(file.path, "trace", time_unit="s"))
    assert offsets(told) == [0.0, 2.0, 4.0]
    assert told.blocks == "blocks of 16 tokens (by the lengths beside them in the first 3 rows)"
    assert told.clock == "seconds (--trace-time-unit)"


def test_mooncakes_names_with_fractions_and_no_blocks_leave_the_unit_unknown(tmp_path: Path) -> None:
    """Mooncake's own clock tells whole milliseconds."""
    rows = [{"timestamp": at, "input_length": 40, "output_length": 8} for at in (0.0, 0.25)]
    with pytest.raises(UsageError, match="nothing tells the unit of its moments"):
        read_trace(write(tmp_path, lines(*rows)))
    whole = [{"timestamp": at, "input_length": 40, "output_length": 8} for at in (0.0, 250)]
    assert offsets(read_trace(write(tmp_path, lines(*whole)))) == [0.0, 0.25]


def test_mooncakes_names_since_1970_in_nanoseconds_are_known_by_their_size(tmp_path: Path) -> None:
    """No other unit puts such a number into any time that was recorded."""
    base = 1753780607550317897
    rows = [{"timestamp": str(base + at), "input_length": 600, "output_length": 8} for at in (0, 1_500_000_000)]
    trace = read_trace(write(tmp_path, lines(*rows)))
    assert (offsets(trace), trace.clock) == ([0.0, 1.5], "nanoseconds (since 1970, by their size)")


def test_mooncakes_names_with_sessions_delays_and_texts(tmp_path: Path) -> None:
    """As NVIDIA AIPerf writes them: a later turn tells a delay in milliseconds in place of a moment."""
    rows: list[dict[str, Any]] = [
        {"timestamp": 1000, "session_id": "a", "input_length": 300, "output_length": 8},
        {"timestamp": 4000, "text_input": "Hello?", "output_length": 9},
        {"delay": 2500, "session_id": "a", "input_length": 400, "output_length": 10},
    ]
    trace = read_trace(write(tmp_path, lines(*rows)))
    assert trace.rows == (
        TraceRow(0.0, 300, 8, session_id="a", turn=1),
        TraceRow(2.5, 400, 10, session_id="a", turn=2, delay=2.5),
        TraceRow(3.0, None, 9, text="Hello?"),
    )
    assert trace.counts["moved"] == 2
    with pytest.raises(UsageError, match="trace:2: does not say when"):
        read_trace(write(tmp_path, lines(rows[0], {"session_id": "b", "input_length": 4, "output_length": 1})))


def test_bailian_is_in_seconds_with_blocks_of_16_and_chats_as_sessions(tmp_path: Path) -> None:
    """A chain of requests goes by the id of its first, however long it is."""
    trace = read(tmp_path, "bailian")
    assert offsets(trace) == [0.0, 2.0, 4.0, 61.114]
    assert [(row.session_id, row.turn) for row in trace.rows] == [("11", 1), ("12", 1), ("11", 2), ("11", 3)]
    assert trace.rows[2].blocks == (1, 2, 3, 7)
    assert trace.lines() == [
        "trace: Qwen-Bailian (JSON lines): seconds (by the form, Bailian), blocks of 16 tokens (by the form, Bailian); "
        "4 requests over 61.1 s, 0.0491/s"
    ]


def test_sharegpt_is_turns_with_texts_and_estimated_answers(tmp_path: Path) -> None:
    """A turn is what the user says; an answer without a question is dropped; nobody noted moments."""
    file = write(tmp_path, samples(tmp_path)["sharegpt"])
    trace = read_dataset(file)
    assert [(row.session_id, row.turn, row.text, row.output_tokens) for row in trace.rows] == [
        ("QWJhYvA_0", 1, "Be brief.\n\nWhat is a KV cache?", 100),
        ("QWJhYvA_0", 2, "Thanks!", 4),
        ("i6IyJda_0", 1, "Do.", None),
    ]
    assert all(row.input_tokens is None for row in trace.rows)
    assert trace.notes == (
        "answer lengths are estimated from the recorded texts, 4 characters a token",
        "1 row dropped: an answer that follows no question",
    )
    assert not trace.whole
    with pytest.raises(UsageError, match=r"does not say when its requests came\. Give it as --dataset with --users"):
        read_trace(file)


def test_conversations_of_the_hub_come_in_parquet_with_roles(tmp_path: Path) -> None:
    """LMSYS-Chat-1M's shape."""
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "y" * 40}]
    trace = read_dataset(write(tmp_path, parquet([{"conversation_id": "c", "conversation": said, "turn": 1}])))
    assert trace.rows == (TraceRow(0.0, None, 10, (), "c", 1, None, "Hi"),)


def test_chat_logs_take_counts_from_usage_and_moments_from_created(tmp_path: Path) -> None:
    """Seconds since 1970 by their size; several messages become one text, which is said."""
    trace = read(tmp_path, "chat-log")
    assert trace.rows == (TraceRow(0.0, 9, 30, text="One?"), TraceRow(2.0, None, 77, text="S\n\nTwo?"))
    assert trace.counts == {"dropped": 0, "altered": 1, "moved": 0}
    assert trace.clock == "seconds (since 1970, by their size)"


def test_chat_logs_of_proxies_and_batch_files(tmp_path: Path) -> None:
    """The request may stand in `request` or `body`, the answer in `response` or as the last message."""
    asked = {"messages": [{"role": "user", "content": "Q"}], "session_id": "s"}
    answer = {"created": 1708011490, "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    trace = read_trace(write(tmp_path, lines({"request": asked, "response": answer})))
    assert trace.rows == (TraceRow(0.0, 3, 4, session_id="s", turn=1, text="Q"),)
    batch = {"custom_id": "1", "body": {**asked, "max_completion_tokens": 50}}
    trained = {"messages": [*asked["messages"], {"role": "assistant", "content": "z" * 24}]}
    told = {"request": asked, "response": {"choices": [{"message": {"role": "assistant", "content": "z" * 36}}]}}
    kept = read_dataset(write(tmp_path, lines(batch, trained, told))).rows
    assert [row.output_tokens for row in kept] == [50, 6, 9]


def test_weka_has_sub_agents_as_sessions_of_their_own(tmp_path: Path) -> None:
    """Their moments count from their start, which lies their duration before the entry of their result."""
    trace = read(tmp_path, "weka")
    assert [(row.offset, row.session_id, row.turn, row.delay, row.answered) for row in trace.rows] == [
        (0.0, "trace_0026", 1, None, 4.0),
        (6.0, "trace_0026/a1", 1, None, 1.0),
        (9.0, "trace_0026/a1", 2, None, 1.0),
        (12.0, "trace_0026", 2, 8.0, 2.0),
    ]
    assert trace.rows[3].blocks[:3] == trace.rows[0].blocks
    assert trace.blocks == "blocks of 64 tokens (by the form, its block_size)"


def test_weka_sub_agents_with_moments_of_the_whole_conversation(tmp_path: Path) -> None:
    """As the data sets on the Hub have them: known by not lying before the sub-agent's start."""
    text = WEKA.replace('{"t": 0.0, "type": "s"', '{"t": 6.5, "type": "s"').replace('{"t": 3.0', '{"t": 9.5')
    assert offsets(read_trace(write(tmp_path, text))) == [0.0, 6.5, 9.5, 12.0]


@pytest.mark.parametrize("duration", [None, 9000])
def test_weka_sub_agents_that_began_with_their_entry(tmp_path: Path, duration: int | None) -> None:
    """They say no duration, or one that would have them begin before the answer that asked for them."""
    text = WEKA.replace('"t": 11.0', '"t": 6.0').replace(
        '"duration_ms": 5000', f'"duration_ms": {json.dumps(duration)}'
    )
    assert offsets(read_trace(write(tmp_path, text))) == [0.0, 6.0, 9.0, 12.0]


def test_weka_conversations_share_no_blocks_and_begin_together(tmp_path: Path) -> None:
    """Hashes of `local` scope mean nothing in another conversation; `global` ones do."""
    other = WEKA.replace("trace_0026", "trace_0027")
    trace = read_trace(write(tmp_path, WEKA + other))
    first, second = (row for row in trace.rows if row.turn == 1 and "/" not in (row.session_id or "/"))
    assert not set(first.blocks) & set(second.blocks)
    assert offsets(trace) == [0.0, 0.0, 6.0, 6.0, 9.0, 9.0, 12.0, 12.0]
    assert trace.notes == ("each conversation begins at 0: the file has no clock that they share",)
    shared = read_trace(write(tmp_path, (WEKA + other).replace('"local"', '"global"')))
    assert shared.rows[0].blocks == shared.rows[1].blocks == (1, 2, 3)


def test_otel_sends_model_calls_and_knows_agents_in_agents(tmp_path: Path) -> None:
    """An agent's span repeats its calls and is not sent; an agent within another is a session of its own."""
    trace = read(tmp_path, "otel")
    assert [(row.offset, row.input_tokens, row.session_id, row.turn, row.answered) for row in trace.rows] == [
        (0.0, 100, "conv-5", 1, 2.0),
        (3.0, 50, "conv-5/helper", 1, 1.0),
        (7.0, 180, "conv-5", 2, 1.0),
    ]


def test_otel_without_a_conversation_goes_by_the_trace(tmp_path: Path) -> None:
    """Older names of the counts are known; a document on several lines too."""
    made = spans(span("c", "", 0, 1, usage__prompt_tokens=7, usage__completion_tokens=3), span("x", "", 5, 6))
    trace = read_trace(write(tmp_path, json.dumps(made, indent=2)))
    assert trace.rows == (TraceRow(0.0, 7, 3, session_id="t1", turn=1, answered=1.0),)
    with pytest.raises(UsageError, match="expected a span with gen_ai"):
        read_trace(write(tmp_path, lines(spans(span("x", "", 5, 6, operation__name="chat")))))
    with pytest.raises(UsageError, match="expected a number of tokens"):
        read_trace(write(tmp_path, lines(spans(span("x", "", 5, 6, **{**usage(1, 1), "usage__output_tokens": "?"})))))


def test_dynamo_is_sorted_by_arrival_and_knows_agents(tmp_path: Path) -> None:
    """Lines stand in the order in which requests ended; tool events only pass by."""
    trace = read(tmp_path, "dynamo")
    assert [(row.offset, row.session_id, row.turn, row.answered) for row in trace.rows] == [
        (0.0, "a", 1, 1.0),
        (0.5, "b", 1, 0.4),
        (1.6, "a", 2, 0.4),
    ]
    assert trace.rows[2].blocks[:2] == trace.rows[0].blocks
    wrapped = lines({"timestamp": 5, "event": dynamo(1000, 2000, "a", 64, [1])})
    child = {**dynamo(1000, 2000, "", 64, [1]), "agent_context": {"session_id": "c", "parent_session_id": "p"}}
    assert read_trace(write(tmp_path, wrapped + lines(child))).rows[1].session_id == "p/c"


def test_tracelab_sends_calls_when_their_last_input_was_there(tmp_path: Path) -> None:
    """From the earliest session on; what was cached is shared with the calls before, in blocks that are made for it."""
    trace = read(tmp_path, "tracelab")
    assert [(row.offset, row.session_id, row.turn, row.input_tokens, row.answered) for row in trace.rows] == [
        (0.0, "codex:a", 1, 400, 2.0),
        (0.25, "claude:b", 1, 1500, 3.0),
        (6.25, "claude:b", 2, 2100, 1.5),
    ]
    assert waits_of(trace.rows)[2] == Wait((1,), 3.0)
    assert trace.blocks == "blocks of 512 tokens (made of its prefix_tokens)"
    alone, first, second = (row.blocks for row in trace.rows)
    assert (len(alone), len(first), len(second)) == (1, 3, 5)
    assert second[:2] == first[:2]  # of 1,499 tokens two blocks are whole
    assert not {*second[2:]} & {*first, *alone}
    finer = read_trace(replace(write(tmp_path, TRACELAB), block_tokens=100))
    assert finer.rows[2].blocks[:14] == finer.rows[1].blocks[:14]
    with pytest.raises(UsageError, match="expected a user_message or a tool_result before the answer"):
        read_trace(write(tmp_path, TRACELAB.replace("user_message", "text")))


def test_our_own_records_are_sent_again(tmp_path: Path) -> None:
    """The server's counts, else what was asked; a request whose length nobody knows is dropped, and counted."""
    trace = read(tmp_path, "records")
    assert trace.rows == (
        TraceRow(0.0, 33, 7, session_id="s", turn=1, answered=2.0),
        TraceRow(5.0, 60, 10, session_id="s", turn=2),
    )
    assert trace.counts["dropped"] == 1


@pytest.mark.parametrize(
    ("header", "cells", "offset", "clock"),
    [
        ("arrived_at,num_prefill_tokens,num_decode_tokens", ("1.5", "1.75"), 0.25, "seconds (by the form, Vidur)"),
        ("arrival_timestamp,prompt_size,token_size", ("0", "2e1"), 20.0, "seconds (by the form, SplitwiseSim)"),
        ("TIMESTAMP,input_tokens,output_tokens", ("2024-05-10 00:00:00.5", "2024-05-10T00:00:01Z"), 0.5, "dates"),
        ("timestamp_us,isl,osl", ("5", "1000005"), 1.0, "microseconds (by the name of the column, timestamp_us)"),
        ("time_seconds,isl,osl", ("5", "6.25"), 1.25, "seconds (by the name of the column, time_seconds)"),
    ],
)
def test_tables_of_other_tools_are_known_by_their_columns(
    header: str, cells: tuple[str, str], offset: float, clock: str, tmp_path: Path
) -> None:
    """Names that tools write; seconds, dates, time zones."""
    text = "\n".join([header, *(f"{cell},7,8.0" for cell in cells)])
    trace = read_trace(write(tmp_path, text))
    assert trace.rows == (TraceRow(0.0, 7, 8), TraceRow(offset, 7, 8))
    assert trace.clock == clock


def test_a_table_since_1970_in_milliseconds(tmp_path: Path) -> None:
    """Half a second apart, not five hundred seconds."""
    text = "timestamp,input_tokens,output_tokens\n1708011482123,20,8\n1708011482623,20,8\n1708011483123,20,8\n"
    trace = read_trace(write(tmp_path, text))
    assert (offsets(trace), trace.clock) == ([0.0, 0.5, 1.0], "milliseconds (since 1970, by their size)")


def test_a_mooncake_trace_as_a_table_of_the_hub(tmp_path: Path) -> None:
    """The same rows in Parquet are the same trace."""
    rows = [json.loads(line) for line in MOONCAKE.splitlines()]
    assert read_trace(write(tmp_path, parquet(rows))).rows == read_trace(write(tmp_path, MOONCAKE)).rows


def test_half_a_surrogate_pair_is_replaced_and_counted(tmp_path: Path) -> None:
    """JSON can spell it, but no request can carry it, nor a file of records."""
    rows = '{"timestamp": 0, "text_input": "a\\ud800b", "session_id": "s\\udfff", "output_length": 1}\n'
    trace = read_trace(write(tmp_path, rows))
    assert trace.rows == (TraceRow(0.0, None, 1, session_id="s?", turn=1, text="a?b"),)
    assert trace.counts["altered"] == 1
