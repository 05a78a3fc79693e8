"""Containers: Compose's command line for up and down, the Docker SDK for looking.

Everything of ours carries labels (`harness.project`, `harness.model`), by which it is found again without any file of
ours.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import docker
import docker.errors
import docker.models.containers
import yaml
from docker.utils import parse_repository_tag

from harness.engines import ENGINES, engine_named
from harness.engines.base import Invocation
from harness.engines.endpoint import Endpoint
from harness.errors import HarnessError, Interrupted, MissingError, UsageError
from harness.redaction import arguments_without_secrets, without_secrets
from harness.stack import locks
from harness.stack import state as memory
from harness.stack.document import LABEL, to_yaml
from harness.stack.launch import address_for_us
from harness.stack.log_text import plain_line
from harness.stack.plan import ServicePlan, StackPlan
from harness.stack.process import release_port, require_free_port
from harness.stack.render_compose import secret_services, to_compose
from harness.stack.service import ServiceFacts, State
from harness.stack.shutdown import whole_grace
from harness.stack.sidecar import Sidecar, stack_files
from harness.units import format_bytes

_KEPT_LINES = 50_000
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


def pull(image: str, say: Callable[[str], None], cancelled: threading.Event) -> None:
    """Fetch an image unless it is there. say: gets what is done and, after a colon, how far it is, not too often.

    Raises UsageError (no such image) or MissingError.
    """
    client = engine()
    with contextlib.suppress(docker.errors.ImageNotFound):
        client.images.get(image)
        return
    repository, tag = parse_repository_tag(image)
    pulled = _Pulled()
    try:
        for event in client.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
            if cancelled.is_set():
                raise Interrupted()
            if "error" in event:
                raise _cannot_pull(image, str(event["error"]))
            if (told := pulled.after(event)) is not None:
                say(told)
    except SDK_ERRORS as error:
        raise _cannot_pull(image, str(getattr(error, "explanation", None) or error)) from error


class _Pulled:
    """How far a pull is, from Docker's events. Layers are fetched a few at a time, and unpacked in their order."""

    def __init__(self, beat: float = 5.0) -> None:
        """beat: seconds between two words on the same thing."""
        self._beat = beat
        self._waiting: set[str] = set()
        self._fetched: dict[str, tuple[int, int]] = {}
        self._unpacked: dict[str, int] = {}
        self._began = self._spoke = time.monotonic()
        self._doing = ""

    def after(self, event: Mapping[str, Any]) -> str | None:
        """What to say; None for nothing new."""
        self._note(str(event.get("status")), str(event.get("id")), event.get("progressDetail") or {})
        done, total = (sum(part) for part in zip(*self._fetched.values(), strict=True)) if self._fetched else (0, 0)
        doing = "unpacking the image" if total and done == total and not self._waiting else "pulling the image"
        now = time.monotonic()
        if doing == self._doing and now - self._spoke < self._beat:
            return None
        self._doing, self._spoke = doing, now
        if not total:
            return doing
        if doing.startswith("unpacking"):
            return f"{doing}: {format_bytes(sum(self._unpacked.values()))} of {format_bytes(total)}"
        rate = format_bytes(done / max(now - self._began, 1e-3))
        return f"{doing}: {format_bytes(done)} of {format_bytes(total)}, {rate}/s"

    def _note(self, status: str, layer: str, detail: Mapping[str, Any]) -> None:
        size = self._fetched.get(layer, (0, 0))[1]
        if status == "Pulling fs layer":
            self._waiting.add(layer)
        elif status == "Downloading" and detail.get("total"):
            self._fetched[layer] = (int(detail.get("current", 0)), int(detail["total"]))
        elif status in ("Download complete", "Already exists"):
            self._waiting.discard(layer)
            self._fetched[layer] = (size, size)
        elif status == "Extracting" and detail.get("current"):
            self._unpacked[layer] = min(int(detail["current"]), size)
        elif status == "Pull complete":
            self._waiting.discard(layer)
            self._unpacked[layer] = size


def _cannot_pull(image: str, reason: str) -> HarnessError:
    text = reason.strip().splitlines()[0][:200] if reason.strip() else "no reason given"
    if any(word in reason for word in ("manifest unknown", "not found", "repository does not exist")):
        return UsageError(f"no image {image} ({text})", advice="Check the entry's `engine`.")
    if "no space left" in reason.lower():
        return MissingError(
            f"no disk space for the image {image}", advice="Free some: `docker system df` shows what is used."
        )
    return MissingError(f"cannot pull {image}: {text}", advice="Check the network, or `docker pull` it by hand.")


