"""`harness doctor`: what this machine has, and the command that fixes what it lacks."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from harness.catalog.gpus import find_gpu
from harness.catalog.models import Model
from harness.engines import engine_of, load_catalogue, support_of
from harness.errors import MissingError, UsageError
from harness.serve.before_start import docker_folder, fit_here
from harness.sizing.check import check
from harness.sizing.known import size_of_files
from harness.stack import docker, docker_images, machine
from harness.stack.plan import FIRST_PORT, plan_stack
from harness.stack.ports import port_taken
from harness.stack.running import services_of
from harness.stack.state import state_folder
from harness.units import GIB, format_bytes

Verdict = Literal["ok", "warn", "fail"]

_WANTED_FILES = 4096  # open files: a load of 1,000 users holds 1,000 sockets, and the report a few more
_WANTED_DISK = 40 * GIB  # TGI's image unpacked (about 20 GiB) and one 7B model
_OLDEST_DRIVER = (525, 60, 13)  # CUDA 12 minor version compatibility; NVIDIA's CUDA release notes, table 2


@dataclass(frozen=True)
class Finding:
    """One line of the examination. verdict: fail where a command would end with exit code 2 or 3. fix: the command that
    fixes it.
    """

    name: str
    verdict: Verdict
    found: str
    fix: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def doctor(names: Sequence[str] = (), *, gpu: str | None = None, catalogue: str | Path | None = None) -> list[Finding]:
    """All checks of the machine in the list's order, then those of each entry that is named; none of them starts or
    changes anything.

    gpu: another than this machine's for the entries. Raises UsageError for a wrong catalogue or an unknown name.
    """
    known = load_catalogue(catalogue) if names else None
    models = [known.find(name) for name in names] if known else []
    findings = [examine() for examine in CHECKS]
    for model in models:
        findings += [replace(each, name=f"{model.name}: {each.name}") for each in _of_model(model, gpu)]
    return findings


def as_text(findings: Sequence[Finding]) -> str:
    """One line per finding, its remedy below."""
    lines: list[str] = []
    for each in findings:
        lines.append(f"{each.verdict:<5} {each.name}: {each.found}")
        if each.fix and each.verdict != "ok":
            lines.append(f"      fix: {each.fix}")
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
    if any(gpu.in_use for gpu in here):
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
    place = docker_folder()
    free = shutil.disk_usage(place).free
    found = f"{format_bytes(free)} free at {place}"
    if free < _WANTED_DISK:
        return Finding(
            "disk", "warn", f"{found}; TGI's image and one 7B model take about 40 GiB", "docker system prune"
        )
    return Finding("disk", "ok", found)


def _token() -> Finding:
    token = machine.hub_token()
    login = "hf auth login  # or: export HF_TOKEN=hf_..."
    if token is None:
        return Finding("hub token", "warn", "none; gated models (Llama, Gemma) will be refused", login)
    from harness.catalog import hub

    try:
        if hub.token_is_accepted(token.reveal()):
            return Finding("hub token", "ok", "the Hub accepts it")
    except MissingError as error:
        return Finding("hub token", "warn", f"there is one; whether it is accepted is not known: {error.found}")
    return Finding("hub token", "fail", "the Hub refuses it", login)


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


# ---- one entry


def _of_model(model: Model, gpu: str | None) -> list[Finding]:
    """What `up` would find out one after another."""
    return [_image(model), _support(model), _fits(model, gpu), _port(model), _weights(model), _access(model)]


def _image(model: Model) -> Finding:
    """Of the engine, which also tells whether the entry says anything that this version does not know."""
    try:
        image = plan_stack([model], project="doctor").services[0].image
    except UsageError as error:
        return Finding("entry", "fail", error.found, error.advice)
    try:
        if docker_images.image_exists(image):
            return Finding("image", "ok", f"{image} is here")
    except MissingError as error:
        return Finding("image", "warn", f"{image}: cannot be looked for ({error.found})")
    return Finding("image", "warn", f"{image} is not here; `up` pulls it first (8 to 20 GB)", f"docker pull {image}")


def _needs_no_gpu(model: Model) -> bool:
    engine = engine_of(model)
    try:
        container = engine.container(model, engine.version(model.engine.version), with_token=False)
    except UsageError:  # another check says so
        return False
    return container.hardware.accelerator == "none"


def _fits(model: Model, gpu: str | None) -> Finding:
    if _needs_no_gpu(model):
        return Finding("memory", "ok", "serves without a GPU, from this host's memory")
    here = machine.gpus_in_order()
    named = gpu or (None if here else model.gpu)
    try:
        if named is None and not here:
            return Finding("memory", "warn", "names no GPU, and there is none here: nothing to fit into")
        fit = check(model, find_gpu(named)) if named else fit_here(model, here)
    except (UsageError, MissingError) as error:
        return Finding("memory", "warn", f"cannot be computed: {error.found}")
    if fit.fits is None:
        return Finding("memory", "warn", fit.reason)
    remedy = f"in its entry: {fit.remedies[0]}" if fit.remedies else f"harness models check {model.name}"
    reason = f"{fit.reason} ({fit.estimate})" if fit.estimate else fit.reason
    if fit.may_die:
        return Finding("memory", "warn", f"{reason}; may die under load: {'; '.join(fit.may_die)}")
    return Finding("memory", "ok" if fit.fits else "fail", reason, None if fit.fits else remedy)


def _support(model: Model) -> Finding:
    """Whether its engine's release serves the architecture."""
    found = support_of(model)
    verdict: Verdict = "ok" if found.kind == "native" else "fail" if found.kind == "no" else "warn"
    fix = "in its entry: another engine or version" if found.kind == "no" else None
    return Finding("architecture", verdict, found.reason, fix)


