"""Models + engine + this machine -> what a stack is to be. Pure: nothing is asked of Docker or of the disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice

from harness.catalog.gpus import find_gpu
from harness.catalog.models import Model
from harness.catalog.schema import DEFAULT_ENGINE
from harness.catalog.shapes import shape_for_emulator
from harness.engines import engine_of
from harness.engines.base import Container, Engine, Hardware, Place
from harness.errors import MissingError, UsageError
from harness.stack.launch import DEFAULT_GPU, LOOPBACK, asked, digest_of
from harness.stack.sidecar import Sidecar
from harness.stack.state import safe_name

CONTAINER_PORT = 8080  # above 1024: no capability is needed to bind it
FIRST_PORT = 8080  # on the host, for models that ask for none


@dataclass(frozen=True)
class Mount:
    """A directory of this host in the container, read-only."""

    source: str
    target: str


@dataclass(frozen=True)
class ServicePlan:
    """One container that serves one model. name: of the service in the stack. model: of the entry in the catalogue.

    container: what the engine's image needs. args, environment: what it is started with. devices: GPU ids as nvidia-smi
    counts them, or numbers of another maker's devices; empty without. drain: seconds that the entry itself gives open
    requests; None for the engine's own. concurrent: requests that it takes at once. start_period: seconds in which an
    unhealthy answer means nothing yet. digest: hash of all that matters to the engine, to notice a changed entry.
    weight_bytes: of the model's files; None where nobody said. listen: the address that shows the port.
    """

    name: str
    model: str
    image: str
    args: tuple[str, ...]
    environment: Mapping[str, str]
    host_port: int
    container: Container
    engine: str
    engine_version: str
    repo: str
    gpu: str | None
    emulated: bool
    devices: tuple[str, ...] = ()
    shards: int = 1
    drain: int | None = None
    concurrent: int = 128
    mounts: tuple[Mount, ...] = ()
    start_period: float = 1200.0
    digest: str = ""
    weight_bytes: int | None = None
    listen: str = LOOPBACK

    @property
    def hardware(self) -> Hardware:
        return self.container.hardware

    @property
    def on_nvidia(self) -> bool:
        """Whether Docker must hand NVIDIA GPUs in."""
        return bool(self.devices) and self.hardware.accelerator == "nvidia"


@dataclass(frozen=True)
class StackPlan:
    """All containers of one Compose project. token_file: of mode 0600 on this host; None without a token.

    sidecars: what runs beside the models, such as the gateway.
    """

    project: str
    services: tuple[ServicePlan, ...]
    token_file: str | None = None
    sidecars: tuple[Sidecar, ...] = ()

    @property
    def containers(self) -> tuple[ServicePlan | Sidecar, ...]:
        return (*self.services, *self.sidecars)


@dataclass(frozen=True)
class Machine:
    """What the plan needs to know of the host. gpus: ids of NVIDIA's that may be used, None where nobody counted them.

    used: ids of what is not counted and in use already. ports: what a service gets that asks for none, in order.
    """

    gpus: tuple[str, ...] | None = None
    used: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    token_file: str | None = None


@dataclass
class _FreeMachine:
    """What is left of the machine while services are planned one after another."""

    gpus: list[str] | None
    ports: list[int]
    uncounted: Iterator[str]
    used_ports: set[int] = field(default_factory=set)

    def take_devices(self, count: int, hardware: Hardware, where: str) -> tuple[str, ...]:
        if hardware.accelerator == "none":
            return ()
        if self.gpus is None or hardware.accelerator != "nvidia":
            return tuple(islice(self.uncounted, count))
        if len(self.gpus) < count:
            raise MissingError(
                f"needs {count} GPU{'s' if count > 1 else ''}, {len(self.gpus)} left on this machine",
                where=where,
                advice="Name fewer models at once, take models down, or lower `gpus` or `replicas`.",
            )
        taken, self.gpus = self.gpus[:count], self.gpus[count:]
        return tuple(taken)

    def take_port(self) -> int:
        """One that no model asked for and none got."""
        port = self.ports.pop(0) if self.ports else FIRST_PORT
        while port in self.used_ports:
            port = self.ports.pop(0) if self.ports else port + 1
        self.used_ports.add(port)
        return port


def plan_stack(
    models: Sequence[Model],
    *,
    project: str,
    machine: Machine = Machine(),
    emulator_image: str | None = None,
    changes: Mapping[str, Mapping[str, str]] | None = None,
    revisions: Mapping[str, str] | None = None,
) -> StackPlan:
    """One service per model and replica. emulator_image: run this in the place of the engine's. changes: by model, the
    variables that differ from the entry's. revisions: by model, where the entry pins none.

    Raises UsageError for what the engine's version does not know, MissingError when there are fewer GPUs than asked
    for.
    """
    gpus = None if machine.gpus is None else list(machine.gpus)
    uncounted = (str(index) for index in count() if str(index) not in machine.used)
    rest = _FreeMachine(gpus, list(machine.ports), uncounted, used_ports=_asked(models))
    services = [
        _PlannedContainer(model, replica, machine, emulator_image).service(
            rest, (changes or {}).get(model.name), (revisions or {}).get(model.name)
        )
        for model in models
        for replica in range(model.replicas)
    ]
    _require_distinct(services)
    return StackPlan(project, tuple(services), machine.token_file)


def _asked(models: Sequence[Model]) -> set[int]:
    """The ports that models name; replicas take the following ones. Raises UsageError where two want the same."""
    owners: dict[int, str] = {}
    for model in models:
        for port in range(model.port, model.port + model.replicas) if model.port else ():
            if port in owners:
                raise UsageError(
                    f"{owners[port]} and {model.name} both want port {port}", advice="Give one of them another `port:`."
                )
            owners[port] = model.name
    return set(owners)


@dataclass(frozen=True)
class _PlannedContainer:
    """One container to be planned."""

    model: Model
    replica: int
    machine: Machine
    emulator_image: str | None

    def service(self, rest: _FreeMachine, changes: Mapping[str, str] | None, revision: str | None) -> ServicePlan:
        model, engine = self.model, engine_of(self.model)
        version = engine.version(model.engine.version)
        container = engine.container(model, version, with_token=self.machine.token_file is not None)
        mounts, inside = _mounts(model)
        place = Place("0.0.0.0", CONTAINER_PORT, inside, container=True)  # inside its own network namespace
        invocation = engine.invocation(model, version, place, revision=revision, changes=changes)
        environment = {"PORT": str(CONTAINER_PORT), **invocation.environment}  # the health check reads it
        gpu = model.gpu or (DEFAULT_GPU if self.emulator_image else None)
        if self.emulator_image is not None and gpu is not None:
            environment["HARNESS_EMULATOR_GPU"] = find_gpu(gpu).name
            environment |= shape_for_emulator(model.shape)
        image = self.emulator_image or container.image
        face = _face(engine, self.emulator_image)
        if face:  # which the program that the emulator's image starts with takes
            container = replace(container, entrypoint=(), plain_entrypoint=())
        lasting = engine.invocation(model, version, place, changes=changes).args
        return ServicePlan(
            name=service_name(model, self.replica),
            model=model.name,
            image=image,
            args=(*face, *invocation.args),
            environment=environment,
            host_port=model.port + self.replica if model.port else rest.take_port(),
            container=container,
            engine=engine.name,
            engine_version=model.engine.version,
            repo=model.repo,
            gpu=gpu,
            emulated=self.emulator_image is not None,
            devices=() if self.emulator_image else rest.take_devices(model.gpus, container.hardware, model.name),
            shards=model.gpus,
            drain=engine.drain_seconds(invocation),
            concurrent=engine.concurrent(invocation),
            mounts=mounts,
            start_period=model.start_timeout,
            weight_bytes=model.weight_bytes,
            listen=model.listen,
            digest=digest_of(
                "compose",
                image,
                asked(environment, model),
                container.token_places,
                container.entrypoint,
                [[mount.source, mount.target] for mount in mounts],
                *([lasting] if lasting else []),
            ),
        )


def _face(engine: Engine, emulator_image: str | None) -> tuple[str, ...]:
    """The emulator's image plays TGI where it is not told otherwise."""
    return ("--engine", engine.name) if emulator_image and engine.name != DEFAULT_ENGINE else ()


