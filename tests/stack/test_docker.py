"""The parts of the Docker door that need no Docker: what a pull says, and how its failures are named."""

from __future__ import annotations

import contextlib
import io
import tarfile
import threading
from dataclasses import replace
from typing import Any

import pytest

from harness.errors import MissingError, UsageError
from harness.stack import compose_service, compose_stack, docker, docker_images
from harness.stack.state import ServiceRecord


def test_pull_is_told_in_bytes() -> None:
    """Layers that are complete count whole; before any size is known it says only that it pulls; unpacking is another
    thing, which begins when no layer is waited for any more.
    """
    events: list[dict[str, Any]] = [
        {"status": "Pulling fs layer", "id": "a"},
        {"status": "Downloading", "id": "a", "progressDetail": {"current": 2**20, "total": 4 * 2**20}},
        {"status": "Downloading", "id": "b", "progressDetail": {"current": 2**20, "total": 2 * 2**20}},
        {"status": "Download complete", "id": "b"},
        {"status": "Extracting", "id": "b", "progressDetail": {"current": 1, "total": 2}},
    ]
    pulled = docker_images._PullProgress(beat=0)
    told = [pulled.after(event) or "" for event in events]
    assert told[0] == "pulling the image"
    assert told[-1].startswith("pulling the image: 3.00 MiB of 6.00 MiB, ")
    assert told[-1].endswith("/s")
    pulled.after({"status": "Download complete", "id": "a"})
    done = pulled.after({"status": "Extracting", "id": "a", "progressDetail": {"current": 2**20, "total": 4 * 2**20}})
    assert done == "unpacking the image: 1.00 MiB of 6.00 MiB"


def test_pull_is_told_now_and_then() -> None:
    """Docker reports ten times a second for minutes; a change of what is done is told at once."""
    pulled = docker_images._PullProgress(beat=1000)
    part = {"status": "Downloading", "id": "a", "progressDetail": {"current": 1, "total": 9}}
    assert [pulled.after(part) is None for _ in range(3)] == [False, True, True]
    assert pulled.after({"status": "Download complete", "id": "a"}) == "unpacking the image: 0 B of 9 B"


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("manifest for x:1 not found: manifest unknown", UsageError),
        ("pull access denied, repository does not exist or may require 'docker login'", UsageError),
        ("write /var/lib/docker/tmp: no space left on device", MissingError),
        ("Get https://ghcr.io/v2/: dial tcp: lookup ghcr.io: no such host", MissingError),
    ],
)
def test_failed_pull_is_named(reason: str, error: type[Exception]) -> None:
    """A wrong name is a mistake of the entry (2), the rest is the machine's (3)."""
    assert isinstance(docker_images._cannot_pull("x:1", reason), error)


def test_no_docker_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named with what to install, and what works without."""
    docker.engine.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingError, match="--runtime embedded"):
        docker.engine()


def test_engine_gets_the_time_that_its_entry_gives() -> None:
    """A longer drain than TGI's own is waited for, but not of an engine that has served nobody yet."""
    plain = ServiceRecord("m", "compose", "http://127.0.0.1:1")
    longer = replace(plain, environment={"GRACEFUL_TERMINATION_TIMEOUT": "300"})
    assert compose_service.grace_of(100, longer) == 310
    assert compose_service.grace_of(15, longer) == 15
    assert compose_service.grace_of(100, plain) == 100


def test_age_of_an_image() -> None:
    """As Docker writes moments; what is none is young, so that nothing is removed by mistake."""
    assert docker_images._age("2020-01-01T00:00:00.123456789Z") > 86400
    assert docker_images._age("") == 0


@pytest.mark.docker
def test_images_that_a_rebuild_replaced_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older ones of the same name, but none that is fresh, and none of another name."""
    docker.engine.cache_clear()
    label, mine = {"harness.image": "test-removal"}, "harness-test-removal"
    names = [f"{mine}:1", f"{mine}:2", f"{mine}-else:1"]
    try:
        for number, name in enumerate(names):
            docker_images.build(_context(f"FROM scratch\nLABEL number={number}\n"), "Dockerfile", name, label)
        docker_images.remove_older_images(f"{mine}:2", "harness.image=test-removal")
        assert all(docker_images.image_exists(name) for name in names)
        monkeypatch.setattr(docker_images, "_FRESH", -1.0)
        docker_images.remove_older_images(f"{mine}:2", "harness.image=test-removal")
        assert [docker_images.image_exists(name) for name in names] == [False, True, True]
    finally:
        for name in names:
            with contextlib.suppress(*docker.GONE):
                docker.engine().images.remove(name)


def _context(dockerfile: str) -> bytes:
    """A build context that holds nothing else."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(dockerfile)
        archive.addfile(entry, io.BytesIO(dockerfile.encode()))
    return buffer.getvalue()


def test_cancelled_bring_up_makes_no_container() -> None:
    """Ctrl-C during a pull: whatever the pull does afterwards, no container follows."""
    entered, leave = threading.Event(), threading.Event()

    def prepare(say: object) -> None:
        entered.set()
        leave.wait(10)

    from harness.stack.plan import StackPlan

    bring_up = compose_service.BringUp(compose_stack.Stack("harness-test"), StackPlan("harness-test", ()), prepare)
    bring_up.start()
    entered.wait(10)
    bring_up.cancel()
    leave.set()
    bring_up._thread.join(10)
    assert bring_up.word == "starting"
    assert bring_up.complaints == []