def _port(model: Model) -> Finding:
    if model.port is None:
        return Finding("port", "ok", "the first free one")
    wanted = range(model.port, model.port + model.replicas)
    ours = {service.endpoint.url.rpartition(":")[2] for service in services_of(model.name)}
    taken = [str(port) for port in wanted if port_taken(port) and str(port) not in ours]
    if taken:
        return Finding("port", "fail", f"{', '.join(taken)} taken", f"ss -ltnp 'sport = :{taken[0]}'  # shows by whom")
    return Finding("port", "ok", f"{', '.join(map(str, wanted))} free or its own")


def _weights(model: Model) -> Finding:
    """The files of the weights against the room where they will lie; those that lie there already count as well."""
    if model.is_local:
        folder = Path(model.repo).expanduser()
        verdict: Verdict = "ok" if folder.is_dir() else "fail"
        return Finding("weights", verdict, f"{folder}{'' if folder.is_dir() else ' is not a directory'}")
    size = size_of_files(model)
    free = shutil.disk_usage(docker_folder()).free
    if size is None:
        return Finding("weights", "warn", "of unknown size", f"harness models add {model.repo}  # fills it in")
    found_out = f"{format_bytes(size)} of files, {format_bytes(free)} free"
    return Finding("weights", "ok" if free > size else "fail", found_out, "docker system prune")


def _access(model: Model) -> Finding:
    """Whether the Hub gives this model to this token."""
    if model.is_local:
        return Finding("hub", "ok", "not needed")
    from harness.catalog import hub

    try:
        revision = hub.resolve_revision(model.repo, model.revision)
    except UsageError as error:
        return Finding("hub", "fail", f"{model.repo} {error.found}", error.advice)
    except MissingError as error:
        refused = "gated" in error.found or "refused" in error.found
        return Finding("hub", "fail" if refused else "warn", f"{model.repo}: {error.found}", error.advice)
    return Finding("hub", "ok", f"gives {model.repo} at {revision[:12]}")
