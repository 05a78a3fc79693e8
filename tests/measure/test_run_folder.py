"""A run's folder and its manifest."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.measure.client import ClientFacts, ClientSample, Floor, read_client, write_client
from harness.measure.run_folder import (
    Level,
    Manifest,
    RunFolder,
    read_manifest,
    run_name,
    write_atomically,
    write_manifest,
)
from tests.waiting import until


def manifest() -> Manifest:
    return Manifest(
        run_id="run",
        harness_version="1",
        command=("harness", "bench", "demo"),
        model="demo",
        engine="tgi 3.3.7",
        emulated=True,
        start="2025-01-31T12:00:00.000000Z",
        clock={"monotonic": 12.5, "utc": "2025-01-31T12:00:00.000000Z"},
        workload={"name": "chat"},
        levels=(Level(0, users=1, duration=10.0), Level(1, users=4, duration=10.0)),
        api="tgi",
        slo={"ttft_p95": 1.0},
    )


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Writing and reading lose nothing."""
    folder = RunFolder(tmp_path)
    write_manifest(folder, manifest())
    assert read_manifest(folder) == manifest()
    assert json.loads(folder.manifest.read_text())["schema"] == 1


def test_keys_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    """A manifest with more in it than this version knows can still be read."""
    folder = RunFolder(tmp_path)
    write_manifest(folder, manifest())
    document = json.loads(folder.manifest.read_text())
    document["later"] = 1
    document["levels"][0]["later"] = 1
    folder.manifest.write_text(json.dumps(document))
    assert read_manifest(folder) == manifest()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"schema": 99}', '{"schema": 1}'])
def test_a_broken_manifest_is_refused_with_its_name(tmp_path: Path, content: str) -> None:
    """No manifest, half a manifest or another schema is an error that names the file."""
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UsageError, match=r"manifest\.json"):
        read_manifest(RunFolder.open(tmp_path))


def test_a_run_without_an_end_is_not_complete() -> None:
    """A manifest tells a finished run from a killed or interrupted one."""
    from dataclasses import replace

    assert not manifest().complete
    assert replace(manifest(), end="2025-01-31T12:01:00.000000Z").complete
    assert not replace(manifest(), end="2025-01-31T12:01:00.000000Z", interrupted=True).complete


def test_a_level_is_replaced_by_its_number() -> None:
    """What became of a level is filled in without touching the others."""
    changed = manifest().with_level(Level(1, users=4, duration=10.0, ended_by="duration"))
    assert [level.ended_by for level in changed.levels] == [None, "duration"]
    assert [level.level for level in changed.with_level(Level(7, users=2)).levels] == [0, 1, 7]


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    """A new run never mixes with what is there."""
    RunFolder.create(tmp_path / "new")
    (tmp_path / "new" / "file").touch()
    with pytest.raises(UsageError, match="not empty"):
        RunFolder.create(tmp_path / "new")
    with pytest.raises(UsageError, match="not a folder"):
        RunFolder.create(tmp_path / "new" / "file")
    with pytest.raises(UsageError, match="cannot be made"):
        RunFolder.create(tmp_path / "new" / "file" / "below")
    with pytest.raises(UsageError, match="cannot be made"):
        RunFolder.create(tmp_path / ("long" * 100))


_TAKE = """
import sys
from pathlib import Path
from harness.measure.run_folder import RunFolder, write_manifest
from tests.measure.test_run_folder import manifest
sys.stdin.readline()
folder = RunFolder.create(Path(sys.argv[1])) if sys.argv[2] == "exact" else RunFolder.create_beside(Path(sys.argv[1]))
print(folder.path, flush=True)
sys.stdin.readline()
write_manifest(folder, manifest())
"""


def test_of_runs_that_begin_in_one_folder_at_once_one_is_refused(tmp_path: Path) -> None:
    """Whether the folder was there before or not; after the first one died it may be taken again."""
    for path in (tmp_path / "new", tmp_path / "empty"):
        if path.name == "empty":
            path.mkdir()
        outcomes = begin_together(path, "exact")
        assert sum(bool(told) for told, _ in outcomes) == 1, outcomes
        assert sum("begins in it" in said or "not empty" in said for _, said in outcomes) == 3, outcomes
        assert read_manifest(RunFolder.open(path)) == manifest()
    assert RunFolder.create(tmp_path / "later").path.is_dir()


def test_runs_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    """Where nobody named one."""
    outcomes = begin_together(tmp_path / "reports" / "run", "beside")
    assert len({told for told, _ in outcomes}) == 4
    assert all(told for told, _ in outcomes)


def begin_together(path: Path, how: str) -> list[tuple[str, str]]:
    """What each of four processes said on stdout and stderr."""
    command = [sys.executable, "-c", _TAKE, str(path), how]
    runs = [
        subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True, cwd=Path(__file__).parents[2])
        for _ in range(4)
    ]
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    until(lambda: sum(run.poll() is None for run in runs) == (1 if how == "exact" else 4))
    return [run.communicate("\n", timeout=60) for run in runs]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    """What was not written by a run is not taken for one."""
    with pytest.raises(UsageError, match="no such run folder"):
        RunFolder.open(tmp_path / "missing")
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        RunFolder.open(tmp_path)


def test_a_run_is_named_after_moment_model_gpu_and_workload() -> None:
    """The folder's name is safe and says what is inside."""
    start = datetime(2025, 1, 31, 12, 0, 5, tzinfo=timezone.utc)
    assert run_name(start, "Qwen/Qwen2.5 7B", "L4", "chat") == "20250131T120005Z-Qwen-Qwen2.5-7B-L4-chat"
    assert run_name(start, "demo", None, "chat") == "20250131T120005Z-demo-chat"


def test_client_facts_come_back_as_they_were_written(tmp_path: Path) -> None:
    """What the load processes said of themselves survives the file."""
    folder = RunFolder(tmp_path)
    assert read_client(folder) is None
    facts = ClientFacts((ClientSample(1.0, "0", 0.5, 0.002),), ("1",), Floor(0.001, 0.0005, 64))
    write_client(folder, facts)
    assert read_client(folder) == facts


def test_a_full_disk_leaves_the_old_file_and_no_half_of_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the file that was to be written."""
    path = tmp_path / "summary.json"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as failure:
        write_atomically(path, b"new")
    assert failure.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
