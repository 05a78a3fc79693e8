"""`harness ab` on a real Docker Engine: two variants in turn, and nothing of either stays, however it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.measure.run_folder import RunFolder, read_manifest
from tests.docker.conftest import Harness, environment, ours
from tests.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("catalogue")]
AB = ("ab", "one", "--runtime", "compose", "--emulate", "--users", "2", "--output-tokens", "8", "--repeat", "2")


def test_two_variants_take_turns_in_containers(harness: Harness, tmp_path: Path) -> None:
    """Each run is of a container with the settings of its side; what both were is gone at the end."""
    done = harness(
        *AB, "--b", "limits.max_concurrent_requests=16", "--duration", "2s", "--output", "ab", "--json", check=False
    )
    assert done.returncode in (0, 1), done.stderr
    assert json.loads(done.stdout)["sentence"].startswith("B (one limits.max_concurrent_requests=16) ")
    made = {
        f"{letter}{number}": read_manifest(RunFolder.open(tmp_path / "ab" / letter / f"repeat-{number:02}"))
        for letter in "ab"
        for number in range(2)
    }
    assert sorted(made, key=lambda name: made[name].start) == ["a0", "b0", "b1", "a1"]
    assert {each.runtime for each in made.values()} == {"compose"}
    limits = [made[name].flags.get("MAX_CONCURRENT_REQUESTS") for name in ("a0", "a1", "b0", "b1")]
    assert limits[2:] == ["16", "16"] != limits[:2]
    assert ours() == []


def test_ctrl_c_leaves_the_runs_that_were_made_and_no_container(tmp_path: Path) -> None:
    """In the middle of side B."""
    command = [sys.executable, "-m", "harness", *AB, "--b", "dtype=float16", "--duration", "60s", "--requests", "4",
               "--output", "ab"]  # fmt: skip
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as running:
        until(lambda: (tmp_path / "ab" / "b" / "repeat-00" / "manifest.json").exists(), 120)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=120)
    assert running.returncode == 130
    assert said.splitlines()[-1].endswith("ab: interrupted. No run of each side ended.")
    assert (tmp_path / "ab" / "a" / "repeat-00" / "records.parquet").exists()
    assert ours() == []


def test_a_side_that_does_not_start_is_named_and_leaves_nothing(harness: Harness, tmp_path: Path) -> None:
    """Side A ran; B's model does not fit its card."""
    done = harness(*AB[:1], "one", "big", *AB[2:], "--duration", "2s", "--output", "ab", check=False)
    assert done.returncode == 4
    assert "ab-b" in done.stderr.splitlines()[-1]
    assert (tmp_path / "ab" / "a" / "repeat-00" / "records.parquet").exists()
    assert ours() == []
