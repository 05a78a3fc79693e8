"""`harness report`: from a folder, also from one that was killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.commands.report import finish, report
from harness.errors import UsageError
from harness.measure.journal import JournalWriter
from harness.measure.run import keep_records, read_run
from harness.measure.run_folder import Level, RunFolder, write_manifest
from tests.runs import closed_level, closed_loop, manifest


def run_folder(path: Path, finished: bool = True) -> RunFolder:
    """What a load leaves: manifest and journals; a killed one has no end and a log that stops in an entry."""
    level = closed_level(0, 4, 0.0, 60.0) if finished else Level(0, users=4, duration=60.0, started_at=0.0)
    folder = RunFolder.create(path)
    write_manifest(folder, manifest([level], run_id=path.name, **({} if finished else {"end": None})))
    for process in range(2):
        writer = JournalWriter(folder.journal(process))
        for number, record in enumerate(closed_loop(closed_level(0, 4, 0.0, 60.0))):
            if number % 2 == process:
                assert record.sent_at is not None
                writer.begin(record.request_id, 0, record.scheduled_at, record.sent_at)
                writer.end(record)
        writer.note("sample", {"at": 30.0, "process": str(process), "cpu_fraction": 0.2, "loop_lag_max": 0.001})
        writer.close()
        if not finished:
            content = folder.journal(process).read_bytes()
            folder.journal(process).write_bytes(content[: len(content) // 2])
    return folder


def test_a_finished_load_becomes_records_and_a_summary(tmp_path: Path) -> None:
    """Journals go when the table is there; summary and reports lie in the folder."""
    folder = run_folder(tmp_path / "run")
    summary = finish(keep_records(folder))
    assert folder.journals() == []
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "client.json", "manifest.json", "records.parquet", "report.html", "report.md", "summary.json",
    ]  # fmt: skip
    assert json.loads(folder.summary.read_text())["complete"] is True
    assert summary.total.requests.sent == len(read_run(folder).records)


def test_reports_made_again_are_the_same(tmp_path: Path) -> None:
    """All figures come from the folder."""
    folder = run_folder(tmp_path / "run")
    finish(keep_records(folder))
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    report([folder.path])
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before


def test_a_killed_run_is_reported_from_its_journals_and_marked(tmp_path: Path) -> None:
    """What was recorded is there, and everything says incomplete."""
    folder = run_folder(tmp_path / "run", finished=False)
    paths = report([folder.path], formats=["json", "markdown", "html"])
    summary = json.loads(folder.summary.read_text())
    assert summary["complete"] is False
    assert summary["validity"]["verdict"] == "invalid"
    assert summary["requests"]["completed"] > 100
    assert summary["client"]["cpu_fraction_max"] is None  # the notes came last and were lost
    assert all("ncomplete" in path.read_text() for path in paths)
    assert len(folder.journals()) == 2


def test_formats_and_output_are_as_asked(tmp_path: Path) -> None:
    """Into a folder of its own, one per run where there are several."""
    folders = [run_folder(tmp_path / name).path for name in ("one", "two")]
    assert report(folders[:1], formats=["csv"], output=tmp_path / "out") == [tmp_path / "out" / "report.csv"]
    paths = report(folders, formats=["csv,markdown"], output=tmp_path / "both")
    assert [str(path.relative_to(tmp_path / "both")) for path in paths] == [
        "one/report.csv", "one/report.md", "two/report.csv", "two/report.md",
    ]  # fmt: skip


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(UsageError, match="no such run folder"):
        report([run_folder(tmp_path / "run").path, tmp_path / "missing"])
    assert not (tmp_path / "run" / "report.md").exists()
