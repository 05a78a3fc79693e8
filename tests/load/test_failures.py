"""A service whose answers fail as soon as they begin."""

from __future__ import annotations

from pathlib import Path

from harness.load import runner
from harness.measure.journal import read_journal
from harness.measure.run_folder import Level
from tests.load.test_truth import engine, plan_for


def test_failures_within_a_stream_are_not_repeated_at_once(tmp_path: Path) -> None:
    """Users back off, more and more: it was thousands of requests a second."""
    faults = ["--fault", "sse", "--fault-share", "1", "--ttft-ms", "0", "--itl-ms", "0"]
    with engine(tmp_path / "log", *faults) as url:
        runner.run(plan_for(url, tmp_path), [Level(0, users=2, duration=2.0)])
    records = list(read_journal(tmp_path).records)
    assert {record.status for record in records} <= {"failed", "in_flight"}
    assert 4 <= len(records) < 60
