"""`harness report`: from a folder, also from one that was killed."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli
from harness.commands.report import report
from harness.drive.reports import finish
from harness.errors import UsageError, cannot_write
from harness.measure.journal import JournalWriter
from harness.measure.run import keep_records, read_run
from harness.measure.run_folder import Level, RunFolder, write_atomically, write_manifest
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
    """Into a folder of its own, and one report where there are several."""
    folders = [run_folder(tmp_path / name).path for name in ("one", "two")]
    assert report(folders[:1], formats=["csv"], output=tmp_path / "out") == [tmp_path / "out" / "report.csv"]
    paths = report(folders, formats=["csv,markdown"], output=tmp_path / "both")
    assert [str(path.relative_to(tmp_path / "both")) for path in paths] == ["report.csv", "report.md"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(UsageError, match="no such run folder"):
        report([run_folder(tmp_path / "run").path, tmp_path / "missing"])
    assert not (tmp_path / "run" / "report.md").exists()


def test_a_disk_that_is_full_leaves_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The small file first: where the large page has no room, the figures are there, and the exit code is 3."""
    folder = run_folder(tmp_path / "run")
    keep_records(folder)
    real = write_atomically

    def small_disk(path: Path, content: bytes) -> None:
        if len(content) > 100_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, content)

    monkeypatch.setattr("harness.drive.reports.write_atomically", small_disk)
    assert cli.run(["report", str(folder.path), "--format", "html,markdown,json"]) == 3
    assert "report.html: no space left" in capsys.readouterr().err
    assert json.loads(folder.summary.read_text())["complete"] is True


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, 3), (errno.EROFS, 3), (errno.ENOENT, 2), (errno.EISDIR, 2)]
)
def test_why_a_file_cannot_be_written_decides_the_exit_code(number: int, code: int) -> None:
    """What the machine lacks is not what the user typed."""
    failure = cannot_write(OSError(number, os.strerror(number)), "x")
    assert (failure.exit_code, failure.where) == (code, "x")


def test_a_load_process_without_room_for_its_journal_says_so(tmp_path: Path) -> None:
    """With an exit code of its own, and no traceback."""
    script = (
        "from harness.load.worker import Worker\n"
        "worker = Worker.__new__(Worker)\n"
        "worker.session = None\n"
        "worker.fail(OSError, OSError(28, 'No space left on device'))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (3, "No space left on device\n")
