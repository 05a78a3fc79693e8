"""A container beside the models: the gateway, Prometheus, Grafana. What it is, for all render targets.

What is the same everywhere stands in Compose's own words in a file of compose/; what depends on the stack is put in as
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
class Companion:
    """name: of the service in the stack. engine: the program. body: its part of the file in compose/.

    port: that it listens on in its container. host_port: where `listen`, an address of the host, shows it.
    """

    name: str
    engine: str
    body: Mapping[str, Any]
    port: int
    host_port: int
    files: tuple[ConfigFile, ...] = ()

    # Shared with ServicePlan, for whoever starts containers. A companion serves no model and holds no GPU.
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
        return digest_of("companion", self.body, [[each.name, each.target, each.text] for each in self.files])


def body_of(name: str, file: str, image: str | None = None) -> dict[str, Any]:
    """The part of compose/<file> of this name; image: another one than the file's. Raises UsageError without it."""
    document = yaml.safe_load(compose_file(file))
    body = document.get(name) if isinstance(document, dict) else None
    if not isinstance(body, dict) or not isinstance(body.get("image"), str):
        raise UsageError(
            f"compose/{file} has no `{name}` with an `image`", advice="See the packaged file for its form."
        )
    return body if image is None else {**body, "image": image}


def compose_body(companion: Companion, project: str) -> dict[str, Any]:
    """The companion as a service of a Compose document."""
    body = {key: deepcopy(value) for key, value in companion.body.items() if key != "x-listen"}
    body["ports"] = [{"target": companion.port, "published": str(companion.host_port), "host_ip": companion.listen}]
    body["labels"] = labels(companion, project)
    if companion.files:
        body["configs"] = [{"source": each.name, "target": each.target} for each in companion.files]
    return body


def labels(companion: Companion, project: str) -> dict[str, str]:
    facts = {"project": project, "companion": companion.engine, "digest": companion.digest}
    return {f"{LABEL}{name}": value for name, value in facts.items()}


def compose_configs(companions: Sequence[Companion]) -> dict[str, Any]:
    """The document's `configs`: files beside it. Compose mounts them, so that a read-only container can have them."""
    return {each.name: {"file": f"./{each.name}"} for each in stack_files(companions)}


def stack_files(companions: Sequence[Companion]) -> list[ConfigFile]:
    """All files that lie beside the stack's own."""
    return [each for companion in companions for each in companion.files]


def named_volumes(companions: Sequence[Companion]) -> list[str]:
    """Volumes that the bodies name."""
    mounts = [mount for companion in companions for mount in companion.body.get("volumes", [])]
    return [mount["source"] for mount in mounts if isinstance(mount, dict) and mount.get("type") == "volume"]
