"""`harness doctor`: what this machine has, and the command that mends what it lacks."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import MissingError
from harness.stack import docker, machine
from harness.stack.plan import FIRST_PORT
from harness.stack.process import port_taken
from harness.stack.state import state_folder
from harness.units import GIB, format_bytes

Verdict = Literal["ok", "warn", "fail"]

_WANTED_FILES = 4096  # open files: a load of 1,000 users holds 1,000 sockets, and the report a few more
_WANTED_DISK = 40 * GIB  # TGI's image unpacked (about 20 GiB) and one 7B model
_OLDEST_DRIVER = (525, 60, 13)  # CUDA 12 minor version compatibility; NVIDIA's CUDA release notes, table 2


@dataclass(frozen=True)
class Finding:
    """One line of the examination. verdict: fail where a command would end with exit code 3. fix: the command"
    " that mends it."""

    name: str
    verdict: Verdict
    found: str
    fix: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def doctor() -> list[Finding]:
    """All checks, in the list's order; none of them starts or changes anything."""
    return [check() for check in CHECKS]


def as_text(findings: Sequence[Finding]) -> str:
    """One line per finding, its remedy below."""
    lines: list[str] = []
    for each in findings:
        lines.append(f"{each.verdict:<5} {each.name}: {each.found}")
        if each.fix and each.verdict != "ok":
            lines.append(f"      mend it: {each.fix}")
    if not any(each.name == "docker" and each.verdict == "ok" for each in findings):
        lines.append("Without Docker everything still runs on the emulator: harness demo")
    return "\n".join(lines)


def _docker_engine() -> Finding:
    try:
        information = docker.engine().info()
    except MissingError as error:
        fix = "systemctl start docker" if shutil.which("docker") else "curl -fsSL https://get.docker.com | sh"
        return Finding("docker", "fail", error.found, fix)
    return Finding("docker", "ok", f"Engine {information.get('ServerVersion')}, {information.get('OperatingSystem')}")


def _compose() -> Finding:
    try:
        version = docker.compose_version()
    except MissingError:
        version = None
    if version is None:
        return Finding("compose", "fail", "no Compose v2", "apt-get install -y docker-compose-plugin")
    return Finding("compose", "ok", f"Compose {version}")


def _gpu() -> Finding:
    here = machine.gpus_here()
    if not here:
        if Path("/dev/kfd").exists():
            return Finding("gpu", "warn", "an AMD GPU; set `engine: {variant: rocm}` in the entry", "rocm-smi")
        found = "nvidia-smi lists none" if shutil.which("nvidia-smi") else "no nvidia-smi"
        return Finding("gpu", "warn", f"{found}: models run on the emulator only", "apt-get install -y nvidia-driver")
    each = [
        f"{gpu.index}: {gpu.name}, {format_bytes(gpu.free_bytes)} of {format_bytes(gpu.memory_bytes)} free"
        for gpu in here
    ]
    in_use = [gpu for gpu in here if gpu.free_bytes < 0.9 * gpu.memory_bytes]
    if in_use:
        return Finding("gpu", "warn", f"{'; '.join(each)} (something else uses it)", "nvidia-smi  # shows who")
    return Finding("gpu", "ok", "; ".join(each))


def _driver() -> Finding:
    here = machine.gpus_here()
    if not here:
        return Finding("driver", "warn", "no NVIDIA driver", "apt-get install -y nvidia-driver")
    version = here[0].driver
    parts = tuple(int(part) for part in version.split(".") if part.isdigit())
    if parts < _OLDEST_DRIVER:
        needed = ".".join(map(str, _OLDEST_DRIVER))
        return Finding(
            "driver", "fail", f"{version} is older than CUDA 12 needs ({needed})", "apt-get install -y nvidia-driver"
        )
    return Finding("driver", "ok", version)


def _gpu_runtime() -> Finding:
    try:
        there = docker.has_gpu_runtime()
    except MissingError:
        return Finding("nvidia runtime", "warn", "cannot be asked: Docker does not run", "systemctl start docker")
    if there:
        return Finding("nvidia runtime", "ok", "Docker can hand GPUs to containers")
    verdict: Verdict = "fail" if machine.gpus_here() else "warn"
    fix = (
        "apt-get install -y nvidia-container-toolkit && nvidia-ctk runtime configure --runtime=docker"
        " && systemctl restart docker"
    )
    return Finding("nvidia runtime", verdict, "Docker has none", fix)


def _launcher() -> Finding:
    path = shutil.which("text-generation-launcher")
    if path is None:
        return Finding("launcher", "warn", "no text-generation-launcher here; --runtime local needs --launcher PATH")
    return Finding("launcher", "ok", path)


def _disk() -> Finding:
    place = Path("/")
    try:
        place = Path(str(docker.engine().info().get("DockerRootDir") or "/"))
    except MissingError:
        place = state_folder()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    found = f"{format_bytes(free)} free at {place}"
    if free < _WANTED_DISK:
        return Finding(
            "disk", "warn", f"{found}; TGI's image and one 7B model take about 40 GiB", "docker system prune"
        )
    return Finding("disk", "ok", found)


def _token() -> Finding:
    if machine.hub_token() is None:
        found = "none; gated models (Llama, Gemma) will be refused"
        return Finding("hub token", "warn", found, "huggingface-cli login  # or: export HF_TOKEN=hf_...")
    return Finding("hub token", "ok", "there is one")


def _ports() -> Finding:
    taken = [port for port in range(FIRST_PORT, FIRST_PORT + 8) if port_taken(port)]
    first = FIRST_PORT
    if len(taken) == 8:
        found = f"{first} to {first + 7} are all taken; later ones will be used"
        return Finding("ports", "warn", found, f"ss -ltnp 'sport >= :{first}'")
    return Finding("ports", "ok", f"{first} to {first + 7}: {8 - len(taken)} free")


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= _WANTED_FILES:
        return Finding("open files", "ok", f"{soft} allowed")
    verdict: Verdict = "warn" if hard >= _WANTED_FILES else "fail"
    return Finding(
        "open files", verdict, f"{soft} allowed, a large load wants {_WANTED_FILES}", f"ulimit -n {_WANTED_FILES}"
    )


def _state() -> Finding:
    try:
        folder = state_folder()
    except MissingError as error:
        return Finding("state folder", "fail", str(error), "export XDG_STATE_HOME=/some/writable/folder")
    if not os.access(folder, os.W_OK):
        return Finding("state folder", "fail", f"{folder} is not writable", f"chown -R $USER {folder}")
    return Finding("state folder", "ok", str(folder))


def _processors() -> Finding:
    """Processors of this host: the load generator shares them with the engine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2:
        return Finding("processors", "warn", f"{cores}: load and engine share one; figures will suffer")
    return Finding("processors", "ok", str(cores))


CHECKS: tuple[Callable[[], Finding], ...] = (
    _docker_engine,
    _compose,
    _gpu,
    _driver,
    _gpu_runtime,
    _launcher,
    _disk,
    _token,
    _ports,
    _open_files,
    _state,
    _processors,
)
