"""The journal keeps every request, however its writer ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from array import array
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.measure.journal import (
    JournalReader,
    JournalWriter,
    pack_record,
    read_entries,
    read_journal,
    unpack_record,
)
from harness.measure.record import RequestRecord, from_first_text
from harness.measure.records import Records, concatenate, read_parquet, write_parquet

moments = st.one_of(st.none(), st.floats(0, 1e6))
counts = st.one_of(st.none(), st.integers(0, 2**31 - 1))
texts = st.one_of(st.none(), st.text(st.characters(blacklist_characters="\0", codec="utf-8"), min_size=1, max_size=20))


@st.composite
def records(draw: st.DrawFn, request_id: str = "r") -> RequestRecord:
    """Any record that the format can hold."""
    events = draw(st.integers(0, 20))
    return RequestRecord(
        request_id=request_id,
        level=draw(st.integers(0, 100)),
        scheduled_at=draw(st.floats(0, 1e6)),
        status=draw(st.sampled_from(["completed", "failed", "dropped", "in_flight"])),
        sent_at=draw(moments),
        first_byte_at=draw(moments),
        token_at=draw(st.lists(st.floats(0, 1e6), min_size=events, max_size=events)),
        token_count=draw(st.lists(st.integers(0, 1000), min_size=events, max_size=events)),
        finished_at=draw(moments),
        input_tokens=draw(counts),
        output_tokens=draw(counts),
        finish_reason=draw(texts),
        http_status=draw(counts),
        error_kind=draw(texts),
        session_id=draw(texts),
        turn=draw(counts),
        asked_input_tokens=draw(counts),
        asked_output_tokens=draw(counts),
        history_tokens=draw(counts),
        glued_events=draw(st.integers(0, 1000)),
        queue_time=draw(moments),
        count_told=draw(st.sampled_from([None, "per_event", "per_answer"])),
        first_share=draw(st.one_of(st.none(), st.floats(0, 1))),
        notes=draw(texts),
    )


def test_tokens_of_an_answer_in_flight_are_kept(tmp_path: Path) -> None:
    """As far as they were noted; the outcome, where it is known, stands alone."""
    writer = JournalWriter(tmp_path / "journal-0.log")
    for name in ("cut", "whole"):
        writer.begin(name, 0, 1.0, 1.0)
        writer.tokens(name, array("d", [1.5, 1.75]).tobytes(), array("i", [1, 2]).tobytes())
        writer.tokens(name, array("d", [2.0]).tobytes(), array("i", [1]).tobytes())
    writer.end(replace(answered(1), request_id="whole"))
    writer.close()
    found = {record.request_id: as_lists(record) for record in read_journal(tmp_path).records}
    assert (found["cut"].status, found["cut"].token_at, found["cut"].token_count) == (
        "in_flight",
        [1.5, 1.75, 2.0],
        [1, 2, 1],
    )
    assert found["whole"].token_at == answered(1).token_at


def as_lists(record: RequestRecord) -> RequestRecord:
    record.token_at, record.token_count = list(record.token_at), list(record.token_count)
    return record


def answered(number: int, tokens: int = 3) -> RequestRecord:
    return RequestRecord(
        request_id=f"request-{number}",
        level=0,
        scheduled_at=float(number),
        status="completed",
        sent_at=number + 0.001,
        first_byte_at=number + 0.1,
        token_at=[number + 0.1 * (each + 1) for each in range(tokens)],
        token_count=[1] * tokens,
        finished_at=number + 0.1 * tokens,
        output_tokens=tokens,
        finish_reason="length",
    )


@given(records())
def test_a_packed_record_comes_back_unchanged(record: RequestRecord) -> None:
    """Packing loses nothing, nulls included."""
    assert as_lists(unpack_record(pack_record(record))) == record


@given(records())
def test_a_record_of_a_journal_without_the_newer_texts_is_read(record: RequestRecord) -> None:
    """A run that an earlier version left behind can still be reported."""
    older = pack_record(record).rsplit(b"\0", 5)[0]
    plain = replace(record, count_told=None, first_share=None, notes=None, error_message=None, history_tokens=None)
    assert as_lists(unpack_record(older)) == plain


@given(st.lists(records(), max_size=8))
def test_columns_hold_what_the_records_held(some: list[RequestRecord]) -> None:
    """A list of records survives the way into columns, through an Arrow table, and back."""
    columns = Records.from_list(some)
    assert columns.to_list() == some
    assert Records.from_table(columns.to_table()).to_list() == some
    assert len(concatenate([columns, columns])) == 2 * len(some)


def test_tokens_in_flight_are_counted_as_the_process_said_that_they_come(tmp_path: Path) -> None:
    """Where every event is one token, so are those of answers that no outcome is known of; else nobody can say."""
    for process, told in ((0, "per_event"), (1, None)):
        writer = JournalWriter(tmp_path / f"journal-{process}.log")
        if told:
            writer.note("counting", {"count_told": told})
        for name in ("begun", "cut"):
            writer.begin(f"{name}-{process}", 0, 1.0, 1.0)
        writer.tokens(f"cut-{process}", array("d", [1.5]).tobytes(), array("i", [1]).tobytes())
        writer.end(replace(answered(process), count_told="per_answer"))
        writer.close()
    found = {record.request_id: record.count_told for record in read_journal(tmp_path).records}
    assert found == {
        "begun-0": "per_event", "cut-0": "per_event", "request-0": "per_answer",
        "begun-1": None, "cut-1": None, "request-1": "per_answer",
    }  # fmt: skip


def test_a_reader_goes_on_where_it_left_off(tmp_path: Path) -> None:
    """Each request is read once, of every process, though an entry was cut in between; what is counted stays known."""
    writers = [JournalWriter(tmp_path / f"journal-{process}.log") for process in (0, 1)]
    writers[0].note("counting", {"count_told": "per_event"})
    reader = JournalReader(tmp_path)
    for number, writer in enumerate(writers):
        writer.end(answered(number))
        writer.flush()
    assert [record.request_id for record in reader.read().records] == ["request-0", "request-1"]
    assert len(reader.read().records) == 0
    whole = (tmp_path / "journal-1.log").read_bytes()
    writers[1].end(answered(2))
    writers[1].flush()
    later = (tmp_path / "journal-1.log").read_bytes()
    (tmp_path / "journal-1.log").write_bytes(later[: len(whole) + 20])
    assert len(reader.read().records) == 0
    (tmp_path / "journal-1.log").write_bytes(later)
    writers[0].begin("open", 1, 3.0, 3.0)
    writers[0].flush()
    found = {record.request_id: record.count_told for record in reader.read().records}
    assert found == {"request-2": None, "open": "per_event"}
    for writer in writers:
        writer.close()


def test_a_request_without_an_end_is_in_flight(tmp_path: Path) -> None:
    """What was sent and never heard of again is kept as in flight, with the moments it had."""
    writer = JournalWriter(tmp_path / "journal-0.log")
    writer.begin("request-0", 0, 0.0, 0.001)
    writer.begin("request-1", 0, 1.0, 1.002)
    writer.end(answered(0))
    writer.close()
    first, second = read_journal(tmp_path).records.to_list()
    assert first == answered(0)
    assert second == RequestRecord("request-1", 0, 1.0, "in_flight", sent_at=1.002)


def test_logs_of_several_processes_become_one_table_in_order_of_the_moments_due(tmp_path: Path) -> None:
    """Which process recorded a request leaves no trace in the order of the rows."""
    for process in (0, 1):
        writer = JournalWriter(tmp_path / f"journal-{process}.log")
        for number in range(9, -1, -1):
            if number % 2 == process:
                writer.end(answered(number))
        writer.close()
    assert [each.request_id for each in read_journal(tmp_path).records] == [f"request-{n}" for n in range(10)]


def test_notes_come_back_with_their_kind(tmp_path: Path) -> None:
    """What a process says of itself is read beside the records."""
    writer = JournalWriter(tmp_path / "journal-a.log")
    writer.note("sample", {"cpu_fraction": 0.5})
    writer.close()
    assert read_journal(tmp_path).notes == ({"kind": "sample", "cpu_fraction": 0.5},)


def test_a_log_cut_at_any_byte_gives_every_whole_entry_before_the_cut(tmp_path: Path) -> None:
    """A kill in the middle of a write costs the entry that was being written, and nothing else."""
    path = tmp_path / "journal-0.log"
    writer = JournalWriter(path)
    ends = []
    for number in range(4):
        writer.begin(f"request-{number}", 0, float(number), number + 0.001)
        writer.end(answered(number))
        writer.flush()
        ends.append(path.stat().st_size)
    writer.close()
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        completed = [each for each in read_journal(tmp_path).records if each.status == "completed"]
        assert completed == [answered(number) for number, end in enumerate(ends) if end <= size]


def test_a_damaged_entry_ends_the_log(tmp_path: Path) -> None:
    """A flipped byte is noticed, and nothing from there on is believed."""
    path = tmp_path / "journal-0.log"
    writer = JournalWriter(path)
    for number in range(3):
        writer.end(answered(number))
    writer.close()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert len(list(read_entries(path))) == 1


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    """A log that this version cannot read is an error that names the file."""
    (tmp_path / "journal-0.log").write_bytes(b"something else entirely\n")
    with pytest.raises(UsageError, match=r"journal-0\.log"):
        read_journal(tmp_path)


def test_what_was_flushed_survives_a_kill(tmp_path: Path) -> None:
    """After SIGKILL everything up to the last flush is there."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from harness.measure.journal import JournalWriter\n"
        "writer = JournalWriter(Path(sys.argv[1]))\n"
        "for number in range(100):\n"
        "    writer.begin(f'request-{number}', 0, float(number), float(number))\n"
        "writer.flush()\n"
        "print('flushed', flush=True)\n"
        "time.sleep(60)\n"
    )
    path = tmp_path / "journal-0.log"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"flushed\n"
        os.kill(process.pid, signal.SIGKILL)
    assert len(read_journal(tmp_path).records) == 100


