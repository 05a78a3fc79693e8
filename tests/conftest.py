"""What all tests share: a state folder of their own, and the rule for tests that need Docker or a browser."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

from tests.llama import running

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI") == "true"


# A busy machine is no finding: what takes long in total is ended by pytest-timeout.
settings.register_profile("harness", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("harness")


def pytest_configure(config: pytest.Config) -> None:
    """A shell starts what it runs in the background with SIGINT ignored, nohup with SIGHUP ignored; processes whose end
    by a signal is tested would inherit that.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where pytest-xdist runs the tests side by side, a file stays in one process, since its fixtures start services
    that its tests share; and so do all that talk to the one Docker Engine.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        group = "docker" if item.get_closest_marker("docker") else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


@cache
def missing_docker() -> str | None:
    """Why there is no Docker Engine with Compose v2 here; None where there is one."""
    if shutil.which("docker") is None:
        return "no docker command"
    for command, reason in (
        (["docker", "info"], "the Docker Engine does not run"),
        (["docker", "compose", "version"], "Docker has no Compose v2"),
    ):
        if subprocess.run(command, capture_output=True, timeout=60).returncode != 0:
            return reason
    return None


@cache
def browser() -> str | None:
    """A Chromium of this machine."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A laptop without Docker skips what needs it and says why; in CI it is a failure."""
    if item.get_closest_marker("docker") and (reason := missing_docker()):
        _miss(f"needs Docker: {reason}", required=IN_CI)
    if item.get_closest_marker("browser") and browser() is None:
        _miss("needs a Chromium on PATH", required=False)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost with its key, in one file: to serve with, and to trust."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    key, own, both = (folder / name for name in ("key.pem", "own.pem", "both.pem"))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    subprocess.run([*command, "-keyout", key, "-out", own], check=True, capture_output=True)
    both.write_text(own.read_text() + key.read_text())
    return both


def _miss(reason: str, *, required: bool) -> None:
    if required:
        pytest.fail(f"{reason} (CI=true does not skip this)")
    pytest.skip(reason)


@pytest.fixture(autouse=True, scope="session")
def state_of_all_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What fixtures of a module start is not mixed up with services of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("shared-state")))
        yield


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test remembers its services and calibrations in a folder of its own, and sees no engine variables."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    for name in ("HF_TOKEN", "MODEL_ID", "PORT", "HARNESS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(scope="session")
def llama_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that is llama.cpp's own llama-server."""
    if reason := running.missing():
        _miss(f"needs llama.cpp's server: {reason}", required=IN_CI)
    return running.write_program(tmp_path_factory.mktemp("llama-server") / "llama-server")


@pytest.fixture(scope="session")
def llama_model(tmp_path_factory: pytest.TempPathFactory, llama_server: Path) -> Path:
    """A GGUF file of a tiny model; see tests/llama/model.py."""
    from tests.llama import model  # needs a package that is not everywhere

    return model.write(tmp_path_factory.mktemp("llama-model") / "tiny.gguf")


@pytest.fixture
def no_process_left(own_state: Path) -> Iterator[None]:
    """Nothing that was started in the test is alive after it, in whatever session it lives."""
    os.environ["HARNESS_TEST_STATE"] = str(own_state)
    yield
    del os.environ["HARNESS_TEST_STATE"]
    assert [each for each in psutil.process_iter() if _came_from(each, str(own_state))] == []


def _came_from(process: psutil.Process, state: str) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.environ().get("HARNESS_TEST_STATE") == state
    except (psutil.Error, OSError):
        return False
