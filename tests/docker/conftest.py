"""What the tests on a real Docker Engine share: the command line as a user types it, and that nothing of it stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.stack.state import project_name

Harness = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def no_container_left(own_state: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """No container and no network of this test's projects is left; the volume with the models may stay."""
    yield
    if request.node.get_closest_marker("docker") is None:
        return
    left = ours()
    for kind, name in left:
        subprocess.run(["docker", kind, "rm", *(["-f"] if kind == "container" else []), name], check=False)
    assert left == []


def ours() -> list[tuple[str, str]]:
    """Containers and networks of Compose projects that this test's state folder names."""
    found: list[tuple[str, str]] = []
    for kind in ("container", "network"):
        command = ["docker", kind, "ls", "--filter", f"label=com.docker.compose.project={project_name()}", "-q"]
        listed = subprocess.run([*command, *(["-a"] if kind == "container" else [])], capture_output=True, text=True)
        found += [(kind, name) for name in listed.stdout.split()]
    return found


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    """Run one command to its end, in a folder with a catalogue of its own."""

    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240)
        assert not check or done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """Two small models, one that does not fit, and two whose image is not there."""
    path = tmp_path / "models.yaml"
    path.write_text(
        """
models:
  one: {repo: Qwen/Qwen2.5-0.5B-Instruct, gpu: L4, limits: {max_input_tokens: 1000, max_total_tokens: 1200}}
  two: {repo: Qwen/Qwen2.5-0.5B-Instruct, gpu: T4, env: {NOTE: "$HOME ${PATH} `x` \\"y\\" 'z' #"}}
  big: {repo: Qwen/Qwen2.5-7B-Instruct, gpu: T4, limits: {max_batch_prefill_tokens: 30000}}
  away: {repo: Qwen/Qwen2.5-0.5B-Instruct, engine: {image: "127.0.0.1:1/nothing:1", variant: intel-cpu}}
""",
        encoding="utf-8",
    )
    return path