def test_the_parquet_file_has_the_promised_columns_first_and_in_order(tmp_path: Path) -> None:
    """Other programs may rely on names, order and types of the columns."""
    path = tmp_path / "records.parquet"
    write_parquet(Records.from_list([answered(0), RequestRecord("dropped", 0, 2.0, "dropped")]), path)
    schema = pq.read_schema(path)
    expected = {
        "request_id": "string",
        "level": "int64",
        "scheduled_at": "double",
        "sent_at": "double",
        "first_byte_at": "double",
        "token_at": "list<element: double>",
        "token_count": "list<element: int32>",
        "finished_at": "double",
        "input_tokens": "int64",
        "output_tokens": "int64",
        "finish_reason": "string",
        "status": "string",
        "error_kind": "string",
        "session_id": "string",
        "turn": "int64",
    }
    assert {name: str(schema.field(name).type) for name in schema.names[: len(expected)]} == expected
    assert pq.read_table(path)["sent_at"].to_pylist() == [0.001, None]
    assert read_parquet(path).to_list() == [answered(0), RequestRecord("dropped", 0, 2.0, "dropped")]


def test_a_table_of_an_earlier_version_is_read() -> None:
    """What it did not note is not known; all it held is there."""
    whole = Records.from_list([answered(0), answered(1)]).to_table()
    older = whole.drop_columns(["count_told", "first_share", "notes"])
    assert Records.from_table(older).to_list() == [answered(0), answered(1)]


