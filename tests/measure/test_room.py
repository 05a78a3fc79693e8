"""A disk without room, by a device that is always full."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from harness.measure.records import Records, write_parquet
from tests.runs import closed_level, closed_loop


def test_a_disk_without_room_is_named_by_the_file(tmp_path: Path) -> None:
    """What fails while it is written does not tell its name; nothing is left beside it."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    (tmp_path / ".records.parquet.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as failure:
        write_parquet(Records.from_list(closed_loop(closed_level(0, 2, 0.0, 8.0))), tmp_path / "records.parquet")
    assert (failure.value.errno, failure.value.filename) == (errno.ENOSPC, str(tmp_path / "records.parquet"))
    assert list(tmp_path.iterdir()) == []
