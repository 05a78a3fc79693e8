"""A Compose project of ours: its files, and its containers together."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
import docker.errors
import docker.models.containers
import yaml

from harness.measure.run_folder import naming
from harness.stack import locks
from harness.stack import state as memory
from harness.stack.docker import GONE, SDK_ERRORS, docker_command, engine, lost
from harness.stack.document import LABEL, to_yaml
from harness.stack.plan import StackPlan
from harness.stack.render_compose import secret_services, to_compose
from harness.stack.sidecar import stack_files


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
                with naming(self.folder / each.name):
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


SHARED_CACHE = "already exists but was created for project"  # Compose's warning of a cache that several stacks share


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
