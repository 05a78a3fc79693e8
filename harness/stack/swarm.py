"""Services of a Docker Swarm: `docker stack deploy` for up, Swarm's own word on tasks for looking."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from harness.catalog.models import Model
from harness.engines.endpoint import Endpoint
from harness.errors import MissingError, ServiceError
from harness.stack import emulator_image, machine
from harness.stack import state as memory
from harness.stack.compose_service import ComposeService, grace_of, record_of
from harness.stack.compose_stack import Stack
from harness.stack.docker import GONE, SDK_ERRORS, docker_command, engine, lost
from harness.stack.document import escaped
from harness.stack.log_text import plain_line
from harness.stack.plan import StackPlan, plan_stack
from harness.stack.ports import release_port, require_free_port
from harness.stack.render_swarm import (
    BINDING,
    BRIDGE,
    GPU_RESOURCE,
    MAKE_LOOPBACK_BRIDGE,
    SUFFIX,
    swarm_document,
    swarm_name,
    swarm_secret_services,
)
from harness.stack.service import State

_ENDED = ("complete", "failed", "rejected", "shutdown", "orphaned", "remove")
_KEPT_LINES = 50_000
_QUIET, _LAST_LINES_WITHIN = 0.5, 3.0  # seconds
_SETTLED_WITHIN = 90.0  # seconds from a first answer to Swarm's own health check having seen one
_GONE_WITHIN = 30.0
_PLACED_WITHIN = 30.0


def project_of(name: str) -> str:
    """The Swarm stack beside the Compose project of this name."""
    return f"{name}{SUFFIX}"


def require_swarm() -> None:
    """Raises MissingError unless this engine is a manager of a swarm."""
    try:
        swarm = engine().info().get("Swarm", {})
    except SDK_ERRORS as error:
        raise lost(error) from error
    if swarm.get("LocalNodeState") != "active":
        raise MissingError(
            "this Docker Engine is in no swarm",
            advice=f"For one of this machine alone, on 127.0.0.1: `{MAKE_LOOPBACK_BRIDGE} && docker swarm init"
            " --advertise-addr 127.0.0.1`.",
        )
    if not swarm.get("ControlAvailable"):
        raise MissingError("this node of the swarm is not a manager", advice="Run it on a manager (`docker node ls`).")


def exposure() -> str | None:
    """What to tell the user about who can reach published ports; None where it is this host alone."""
    try:
        options = engine().networks.get(BRIDGE).attrs.get("Options") or {}
    except SDK_ERRORS:
        options = {}
    if options.get(BINDING) == "127.0.0.1":
        return None
    return (
        "Swarm publishes on every address of a node, so others on the network reach these models without a password."
        f" To keep them to this host: leave the swarm, `docker network rm {BRIDGE}`, `{MAKE_LOOPBACK_BRIDGE}`, and init"
        " it again."
    )


class SwarmStack(Stack):
    """One Swarm stack: its file under the state folder, and the commands on it."""

    def __init__(self, project: str) -> None:
        super().__init__(project)
        self.file = self.folder / "stack.yaml"

    def _document(self, plan: StackPlan) -> dict[str, Any]:
        document: dict[str, Any] = escaped(swarm_document(plan, _version_of(plan.token_file)))
        return document

    def _secret_services(self, plan: StackPlan) -> dict[str, Any]:
        return swarm_secret_services(plan)

    def deploy(self, *, local_images: bool) -> None:
        """Hand the file to Swarm, which changes what differs. Raises MissingError with Swarm's complaint.

        local_images: they are in no registry that Swarm could ask for their digest.
        """
        resolve = "never" if local_images else "changed"
        files = [word for path in self.files() for word in ("--compose-file", str(path))]
        answer = docker_command(["stack", "deploy", *files, "--resolve-image", resolve, self.project], 300)
        if answer.returncode != 0:
            lines = [line for line in (answer.stderr + answer.stdout).splitlines() if line.strip()]
            raise MissingError(f"Swarm does not take the stack: {lines[-1] if lines else 'no reason given'}")

    def full_name(self, service: str) -> str:
        return f"{self.project}_{service}"

    def service_id(self, service: str) -> str | None:
        """None when Swarm does not know it."""
        try:
            found = engine().api.services(filters={"name": self.full_name(service)})
        except SDK_ERRORS as error:
            raise lost(error) from error
        return next((each["ID"] for each in found if each["Spec"]["Name"] == self.full_name(service)), None)

    def tasks(self, service: str) -> list[dict[str, Any]]:
        """Of this service, the newest first."""
        try:
            found: list[dict[str, Any]] = engine().api.tasks(filters={"service": self.full_name(service)})
        except GONE:
            return []
        except SDK_ERRORS as error:
            raise lost(error) from error
        return sorted(found, key=lambda task: str(task["CreatedAt"]), reverse=True)

    def containers(self, service: str | None = None) -> list[Any]:
        """Those on this node, running or not."""
        label = f"com.docker.stack.namespace={self.project}"
        wanted = [label] if service is None else [f"com.docker.swarm.service.name={self.full_name(service)}"]
        try:
            found: list[Any] = engine().containers.list(all=True, filters={"label": wanted}, ignore_removed=True)
        except SDK_ERRORS as error:
            raise lost(error) from error
        return found

    def remove(self, service: str, grace: float) -> None:
        """Stop and remove one service; the network and the file too when it was the last."""
        docker_command(["service", "rm", self.full_name(service)], 60)
        self._wait_for_end(service, grace)
        self._forget_service(service)

    def _wait_for_end(self, service: str, grace: float) -> None:
        """Swarm gives a container its own grace period; what is still there after ours is killed."""
        deadline = time.monotonic() + grace
        while left := [each for each in self.containers(service) if each.status == "running"]:
            if time.monotonic() > deadline:
                for container in left:
                    with contextlib.suppress(*SDK_ERRORS):
                        container.kill()
            time.sleep(0.1)
        self._remove_ended(self.containers(service))

    def _remove_ended(self, containers: Sequence[Any]) -> None:
        for container in containers:
            if container.status not in ("running", "removing"):
                with contextlib.suppress(*SDK_ERRORS):
                    container.remove(force=True)

    def remove_rest(self) -> None:
        """What is left of the stack: networks, secrets, configurations. Volumes stay."""
        docker_command(["stack", "rm", self.project], 60)
        deadline = time.monotonic() + _GONE_WITHIN
        # Swarm answers before it is done; a task that it was about to start may even get its container now.
        while (self.containers() or self._has_network()) and time.monotonic() < deadline:
            self._remove_ended(self.containers())
            time.sleep(0.1)
        self.forget()

    def _has_network(self) -> bool:
        label = f"com.docker.stack.namespace={self.project}"
        try:
            return bool(engine().networks.list(filters={"label": label}))
        except SDK_ERRORS as error:
            raise lost(error) from error


def _version_of(token_file: str | None) -> str:
    """A short hash of the token, by which a new one is told from the old."""
    if token_file is None:
        return ""
    return hashlib.sha256(Path(token_file).read_bytes()).hexdigest()[:8]


class Deployment:
    """What is handed to Swarm at once: all services of one `up`."""

    def __init__(self, stack: SwarmStack, plan: StackPlan, prepare: Callable[[], None] | None) -> None:
        self.stack, self.plan, self._prepare = stack, plan, prepare
        self.begun = False

    def begin(self) -> None:
        """Raises MissingError."""
        if self.begun:
            return
        self.begun = True
        require_swarm()
        for each in self.plan.containers:
            require_free_port(each.host_port)
        if self._prepare is not None:
            self._prepare()
        self.stack.write(self.plan)
        self.stack.deploy(local_images=any(_is_local(each.image) for each in self.plan.containers))


def _is_local(image: str) -> bool:
    return image.startswith("harness-")


class SwarmService(ComposeService):
    """Service of one Swarm service with one task at a time. `keep()` leaves it to run when the harness ends."""

    def __init__(self, record: memory.ServiceRecord, deployment: Deployment | None = None) -> None:
        super().__init__(record)
        self.stack: SwarmStack = SwarmStack(record.marker)
        self._deployment = deployment
        self._started = deployment is None
        self._lines: _Lines | None = None
        self._unplaced_since: float | None = None

    def start(self) -> None:
        """Raises MissingError when there is no swarm, or the port is not free."""
        assert self._deployment is not None
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._record = replace(self._record, started_at=now, **memory.owned_by_us())
        self._started = True
        memory.remember(replace(self._record, name=self._record_name()))
        self._deployment.begin()

    def state(self) -> State:
        """Of the newest task. While we wait for its first answer a task that ended is the end, although Swarm would try
        again.
        """
        tasks = self.stack.tasks(self._record.service)
        if not tasks:
            known = self.stack.service_id(self._record.service) is not None  # it has just been told
            return State(known, detail="waiting for a node" if known else "Swarm does not know it")
        waiting = self._deployment is not None and self._record.attached is not None
        task = next((each for each in tasks if each["Status"]["State"] in ("failed", "rejected", "complete")), tasks[0])
        return self._state_of_task(task if waiting else tasks[0])

    def _state_of_task(self, task: Mapping[str, Any]) -> State:
        status = task["Status"]
        word, complaint = str(status["State"]), str(status.get("Err") or "")
        self._find_node(task)
        if word not in _ENDED:
            if word == "pending" and "no suitable node" in complaint:
                self._wait_for_node(complaint)
            return State(True, detail=_WORDS.get(word, "starting"))
        container = status.get("ContainerStatus") or {}
        if self._lines is not None:
            self._lines.settle()
        if complaint and not container.get("ExitCode"):
            self._told.append(complaint)
        code = container.get("ExitCode") if container.get("ContainerID") else None
        hit = self._hit_memory_limit(str(container.get("ContainerID") or ""))
        return State(False, code, complaint or f"ended with exit code {code}", memory_limit_hit=hit)

    def _wait_for_node(self, complaint: str) -> None:
        """What was taken down a moment ago holds its port and GPU for a while. Raises MissingError after that."""
        now = time.monotonic()
        self._unplaced_since = self._unplaced_since or now
        if self._deployment is None or now - self._unplaced_since < _PLACED_WITHIN:
            return
        raise MissingError(
            f"no node of the swarm can take it ({complaint})",
            where=self.name,
            advice=f"`docker node ls` shows them; GPUs must be announced as {GPU_RESOURCE}.",
        )

    def _find_node(self, task: Mapping[str, Any]) -> None:
        """A port is published by the node that runs the task; on this one it is reached by 127.0.0.1."""
        node = task.get("NodeID")
        try:
            if not node or node == engine().info()["Swarm"]["NodeID"]:
                return
            address = engine().api.inspect_node(node)["Status"]["Addr"]
        except SDK_ERRORS as error:
            raise lost(error) from error
        self._record = replace(self._record, url=f"http://{address}:{self._port()}")
        self.endpoint = Endpoint(self._record.url)

    def _hit_memory_limit(self, container: str) -> bool:
        try:
            return bool(container and engine().containers.get(container).attrs["State"].get("OOMKilled"))
        except SDK_ERRORS:
            return False

    def log_lines(self) -> Iterator[str]:
        if self._lines is None and (identity := self.stack.service_id(self._record.service)) is not None:
            fresh = self._deployment is not None and self._record.attached is not None
            if not fresh:  # found again: all that was said so far is there at once
                yield from _whole_log(identity)
            self._lines = _Lines(identity, 0 if fresh else int(time.time()))
        if self._lines is not None:
            yield from self._lines.take()
        while self._told:
            yield plain_line(self._told.popleft())

    def all_log_lines(self) -> Iterator[str]:
        identity = self.stack.service_id(self._record.service)
        return iter(()) if identity is None else _whole_log(identity)

    def downloaded_bytes(self) -> int | None:
        """Bytes of this model in its cache on this node; None elsewhere."""
        self._container = next(iter(self.stack.containers(self._record.service)), None)
        return super().downloaded_bytes()

    def stop(self, grace: float = 100.0) -> None:
        """Stop and remove the service; network and secret too when it was the last of its stack."""
        if not self._started:
            return
        self._stack_text = self.facts().stack
        self.stack.remove(self._record.service, grace_of(grace, self._record))
        self._lines = None
        memory.forget(self._record_name())
        release_port(self._port())

    def settle(self) -> None:
        """Wait until Swarm sends requests for its name to it, which it does once its own health check saw an answer."""
        deadline = time.monotonic() + _SETTLED_WITHIN
        while not any(task["Status"]["State"] == "running" for task in self.stack.tasks(self._record.service)[:1]):
            if time.monotonic() > deadline:
                raise ServiceError("answers, but Swarm's health check does not see it", where=self.name)
            time.sleep(0.2)


# What the user reads of a task's state; the other states before `running` are `starting`.
_WORDS = {"pending": "waiting for a node", "preparing": "pulling the image", "running": "running"}


class _Lines:
    """Drains a service's log all the time; keeps the last lines until they are taken."""

    def __init__(self, identity: str, since: int) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._heard = time.monotonic()
        self._identity, self._since = identity, since
        threading.Thread(target=self._run, name=f"log {identity[:12]}", daemon=True).start()

    def take(self) -> Iterator[str]:
        while self._lines:
            yield self._lines.popleft()

    def settle(self) -> None:
        """Wait for the last lines of a task that has ended; the log itself goes on with the next one."""
        deadline = time.monotonic() + _LAST_LINES_WITHIN
        while time.monotonic() < min(deadline, self._heard + _QUIET):
            time.sleep(0.05)

    def _run(self) -> None:
        rest = b""
        with contextlib.suppress(*SDK_ERRORS):  # the service or the engine is gone; state() says so
            for chunk in _log(self._identity, follow=True, since=self._since):
                *whole, rest = (rest + chunk).split(b"\n")
                self._lines.extend(plain_line(line.decode("utf-8", "replace")) for line in whole)
                self._heard = time.monotonic()
        if rest:
            self._lines.append(plain_line(rest.decode("utf-8", "replace")))