def _mounts(model: Model) -> tuple[tuple[Mount, ...], str | None]:
    """What of this host a local model needs in the container, and where it is in there."""
    if not model.is_local:
        return (), None
    source, inside = _whole_folder(os.path.abspath(os.path.expanduser(model.repo)))
    target = f"/models/{safe_name(model.name)}"
    return (Mount(source, target),), target + inside


def _whole_folder(path: str) -> tuple[str, str]:
    """What to mount for a local model, and where it is in there: a snapshot in the Hub's cache is made of links to
    files beside it, and a model's one file may be the first of several parts.
    """
    match = re.fullmatch(r"(.*/models--[^/]+)(/snapshots/.+)", path)
    if match:
        return match[1], match[2]
    folder, name = os.path.split(path)
    return (folder, f"/{name}") if name.endswith(_ONE_FILE) else (path, "")


_ONE_FILE = ".gguf"


def service_name(model: Model, replica: int = 0) -> str:
    """The entry's name as Compose takes it; replicas are counted from 1 when there is more than one."""
    name = safe_name(model.name)
    return name if model.replicas == 1 else f"{name}-{replica + 1}"


def _require_distinct(services: Iterable[ServicePlan]) -> None:
    seen: dict[str, str] = {}
    for service in services:
        if service.name in seen:
            raise UsageError(
                f"{seen[service.name]!r} and {service.model!r} are one name to Docker: {service.name}",
                advice="Rename one of them.",
            )
        seen[service.name] = service.model
