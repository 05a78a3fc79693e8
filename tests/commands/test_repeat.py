"""`bench --repeat N --aa`: one folder, other seeds each, and a spread by which single runs are judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.commands.compare import compare
from harness.commands.repeat import repeat
from harness.drive import aa
from harness.drive.bench_plan import AskedUsers, BenchPlan, Loads
from harness.errors import UsageError
from harness.measure.run import read_run
from harness.measure.run_folder import RunFolder, read_manifest
from harness.serve.target import Target
from harness.stats.effect import Spread
from harness.stats.spread import FIGURES
from harness.workload.lengths import Fixed
from tests.commands.test_compare import folder


def test_repeats_are_runs_of_one_folder_with_seeds_of_their_own(tmp_path: Path) -> None:
    """Two short runs of the embedded engine; they ask the same question, so that `compare` takes them as one side."""
    loads = Loads(users=(2,), duration=2.0, warmup=0.0)
    asked = AskedUsers(output_tokens=Fixed(8))
    plan = BenchPlan(asked, loads, report=False, seed=5, output=tmp_path / "side")
    done = repeat(Target(model="qwen2.5-0.5b", runtime="embedded"), plan, 2, progress=lambda line: None)
    assert sorted(each.name for each in (tmp_path / "side").iterdir()) == ["repeat-00", "repeat-01"]
    made = [RunFolder.open(tmp_path / "side" / f"repeat-{number:02}") for number in range(2)]
    assert [read_manifest(each).seeds["workload"] for each in made] == [5, 6]
    found = compare([tmp_path / "side" / "repeat-00"], [tmp_path / "side" / "repeat-01"]).comparison
    assert not [problem for problem in found.problems if "differs" in problem]
    assert {figure for _, figure in done.spreads} >= {"ttft_p50", "itl_p50"}
    assert done.as_json()["repeats"][1]["path"] == str(made[1].path)


def test_a_stored_spread_judges_single_runs_of_the_same_thing(tmp_path: Path) -> None:
    """Of another engine version it says nothing."""
    base, new = folder(tmp_path / "base"), folder(tmp_path / "new", seed=1)
    assert compare([base], [new]).exit_code == 1
    aa.store(read_run(RunFolder.open(base)), {("8 users", figure): Spread(0.01, 9) for figure in FIGURES})
    assert compare([base], [new]).exit_code == 0
    other = read_run(RunFolder.open(base))
    assert aa.find(replace(other, manifest=replace(other.manifest, engine="tgi 3.3.6"))) == {}


def test_two_repeats_are_too_few_to_store(tmp_path: Path) -> None:
    """A spread of one degree of freedom says nothing; refused before anything starts."""
    with pytest.raises(UsageError, match="--repeat 5"):
        repeat(Target(model="qwen2.5-0.5b"), BenchPlan(output=tmp_path / "a"), 2, lambda line: None, keep=True)
    assert not (tmp_path / "a").exists()
