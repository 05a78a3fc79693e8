"""A container beside the models: the gateway, Prometheus, Grafana. What it is, for all render targets.

What is the same everywhere is, in Compose's own words, in a file of compose/; what depends on the stack is put in as
configuration files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import yaml

from harness.errors import UsageError
from harness.stack.document import LABEL, compose_file
from harness.stack.launch import LOOPBACK, digest_of

# By program: the path that answers 200 when it serves.
HEALTH_PATHS: Mapping[str, str] = {
    "litellm": "/health/liveliness",
    "prometheus": "/-/ready",
    "grafana": "/api/health",
}


@dataclass(frozen=True)
class ConfigFile:
    """A file that lies beside the stack's own and is mounted read-only. target: its place in the container."""

    name: str
    target: str
    text: str


@dataclass(frozen=True)
class Sidecar:
    """name: of the service in the stack. engine: the program. body: its part of the file in compose/.

    port: that it listens on in its container. host_port: where `listen`, an address of the host, shows it.
    """

    name: str
    engine: str
    body: Mapping[str, Any]
    port: int
    host_port: int
    files: tuple[ConfigFile, ...] = ()

    # Shared with ServicePlan, for whoever starts containers. A sidecar serves no model and holds no GPU.
    model = ""
    repo = ""
    gpu = None
    emulated = False
    devices: tuple[str, ...] = ()
    on_nvidia = False

    @property
    def listen(self) -> str:
        """127.0.0.1, unless the file in compose/ says otherwise."""
        return str(self.body.get("x-listen", LOOPBACK))

    @property
    def image(self) -> str:
        return str(self.body["image"])

    @property
    def engine_version(self) -> str | None:
        """The image's tag, where that is a version."""
        tag = self.image.rpartition("/")[2].partition(":")[2].removeprefix("v")
        return tag if re.match(r"\d+\.\d", tag) else None

    @property
    def environment(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.body.get("environment", {}).items()}

    @property
    def digest(self) -> str:
        """Of all that matters to it; another one means that it must be started anew."""
        return digest_of("sidecar", self.body, [[each.name, each.target, each.text] for each in self.files])


def body_of(name: str, file: str, image: str | None = None) -> dict[str, Any]:
    """The part of compose/<file> of this name; image: another one than the file's. Raises UsageError without it."""
    document = yaml.safe_load(compose_file(file))
    body = document.get(name) if isinstance(document, dict) else None
    if not isinstance(body, dict) or not isinstance(body.get("image"), str):
        raise UsageError(
            f"compose/{file} has no `{name}` with an `image`", advice="See the packaged file for its form."
        )
    return body if image is None else {**body, "image": image}


def compose_body(sidecar: Sidecar, project: str) -> dict[str, Any]:
    """The sidecar as a service of a Compose document."""
    body = {key: deepcopy(value) for key, value in sidecar.body.items() if key != "x-listen"}
    body["ports"] = [{"target": sidecar.port, "published": str(sidecar.host_port), "host_ip": sidecar.listen}]
    body["labels"] = labels(sidecar, project)
    if sidecar.files:
        body["configs"] = [{"source": each.name, "target": each.target} for each in sidecar.files]
    return body


def labels(sidecar: Sidecar, project: str) -> dict[str, str]:
    facts = {"project": project, "sidecar": sidecar.engine, "digest": sidecar.digest}
    return {f"{LABEL}{name}": value for name, value in facts.items()}


def compose_configs(sidecars: Sequence[Sidecar]) -> dict[str, Any]:
    """The document's `configs`: files beside it. Compose mounts them, so that a read-only container can have them."""
    return {each.name: {"file": f"./{each.name}"} for each in stack_files(sidecars)}


def stack_files(sidecars: Sequence[Sidecar]) -> list[ConfigFile]:
    """All files that lie beside the stack's own."""
    return [each for sidecar in sidecars for each in sidecar.files]


def named_volumes(sidecars: Sequence[Sidecar]) -> list[str]:
    """Volumes that the bodies name."""
    mounts = [mount for sidecar in sidecars for mount in sidecar.body.get("volumes", [])]
    return [mount["source"] for mount in mounts if isinstance(mount, dict) and mount.get("type") == "volume"]