def _log(identity: str, *, follow: bool, since: int = 0) -> Iterator[bytes]:
    chunks: Iterator[bytes] = engine().api.service_logs(
        identity, follow=follow, stdout=True, stderr=True, since=since, is_tty=False
    )
    return chunks


def _whole_log(identity: str) -> Iterator[str]:
    try:
        text = b"".join(_log(identity, follow=False))
    except SDK_ERRORS:
        return
    yield from (plain_line(line.decode("utf-8", "replace")) for line in text.split(b"\n") if line)


def swarm_services(plan: StackPlan, prepare: Callable[[], None] | None = None) -> list[SwarmService]:
    """The services of a stack that is not yet started; starting one starts all. prepare: makes local images first."""
    deployment = Deployment(SwarmStack(plan.project), plan, prepare)
    records = [record_of(each, plan, "swarm") for each in plan.containers]
    named = [replace(each, service=swarm_name(each.service), digest=swarm_digest(each.digest)) for each in records]
    return [SwarmService(record, deployment) for record in named]


def swarm_digest(digest: str) -> str:
    """A model that was up by Compose is another service."""
    return f"swarm-{digest}"


def services_for(
    models: Sequence[Model],
    *,
    project: str,
    emulate: bool,
    changes: Mapping[str, Mapping[str, str]] | None = None,
    revisions: Mapping[str, str] | None = None,
) -> list[SwarmService]:
    """Services of one Swarm stack, not yet started. Which node has the GPUs is Swarm's to know, not this machine's.

    Raises MissingError without a swarm.
    """
    require_swarm()
    image = emulator_image.emulator_image() if emulate else None
    here = replace(machine.machine_for(models, to_start=True), gpus=None)
    plan = plan_stack(
        models, project=project_of(project), machine=here, emulator_image=image, changes=changes, revisions=revisions
    )
    prepare = partial(emulator_image.ensure, image, lambda text: None) if image is not None else None
    return swarm_services(plan, prepare)


def is_swarm_project(project: str) -> bool:
    return project.endswith(SUFFIX)