def test_notes_are_found_by_their_word() -> None:
    """Whatever stands behind its colon, and beside which others."""
    notes = [None, "invisible", "not_streamed:application/json,cut_after_end", "uncut_after_end"]
    some = Records.from_list([replace(answered(number), notes=each) for number, each in enumerate(notes)])
    assert some.noted("not_streamed").tolist() == [False, False, True, False]
    assert some.noted("cut_after_end").tolist() == [False, False, True, False]
    assert some.noted("invisible").tolist() == [False, True, False, False]
    assert some.noted("nothing").tolist() == [False] * 4


def test_a_file_that_is_no_table_is_refused_with_its_name(tmp_path: Path) -> None:
    """A damaged records.parquet is an error that names the file, not a traceback."""
    (tmp_path / "records.parquet").write_bytes(b"not a table")
    with pytest.raises(UsageError, match=r"records\.parquet"):
        read_parquet(tmp_path / "records.parquet")


@settings(max_examples=50)
@given(st.lists(records(), min_size=1, max_size=8), st.randoms())
def test_selecting_rows_keeps_each_with_its_own_events(some: list[RequestRecord], random) -> None:
    """Rows taken in any order, some more than once, carry the events they had."""
    import numpy as np

    rows = [random.randrange(len(some)) for _ in range(5)]
    chosen = Records.from_list(some).select(np.array(rows))
    assert chosen.to_list() == [some[row] for row in rows]


@pytest.mark.parametrize(
    ("counts", "first", "expected"),
    [
        ([1, 1, 1], 0, ([0.0, 1.0, 2.0], [1, 1, 1])),  # text from the start
        ([1, 1, 1], 1, ([1.0, 2.0], [2, 1])),  # an empty first event: its token moves on
        ([1], None, ([], [])),  # an end-of-sequence token alone is no first token
    ],
)
def test_the_first_entry_is_the_first_event_with_text(counts: list[int], first: int | None, expected: object) -> None:
    """Tokens of empty events before the first text count, but give it no earlier moment."""
    assert from_first_text([float(each) for each in range(len(counts))], counts, first) == expected
