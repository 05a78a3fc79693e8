"""Containers: Compose's command line for up and down, the Docker SDK for looking.

Everything of ours carries labels (`harness.project`, `harness.model`), by which it is found again without any file of
ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache

import docker
import docker.errors
import docker.models.containers

from harness.engines import ENGINES
from harness.errors import MissingError
from harness.stack.document import LABEL

GONE = (docker.errors.NotFound, docker.errors.NullResource)
SDK_ERRORS = (docker.errors.DockerException, OSError)  # the SDK lets errors of `requests` through, which are OSErrors

INSTALL_DOCKER = "Install Docker Engine with Compose v2 (https://docs.docker.com/engine/install/)"
START_DOCKER = "Start it (`systemctl start docker`, or Docker Desktop), and see that you may use it (group `docker`)"
INSTALL_GPU_RUNTIME = (
    "Install the NVIDIA Container Toolkit (`apt-get install -y nvidia-container-toolkit && nvidia-ctk runtime configure"
    " --runtime=docker && systemctl restart docker`), or add --emulate to run the emulator in the same stack."
)


# ---- the engine


@cache
def engine() -> docker.DockerClient:
    """The Docker Engine that the `docker` command talks to. Raises MissingError when there is none, or it does not
    run.
    """
    if shutil.which("docker") is None:
        raise MissingError("no `docker` command", advice=f"{INSTALL_DOCKER}, or use --runtime embedded.")
    try:
        client = docker.DockerClient(base_url=_host(), version="auto", timeout=120, use_ssh_client=True)
        client.ping()
    except SDK_ERRORS as error:
        raise MissingError(
            f"the Docker Engine does not answer ({_short(error)})", advice=f"{START_DOCKER}, or use --runtime embedded."
        ) from error
    return client


def _host() -> str | None:
    """The address of the context in use; the SDK itself knows only DOCKER_HOST."""
    if os.environ.get("DOCKER_HOST"):
        return os.environ["DOCKER_HOST"]
    answer = docker_command(["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"])
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def _short(error: Exception) -> str:
    text = str(error)
    for known in ("Permission denied", "Connection refused", "No such file or directory", "timed out"):
        if known.lower() in text.lower():
            return known.lower()
    return text.splitlines()[0][:120] if text else type(error).__name__


def compose_version() -> str | None:
    """`2.26.1`; None without Compose v2."""
    answer = docker_command(["compose", "version", "--short"])
    version = answer.stdout.strip().removeprefix("v")
    return version if answer.returncode == 0 and version[:1].isdigit() and not version.startswith("1.") else None


def require_compose() -> None:
    """Raises MissingError without a running engine and Compose v2."""
    engine()
    if compose_version() is None:
        raise MissingError(
            "Docker has no Compose v2 (`docker compose version` fails)",
            advice="Install it: `apt-get install -y docker-compose-plugin`.",
        )


def has_gpu_runtime() -> bool:
    """Whether this engine can hand an NVIDIA GPU to a container, as far as can be seen without starting one."""
    information = engine().info()
    if "nvidia" in information.get("Runtimes", {}):
        return True
    if any("nvidia" in str(device) for device in information.get("DiscoveredDevices") or ()):
        return True
    return shutil.which("nvidia-container-runtime-hook") is not None


def require_gpu_runtime() -> None:
    """Raises MissingError; asked before gigabytes are pulled."""
    if not has_gpu_runtime():
        raise MissingError("Docker has no NVIDIA runtime", advice=INSTALL_GPU_RUNTIME)


def docker_command(arguments: Sequence[str], timeout: float | None = 60) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COMPOSE_")}
    try:
        return subprocess.run(
            ["docker", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            start_new_session=True,  # Ctrl-C must not cut a `down` in half
            check=False,
        )
    except FileNotFoundError as error:
        raise MissingError("no `docker` command", advice=f"{INSTALL_DOCKER}.") from error
    except subprocess.TimeoutExpired as error:
        raise MissingError(f"`docker {arguments[0]}` does not answer", advice=f"{START_DOCKER}.") from error


# ---- images


def lost(error: Exception) -> MissingError:
    return MissingError(f"the Docker Engine does not answer any more ({_short(error)})", advice=f"{START_DOCKER}.")


# ---- a stack


def used_gpus() -> list[str]:
    """Ids of the GPUs, or numbers of another maker's devices, that running containers of ours hold."""
    held: list[str] = []
    shown = tuple(f"{name}=" for engine in ENGINES for name in engine.devices_variables())
    try:
        for container in engine().containers.list(filters={"label": f"{LABEL}project"}, ignore_removed=True):
            for request in container.attrs["HostConfig"].get("DeviceRequests") or []:
                held += request.get("DeviceIDs") or []
            for variable in container.attrs["Config"].get("Env") or []:
                held += variable.partition("=")[2].split(",") if variable.startswith(shown) else []
    except SDK_ERRORS as error:
        raise lost(error) from error
    return sorted(set(held))


def leftovers() -> list[str]:
    """Projects of ours that Docker still knows, whether a file of ours remembers them or not."""
    try:
        containers = engine().containers.list(all=True, filters={"label": f"{LABEL}project"}, ignore_removed=True)
    except SDK_ERRORS as error:
        raise lost(error) from error
    return sorted({container.labels[f"{LABEL}project"] for container in containers})