def image_exists(image: str) -> bool:
    try:
        engine().images.get(image)
    except docker.errors.ImageNotFound:
        return False
    except SDK_ERRORS as error:
        raise lost(error) from error
    return True


def build(context: bytes, dockerfile: str, tag: str, labels: Mapping[str, str]) -> None:
    """Build an image from a tar archive. Raises MissingError with the builder's last line."""
    last = ""
    try:
        events = engine().api.build(
            fileobj=io.BytesIO(context),
            custom_context=True,
            dockerfile=dockerfile,
            tag=tag,
            labels=dict(labels),
            network_mode="host",  # where the host reaches a package index, the build does too
            rm=True,
            forcerm=True,
            decode=True,
        )
        for event in events:
            if "error" in event:
                raise MissingError(
                    f"cannot build {tag}: {event['error'].strip()} {last}".strip(),
                    advice="Check the network of Docker builds.",
                )
            last = str(event.get("stream") or "").strip() or last
    except SDK_ERRORS as error:
        raise lost(error) from error


def remove_older_images(tag: str, label: str) -> None:
    """Images of this label under other tags, unless a container uses them or one is about to: they are fresh."""
    name = tag.partition(":")[0]
    try:
        for image in engine().images.list(filters={"label": label}):
            if _age(image.attrs.get("Created", "")) < _FRESH:
                continue
            for other in image.tags:
                if other != tag and other.partition(":")[0] == name:
                    with contextlib.suppress(docker.errors.APIError):
                        engine().images.remove(other)
    except SDK_ERRORS as error:
        raise lost(error) from error


_FRESH = 600.0  # seconds from the build of an image to a container of it, at the most


