"""What a table of records may hold: the mistakes of another program, or of a cut file, are said in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.errors import UsageError
from harness.measure.records import Records, read_parquet, write_parquet
from tests.runs import dropped, failed, ticking

Change = Callable[[pa.Table], pa.Table]


def changed(name: str, row: int, value: object) -> Change:
    """One value of a column."""

    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[row] = value
        place = table.schema.get_field_index(name)
        return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))

    return change


def renamed(name: str) -> Change:
    return lambda table: table.rename_columns([f"{each}_x" if each == name else each for each in table.column_names])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (renamed("token_at"), "holds no column token_at"),
        (renamed("finished_at"), "holds no column finished_at"),
        (renamed("sent_at"), "holds no column sent_at"),
        (renamed("output_tokens"), "holds no column output_tokens"),
        (renamed("error_kind"), "holds no column error_kind"),
        (lambda table: pa.concat_tables([table, table]), "request_id: the same for several requests"),
        (changed("finished_at", 0, None), "sent_at or finished_at: no number, though the request is completed"),
        (changed("sent_at", 0, float("nan")), "sent_at or finished_at: no number, though the request is completed"),
        (changed("token_at", 0, [float("nan")] * 11), "token_at: no number"),
        (changed("token_at", 0, [float("inf")] * 11), "token_at: a moment beyond all bounds"),
        (changed("scheduled_at", 0, float("-inf")), "scheduled_at: a moment beyond all bounds"),
        (changed("status", 0, "fine"), "expected one of completed, failed, dropped, in_flight, found 'fine'"),
    ],
)
def test_what_no_run_can_have_recorded_is_refused(tmp_path: Path, change: Change, words: str) -> None:
    """Exit 2 with the file and what is wrong; figures made of it would be another thing's, or none."""
    path = tmp_path / "records.parquet"
    write_parquet(Records.from_list([ticking(0, 0.0), failed(1, 0.5), dropped(2, 0.7)]), path)
    assert len(read_parquet(path)) == 3
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(UsageError, match=words) as raised:
        read_parquet(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
