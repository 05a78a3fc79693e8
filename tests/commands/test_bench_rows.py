"""What a file says is asked: which of its rows when, from the options to the records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness.drive.bench_options import BenchOptions, plan_of
from harness.drive.bench_plan import BenchPlan
from harness.drive.plan_workload import read_rows
from harness.errors import UsageError
from tests.workload.traces.samples import AZURE, BAILIAN, SHAREGPT

MODEL = "qwen2.5-0.5b"
COMMIT = "c" * 40


def quiet(_: str) -> None:
    """Says nothing."""


def write(folder: Path, text: str, name: str = "trace") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_rows_with_moments_are_replayed_unless_users_or_a_rate_are_asked_for(tmp_path: Path) -> None:
    """Of a data set too; its texts, which have none, are asked by users."""
    timed, texts = write(tmp_path, AZURE), write(tmp_path, SHAREGPT, "texts")
    for options, replay in (
        (BenchOptions(trace=timed), True),
        (BenchOptions(dataset=timed), True),
        (BenchOptions(dataset=timed, users="4"), False),
        (BenchOptions(dataset=timed, rate="4"), False),
        (BenchOptions(dataset=texts), False),
    ):
        plan = plan_of(options)
        rows = read_rows(plan, quiet)
        assert rows is not None
        assert rows.timed is replay
        assert plan.loads.levels(replay=rows.timed)[0].replays is replay
    assert read_rows(BenchPlan(), quiet) is None


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"dataset_rows": 5}, "--dataset-rows changes nothing: .*replayed at its own moments"),
        ({"output_tokens": "5"}, "--output-tokens changes nothing"),
        ({"think_time": "1s"}, "--think-time changes nothing"),
        ({"trace_speed": 20.0, "users": "4"}, "--trace-speed changes nothing: .*not replayed"),
        ({"trace_loop": True, "users": "4"}, "--trace-loop changes nothing"),
        ({"trace_time_unit": "s"}, "--trace-time-unit changes nothing"),
        ({"trace_form": "azur"}, "unknown form of a trace: 'azur'. Did you mean azure"),
        ({"trace_form": "weka"}, "does not look like Weka agent traces"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(told: Mapping[str, Any], said: str, tmp_path: Path) -> None:
    """It is a misunderstanding."""
    with pytest.raises(UsageError, match=said):
        read_rows(plan_of(BenchOptions(dataset=write(tmp_path, AZURE), **told)), quiet)


def bench(folder: Path, *arguments: object, **environment: str) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """Records by the moment due, the manifest, and what the terminal said."""
    run = folder / "run"
    command = [sys.executable, "-m", "harness", "bench", MODEL, "--runtime", "embedded", "--no-report", "--output", run]
    done = subprocess.run(
        [*map(str, command), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(run / "records.parquet").to_pylist()
    manifest = json.loads((run / "manifest.json").read_text())
    return sorted(rows, key=lambda row: row["scheduled_at"]), manifest, done.stderr


def test_a_trace_is_sent_at_its_own_moments_twenty_times_as_fast(tmp_path: Path) -> None:
    """To a microsecond, by the file's own numbers; with its lengths, sessions and turns, from two processes."""
    path = write(tmp_path, BAILIAN)
    rows, manifest, said = bench(tmp_path, "--trace", path, "--trace-speed", 20, "--processes", 2)
    began = manifest["levels"][0]["started_at"]
    due = [row["scheduled_at"] - began for row in rows]
    assert due == pytest.approx([at / 20 for at in (0.0, 2.0, 4.0, 61.114)], abs=1e-6)
    assert [(row["session_id"], row["turn"]) for row in rows] == [("11", 1), ("12", 1), ("11", 2), ("11", 3)]
    assert [row["input_tokens"] for row in rows] == [40, 48, 64, 70]
    assert "Qwen-Bailian (JSON lines): seconds (by the form, Bailian), blocks of 16 tokens" in said
    assert manifest["dataset"]["time_unit"] == "seconds (by the form, Bailian)"
    assert manifest["dataset"]["rows_moved"] == 0
    assert manifest["lengths"]["input_tokens"]["max"] == 70


def test_a_data_set_comes_from_the_hubs_cache_offline(tmp_path: Path) -> None:
    """Its commit stands in the manifest; texts are asked by users, and their length is not claimed to be known."""
    folder = tmp_path / "cache" / "datasets--org--talk"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    (folder / "snapshots" / COMMIT / "talk.json").write_text(SHAREGPT)
    rows, manifest, said = bench(
        tmp_path, "--dataset", "org/talk", "--users", 2, "--requests", 4, "--output-tokens", "3",
        HF_HUB_CACHE=str(tmp_path / "cache"), HF_HUB_OFFLINE="1",
    )  # fmt: skip
    assert f"org/talk:talk.json from the cache, at {COMMIT[:12]}" in said
    assert "left out: 1 later turns of conversations" in said
    told = {key: manifest["dataset"][key] for key in ("name", "repo", "file", "revision")}
    assert told == {"name": "org/talk:talk.json", "repo": "org/talk", "file": "talk.json", "revision": COMMIT}
    assert len(manifest["dataset"]["sha256"]) == 64
    assert [row["output_tokens"] for row in rows] == [3, 3, 3, 3]
    assert {row["asked_input_tokens"] for row in rows} == {None}
    assert manifest["lengths"]["output_tokens"]["max"] == 3