def _age(created: str) -> float:
    """Seconds since a moment as Docker writes it, `2026-01-01T00:00:00.123456789Z`; 0 for what is none."""
    try:
        moment = datetime.strptime(created[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return 0.0
    return (datetime.now(timezone.utc) - moment).total_seconds()


def lost(error: Exception) -> MissingError:
    return MissingError(f"the Docker Engine does not answer any more ({_short(error)})", advice=f"{START_DOCKER}.")


# ---- a stack


class Stack:
    """One Compose project: its file under the state folder, and the commands on it."""

    def __init__(self, project: str) -> None:
        self.project = project
        self.folder = memory.subfolder("stacks") / project
        self.file = self.folder / "compose.yaml"
        self.secret_file = self.folder / "secrets.yaml"

    def write(self, plan: StackPlan) -> None:
        """The file with these services; others that are in it already stay."""
        new = self._document(plan)
        own = frozenset(new["services"])
        with self._alone():
            self.folder.mkdir(mode=0o700, exist_ok=True)
            # Readable to whichever user the container has; the folder itself is private.
            for each in stack_files(plan.sidecars):
                (self.folder / each.name).write_text(each.text, encoding="utf-8")
            old = self.read()
            for section in ("services", "volumes", "secrets", "configs"):
                if merged := {**old.get(section, {}), **new.get(section, {})}:
                    new[section] = merged
            self._save(new)
            others = {name: body for name, body in _services_in(self.secret_file).items() if name not in own}
            self._save_secrets({**others, **self._secret_services(plan)})

    def _document(self, plan: StackPlan) -> dict[str, Any]:
        document: dict[str, Any] = yaml.safe_load(to_compose(plan))
        return document

    def read(self) -> dict[str, Any]:
        return _document_in(self.file)

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """While the file is read and written again: another harness may be adding its own service to it."""
        return locks.held([f"stack-{self.project}"])

    def text_of(self, service: str) -> str:
        """The stack as it would be with this service alone."""
        document = self.read()
        services = {name: each for name, each in document.get("services", {}).items() if name == service}
        return to_yaml({**document, "services": services})

    def _save(self, document: dict[str, Any]) -> None:
        _write_private(self.file, to_yaml(document))

    def _secret_services(self, plan: StackPlan) -> dict[str, Any]:
        return secret_services(plan)

    def _save_secrets(self, services: Mapping[str, Any]) -> None:
        """What `self.file` shows as [REDACTED]; Compose and Swarm lay it over that file."""
        if services:
            document = {"version": self.read()["version"]} if "version" in self.read() else {}
            _write_private(self.secret_file, to_yaml({**document, "services": dict(services)}))
        else:
            self.secret_file.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """Of the stack, each laid over the one before."""
        return [self.file, *([self.secret_file] if self.secret_file.is_file() else [])]

    def compose(self, *arguments: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        files = [word for path in self.files() for word in ("-f", str(path))]
        return docker_command(["compose", "-p", self.project, *files, *arguments], timeout)

    def containers(self, service: str | None = None) -> list[docker.models.containers.Container]:
        """Ours, running or not."""
        wanted = [f"{LABEL}project={self.project}"]
        if service is not None:
            wanted.append(f"com.docker.compose.service={service}")
        try:
            found: list[docker.models.containers.Container] = engine().containers.list(
                all=True, filters={"label": wanted}, ignore_removed=True
            )
        except SDK_ERRORS as error:
            raise lost(error) from error
        return found

    def remove(self, service: str, grace: float) -> None:
        """Stop and remove one service; the network and the file too when it was the last."""
        if self.file.is_file():
            self.compose("stop", "--timeout", str(max(1, round(grace))), service)
            self.compose("rm", "--force", "--stop", service)
        for container in self.containers(service):  # also what Compose no longer knows
            with contextlib.suppress(*GONE):
                container.remove(force=True)
        self._forget_service(service)

    def _forget_service(self, service: str) -> None:
        """Take it out of the files; what is left of the project goes with its last one."""
        with self._alone():
            document = self.read()
            document.get("services", {}).pop(service, None)
            if not document.get("services"):
                self.remove_rest()
                return
            self._save(document)
            self._save_secrets({k: v for k, v in _services_in(self.secret_file).items() if k != service})

    def remove_rest(self) -> None:
        """What is left of the project; the volume with the models stays."""
        if self.file.is_file():
            self.compose("down", "--remove-orphans", "--timeout", "1")
        try:
            for container in self.containers():
                container.remove(force=True)
            label = f"com.docker.compose.project={self.project}"
            for network in engine().networks.list(filters={"label": label}):
                network.remove()
        except GONE:
            pass
        except SDK_ERRORS as error:
            raise lost(error) from error
        self.forget()

    def forget(self) -> None:
        """Its files, and the token's when no other stack is left."""
        for file in self.folder.glob("*"):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        if not any(memory.subfolder("stacks").iterdir()):
            (memory.subfolder("secrets") / "hub-token").unlink(missing_ok=True)


_SHARED_CACHE = "already exists but was created for project"  # Compose's warning of a cache that several stacks share


def _document_in(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return document if isinstance(document, dict) else {}


def _services_in(path: Path) -> dict[str, Any]:
    services = _document_in(path).get("services")
    return services if isinstance(services, dict) else {}


def _write_private(path: Path, text: str) -> None:
    """Of mode 0600 from its first byte on."""
    scratch = path.with_suffix(".tmp")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    scratch.replace(path)


class BringUp:
    """Images, then `docker compose up` for some services of one stack, in a thread, so that the wait can be watched and
    left.
    """

    def __init__(self, stack: Stack, plan: StackPlan, prepare: Callable[[Callable[[str], None]], None] | None) -> None:
        self.stack, self.plan = stack, plan
        self.word, self.progress = "starting", ""
        self.error: HarnessError | None = None
        self.complaints: list[str] = []
        self._prepare = prepare
        self._cancelled = threading.Event()
        self.creating = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"up {stack.project}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def begun(self) -> bool:
        return self._thread.ident is not None

    @property
    def busy(self) -> bool:
        return self._thread.is_alive()

    def cancel(self) -> None:
        """No container is made after this. A pull or build is left behind; it ends with this process at the latest."""
        with self._gate:
            self._cancelled.set()
            creating = self.creating
        if creating:
            self._thread.join(60)

    def _run(self) -> None:
        try:
            if self._prepare is not None:
                self._prepare(self._say)
            for image in dict.fromkeys(each.image for each in self.plan.containers):
                pull(image, self._say, self._cancelled)
            with self._gate:
                self.creating = not self._cancelled.is_set()
            if self.creating:
                self._say("creating the container")
                self._up()
        except HarnessError as error:
            self.error = error

    def _say(self, word: str) -> None:
        self.word, _, self.progress = word.partition(": ")

    def _up(self) -> None:
        names = [each.name for each in self.plan.containers]
        answer = self.stack.compose("up", "--detach", "--no-build", "--no-deps", *names)
        if answer.returncode != 0:
            lines = (answer.stderr + answer.stdout).splitlines()
            self.complaints = [line for line in lines if line.strip() and _SHARED_CACHE not in line]


class ComposeService:
    """Service of one container. `keep()` leaves it to run when the harness ends."""

    def __init__(self, record: memory.Remembered, bring_up: BringUp | None = None) -> None:
        self.name = record.name
        self.endpoint = Endpoint(record.url)
        self.stack = Stack(record.marker)
        self._record = record
        self._bring_up = bring_up
        self._container: docker.models.containers.Container | None = None
        self._follower: _Follower | None = None
        self._told: deque[str] = deque()
        self._stack_text = ""
        self._started = bring_up is None

    @property
    def digest(self) -> str:
        """Equal for services that were asked for in the same way."""
        return self._record.digest

    @property
    def record(self) -> memory.Remembered | None:
        return self._record

    def start(self) -> None:
        """Raises MissingError when Docker, the GPU runtime or the port is not there. The image is fetched in the
        background.
        """
        assert self._bring_up is not None
        plan = next(each for each in self._bring_up.plan.containers if each.name == self._record.service)
        require_compose()
        if plan.on_nvidia:
            require_gpu_runtime()
        if not self._bring_up.begun:  # else another service of the same stack began it
            for each in self._bring_up.plan.containers:
                require_free_port(each.host_port, each.listen)
            self.stack.write(self._bring_up.plan)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._record = replace(self._record, started_at=now, **memory.owned_by_us())
        self._started = True
        memory.remember(replace(self._record, name=self._record_name()))
        if not self._bring_up.begun:
            self._bring_up.start()

    def keep(self, limits: Mapping[str, int] | None = None, predicted: Mapping[str, int] | None = None) -> None:
        """From now on it outlives the harness; `status`, `logs` and `down` find it under its name."""
        memory.forget(self._record_name())
        self._record = replace(self._record, attached=None, limits=dict(limits or {}), predicted=dict(predicted or {}))
        memory.remember(self._record)
        release_port(self._port())

    def _port(self) -> int:
        return int(self.endpoint.url.rpartition(":")[2])

    def state(self) -> State:
        if self._bring_up is not None:
            if self._bring_up.error is not None:
                raise self._bring_up.error
            if self._bring_up.busy:
                told = self._bring_up
                return State(True, detail=told.word, progress=told.progress, preparing=not told.creating)
            if self._bring_up.complaints:
                self._told.extend(self._bring_up.complaints)
                self._bring_up.complaints = []
                return State(False, detail="Docker did not start it")
        container = self._look()
        return State(False, detail="no container") if container is None else self._state_of(container)

    def _look(self) -> docker.models.containers.Container | None:
        try:
            if self._container is None:
                found = self.stack.containers(self._record.service)
                self._container = found[0] if found else None
            else:
                self._container.reload()
        except GONE:
            self._container = None
        except SDK_ERRORS as error:
            raise lost(error) from error
        return self._container

    def _state_of(self, container: docker.models.containers.Container) -> State:
        details: dict[str, Any] = container.attrs["State"]
        if details.get("Running") or details.get("Status") == "restarting":
            return State(True)
        if self._follower is not None:
            self._follower.finish()
        if details.get("Error"):
            self._told.append(str(details["Error"]))
        code = details.get("ExitCode")
        return State(False, code, f"ended with exit code {code}", memory_limit_hit=bool(details.get("OOMKilled")))

    def _busy(self) -> bool:
        return self._bring_up is not None and self._bring_up.busy

    def log_lines(self) -> Iterator[str]:
        if self._follower is None and not self._busy() and (container := self._look()) is not None:
            fresh = self._bring_up is not None and container.status == "running"
            if not fresh:  # found again, or ended: all that was said so far is there at once
                yield from _whole_log(container)
            self._follower = _Follower(container, None if fresh else time.time())
        if self._follower is not None:
            yield from self._follower.take()
        while self._told:
            yield plain_line(self._told.popleft())

    def all_log_lines(self) -> Iterator[str]:
        """The whole log from its beginning, as far as Docker keeps it."""
        container = self._look()
        return iter(()) if container is None else _whole_log(container)

    def downloaded_bytes(self) -> int | None:
        """Bytes of this model in its cache; None where it cannot be counted."""
        folder = "models--" + self._record.repo.replace("/", "--")
        container = self._container
        if container is None or "/" not in self._record.repo:
            return None
        try:
            counted = container.exec_run(["du", "-sbc", f"/data/hub/{folder}", f"/data/{folder}"], stderr=False)
        except SDK_ERRORS:
            return None
        words = counted.output.split() if isinstance(counted.output, bytes) else []  # ends with `BYTES total`
        return int(words[-2]) if len(words) > 1 and words[-2].isdigit() else None

    def stop(self, grace: float = 100.0) -> None:
        """Stop and remove the container; the network too when it was the last of its stack."""
        release_port(self._port())
        if not self._started:
            return
        if self._bring_up is not None:
            self._bring_up.cancel()
        self._stack_text = self.facts().stack
        try:
            self.stack.remove(self._record.service, grace_of(grace, self._record))
        except KeyboardInterrupt:  # once more: then nobody waits any longer
            self.stack.remove(self._record.service, 1)
            raise
        finally:
            self._follower = None
        memory.forget(self._record_name())

    def facts(self) -> ServiceFacts:
        return ServiceFacts(
            runtime=self._record.runtime,
            engine=self._record.engine,
            engine_version=self._record.engine_version,
            image=self._record.image,
            image_digest=_digest(self._record.image),
            args=self._record.args,
            environment=self._record.environment,
            stack=self._stack_text or self.stack.text_of(self._record.service),
        )

    def _record_name(self) -> str:
        if self._record.attached is None:
            return self.name
        return memory.attached_name(self.name, self.stack.project.rpartition("-")[2])


def grace_of(grace: float, record: memory.Remembered) -> float:
    """Seconds to wait for a container that is to end: not less than its entry gives open requests."""
    known = any(engine.name == record.engine for engine in ENGINES)  # no sidecar
    started_with = Invocation(record.args, record.environment)
    told = engine_named(record.engine).drain_seconds(started_with) if known else None
    return whole_grace(grace, record.engine, told)


def compose_services(
    plan: StackPlan, prepare: Callable[[Callable[[str], None]], None] | None = None
) -> list[ComposeService]:
    """The services of a stack that is not yet started; starting one starts all. prepare: makes local images first."""
    bring_up = BringUp(Stack(plan.project), plan, prepare)
    return [ComposeService(record_of(each, plan), bring_up) for each in plan.containers]


def record_of(service: ServicePlan | Sidecar, plan: StackPlan, runtime: str = "compose") -> memory.Remembered:
    return memory.Remembered(
        name=service.name,
        model=service.model,
        runtime=runtime,
        url=f"http://{address_for_us(service.listen)}:{service.host_port}",
        engine=service.engine,
        engine_version=service.engine_version,
        repo=service.repo,
        gpu=service.gpu,
        emulated=service.emulated,
        marker=plan.project,
        digest=service.digest,
        args=arguments_without_secrets(service.args) if isinstance(service, ServicePlan) else (),
        environment=without_secrets(service.environment),
        image=service.image,
        service=service.name,
    )


def _digest(image: str | None) -> str | None:
    """`name@sha256:...` of an image that came from a registry, else the image's own id; None when it is not here."""
    try:
        found = engine().images.get(image) if image else None
    except (*SDK_ERRORS, MissingError):
        return None
    if found is None:
        return None
    digests = found.attrs.get("RepoDigests") or []
    return str(digests[0] if digests else found.id)


def _whole_log(container: docker.models.containers.Container) -> Iterator[str]:
    try:
        text: bytes = container.logs(stdout=True, stderr=True)
    except SDK_ERRORS:
        return
    yield from (plain_line(line.decode("utf-8", "replace")) for line in text.split(b"\n") if line)


class _Follower:
    """Drains a container's log all the time; keeps the last lines until they are taken."""

    def __init__(self, container: docker.models.containers.Container, since: float | None = None) -> None:
        self.id = container.id
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._container, self._since = container, since
        self._thread = threading.Thread(target=self._run, name=f"log {container.name}", daemon=True)
        self._thread.start()

    def take(self) -> Iterator[str]:
        while self._lines:
            yield self._lines.popleft()

    def finish(self) -> None:
        """Wait for the last lines of a container that has ended."""
        self._thread.join(5)

    def _run(self) -> None:
        rest = b""
        try:
            for chunk in self._container.logs(stream=True, follow=True, stdout=True, stderr=True, since=self._since):
                *whole, rest = (rest + chunk).split(b"\n")
                self._lines.extend(plain_line(line.decode("utf-8", "replace")) for line in whole)
        except (*SDK_ERRORS, OSError):
            pass  # the container or the engine is gone; state() says so
        if rest:
            self._lines.append(plain_line(rest.decode("utf-8", "replace")))


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


def stack_file_of(project: str) -> Path:
    return Stack(project).file
