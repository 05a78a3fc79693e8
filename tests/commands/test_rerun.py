"""`harness rerun`: the same questions again by the manifest alone, and a refusal where something is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.commands.bench import bench
from harness.commands.rerun import differences, rerun
from harness.drive.bench_options import BenchOptions, plan_of
from harness.errors import UsageError
from harness.measure.run_folder import Manifest, RunFolder, read_manifest
from harness.serve.target import Target, target_from
from harness.workload.named import find
from tests.workload.traces.samples import AZURE


def quiet(_: str) -> None:
    """Says nothing."""


@contextmanager
def emulator(*options: str) -> Iterator[str]:
    """The address of a service of the emulator's."""
    command = [sys.executable, "-m", "harness.emulator", "--model-id", "Qwen/Qwen2.5-0.5B-Instruct", "--port", "0"]
    environment = {**os.environ, "LOG_LEVEL": "error"}
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stderr is not None
        try:
            yield next(line for line in process.stderr if b"listening on" in line).split()[-1].decode()
        finally:
            process.terminate()
            process.stderr.read()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with emulator() as address:
        yield address


@pytest.fixture(scope="module")
def first(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run by --url."""
    output = tmp_path_factory.mktemp("rerun") / "first"
    options = BenchOptions(users="2", requests=12, output_tokens="uniform:3:9", seed=7, output=output, report=False)
    bench(Target(url=url), plan_of(options), quiet)
    return output


def asked(folder: Path) -> list[tuple[int, int]]:
    """Prompt and answer tokens of each request, by when it was due."""
    rows = pq.read_table(folder / "records.parquet").to_pylist()
    return [(row["input_tokens"], row["output_tokens"]) for row in sorted(rows, key=lambda row: row["scheduled_at"])]


def manifest(folder: Path) -> Manifest:
    return read_manifest(RunFolder.open(folder))


def test_the_same_questions_are_asked_again(first: Path, tmp_path: Path) -> None:
    """With the same lengths in the same order, as counted by the server; the folder or the file names the run."""
    again = rerun(first / "manifest.json", quiet, output=tmp_path / "again", report=False)
    assert sorted(asked(first)) == sorted(asked(tmp_path / "again"))
    assert len(set(asked(first))) > 6  # questions that differ, so that equal ones say something
    assert not [each for each in again.differences if each.key not in ("harness_version", "host")]
    assert again.as_json()["rerun_of"] == str(first)
    assert manifest(tmp_path / "again").plan == manifest(first).plan


def test_a_service_with_other_limits_is_asked_nothing(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What differs is named before the first request, and no folder is left; allowed, it is run and said."""
    monkeypatch.chdir(tmp_path)
    with emulator("--max-total-tokens", "2000", "--max-input-tokens", "1500") as other:
        with pytest.raises(UsageError, match=r"max_total_tokens was \d+ and is 2000.*--allow \S*limits"):
            rerun(first, quiet, url=other)
        assert not list(tmp_path.rglob("manifest.json"))
        assert not list((tmp_path / "reports").iterdir())
        allowed = rerun(first, quiet, url=other, allow="limits,workload", output=tmp_path / "again", report=False)
    assert "max_total_tokens" in {each.name for each in allowed.differences}
    assert "max_total_tokens was" in allowed.as_text()


def test_a_trace_that_was_changed_is_named_before_anything_is_looked_at(url: str, tmp_path: Path) -> None:
    """By its rows, wherever the command is given; rows beyond the window may change."""
    trace = tmp_path / "trace.csv"
    trace.write_text(AZURE)
    options = BenchOptions(trace=str(trace), requests=2, output=tmp_path / "first", report=False)
    bench(Target(url=url), plan_of(options), quiet)
    lines = AZURE.splitlines()
    trace.write_text("\n".join([*lines[:3], lines[3].replace(",", ",1", 1), *lines[4:]]) + "\n")
    rerun(tmp_path / "first", quiet, output=tmp_path / "again", report=False)
    trace.write_text("\n".join([lines[0], lines[1] + "1", *lines[2:]]) + "\n")
    with pytest.raises(UsageError, match=r"sha256 of the rows was \w+ and is \w+.*--allow dataset"):
        rerun(tmp_path / "first", quiet, url="http://127.0.0.1:9")
    trace.unlink()
    with pytest.raises(UsageError, match=r"trace\.csv"):
        rerun(tmp_path / "first", quiet)


def test_a_locustfile_that_was_changed_is_named(url: str, tmp_path: Path) -> None:
    """Though it asks the same lengths: its code says what is asked."""
    file = tmp_path / "own.py"
    file.write_text(find("questions").read_text())
    options = BenchOptions(
        workload=str(file), users="1", requests=2, output_tokens="4", output=tmp_path / "first", report=False
    )
    bench(Target(url=url), plan_of(options), quiet)
    file.write_text(file.read_text() + "\n# another\n")
    with pytest.raises(UsageError, match=r"own\.py was \w+ and is \w+.*--allow locustfile"):
        rerun(tmp_path / "first", quiet)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"plan": None}, "tells no options"),
        ({"target": {"model": "x", "changes": ["env.HF_TOKEN=[REDACTED]"]}}, "a secret of the run is not kept"),
        ({"plan": {"users": "none"}}, "--users"),
        ({"target": {"modle": "x"}}, "modle|tells no|model"),
    ],
)
def test_a_manifest_that_does_not_say_enough_is_refused(
    first: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    document = {**json.loads((first / "manifest.json").read_text()), **changes}
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match=said):
        rerun(tmp_path, quiet)


def test_levels_that_a_search_chose_are_no_run_to_make_again(first: Path, tmp_path: Path) -> None:
    (tmp_path / "capacity.json").write_text("{}")
    (tmp_path / "history-100-00").symlink_to(first)
    with pytest.raises(UsageError, match="capacity --resume"):
        rerun(tmp_path / "history-100-00", quiet)


def test_what_was_not_known_before_is_no_difference(first: Path) -> None:
    """An image without a digest may have one now; one that had a digest must have the same."""
    before = replace(manifest(first), image_digest=None)
    pinned = replace(before, image_digest="sha256:1")
    assert not differences(before, pinned)
    assert [each.key for each in differences(pinned, before)] == ["image_digest"]


def test_a_target_is_kept_without_its_secrets() -> None:
    """And read again as it was said."""
    target = Target(model="a", runtime="compose", changes=("env.MY_TOKEN=abc", "limits.x=1"), called="ab-b")
    kept = target.as_dict()
    assert kept["changes"] == ["env.MY_TOKEN=[REDACTED]", "limits.x=1"]
    plain = replace(target, changes=("limits.x=1",))
    assert target_from(plain.as_dict(), "here") == plain
