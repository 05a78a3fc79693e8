"""One container of a Compose project, from its start to its end."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import docker
import docker.errors
import docker.models.containers

from harness.engines import ENGINES, engine_named
from harness.engines.base import Invocation
from harness.engines.endpoint import Endpoint
from harness.errors import HarnessError
from harness.redaction import arguments_without_secrets, without_secrets
from harness.stack import state as memory
from harness.stack.compose_stack import SHARED_CACHE, Stack
from harness.stack.docker import GONE, SDK_ERRORS, lost, require_compose, require_gpu_runtime
from harness.stack.docker_images import image_digest, pull
from harness.stack.launch import address_for_us
from harness.stack.log_text import plain_line
from harness.stack.plan import ServicePlan, StackPlan
from harness.stack.ports import release_port, require_free_port
from harness.stack.service import ServiceFacts, State
from harness.stack.shutdown import whole_grace
from harness.stack.sidecar import Sidecar

_KEPT_LINES = 50_000


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
            self.complaints = [line for line in lines if line.strip() and SHARED_CACHE not in line]


class ComposeService:
    """Service of one container. `keep()` leaves it to run when the harness ends."""

    def __init__(self, record: memory.ServiceRecord, bring_up: BringUp | None = None) -> None:
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
    def record(self) -> memory.ServiceRecord | None:
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
            image_digest=image_digest(self._record.image),
            args=self._record.args,
            environment=self._record.environment,
            stack=self._stack_text or self.stack.text_of(self._record.service),
        )

    def _record_name(self) -> str:
        if self._record.attached is None:
            return self.name
        return memory.attached_name(self.name, self.stack.project.rpartition("-")[2])


def grace_of(grace: float, record: memory.ServiceRecord) -> float:
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


def record_of(service: ServicePlan | Sidecar, plan: StackPlan, runtime: str = "compose") -> memory.ServiceRecord:
    return memory.ServiceRecord(
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
