"""The load processes against an address that takes no connection."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from harness.load import runner
from harness.load.plan import LoadPlan
from harness.measure.journal import read_journal
from harness.measure.run_folder import Level
from harness.workload.workload import drawn


def _plan(folder: Path, port: int, level: Level, timeout: float) -> LoadPlan:
    return LoadPlan(
        url=f"http://127.0.0.1:{port}",
        api="tgi",
        model_name="tgi",
        stream=True,
        timeout=timeout,
        levels=(level,),
        workload=drawn("chat", "20", "5", seed=1).as_dict(),
        seed=1,
        folder=str(folder),
        clock_monotonic=time.monotonic(),
    )


@pytest.mark.parametrize(
    "level", [Level(0, users=2, requests=4), Level(0, rate=20.0, arrival="constant", requests=4)], ids=["users", "rate"]
)
def test_a_refused_request_counts_as_sent(tmp_path: Path, level: Level) -> None:
    """Only a dropped request has no moment of sending: sent = completed + failed + in flight."""
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        runner.run(_plan(tmp_path, taken.getsockname()[1], level, timeout=5.0))
    records = list(read_journal(tmp_path).records)
    assert [record.error_kind for record in records] == ["refused"] * 4
    for record in records:
        assert record.sent_at is not None
        assert record.finished_at is not None
        assert record.scheduled_at <= record.sent_at <= record.finished_at
        assert level.rate or record.sent_at == record.scheduled_at


def test_a_request_that_no_connection_took_in_time_counts_as_sent(tmp_path: Path) -> None:
    """A full backlog lets connections wait: such a request times out like any other."""
    with socket.socket() as full, socket.socket() as first:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first.connect(full.getsockname())
        runner.run(_plan(tmp_path, full.getsockname()[1], Level(0, users=2, requests=3), timeout=1.0))
    records = list(read_journal(tmp_path).records)
    assert {(record.status, record.error_kind) for record in records} == {("failed", "timeout")}
    assert all(record.sent_at is not None for record in records)
