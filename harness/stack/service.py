"""Service: one running instance of an engine, in a container, a local process, or somebody else's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from harness.engines.endpoint import Endpoint
from harness.stack.state import ServiceRecord


@dataclass(frozen=True)
class State:
    """What the runtime says of the process. exit_code: None while it runs, and where nobody can tell; killed by
    signal n is 128 + n. detail: the runtime's own word for what it is doing, progress: how far it is with that.
    preparing: what is to run is still being fetched or built. memory_limit_hit: the container's memory limit ended it.
    """

    running: bool
    exit_code: int | None = None
    detail: str | None = None
    memory_limit_hit: bool = False
    progress: str = ""
    preparing: bool = False


@dataclass(frozen=True)
class ServiceFacts:
    """What the manifest records of how a service was run. args: behind the command. environment holds no secret."""

    runtime: str
    engine: str
    engine_version: str | None = None
    image: str | None = None
    image_digest: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    stack: str = ""


class Service(Protocol):
    """Start, look, read the log, stop. Implementations: compose, local, embedded, url."""

    name: str
    endpoint: Endpoint

    def start(self) -> None:
        """Start it and return at once; raises MissingError or ServiceError if it cannot even be launched."""
        ...

    def state(self) -> State: ...

    def log_lines(self) -> Iterator[str]:
        """The log lines that came since the last call, without colours; the log is drained all the time."""
        ...

    def stop(self, grace: float = 100.0) -> None:
        """Ask it to end, wait `grace` seconds, then kill it and all it started. Harmless when it is gone."""
        ...

    def facts(self) -> ServiceFacts: ...


class OwnService(Service, Protocol):
    """A service that the harness itself started, now or earlier."""

    @property
    def record(self) -> ServiceRecord | None:
        """What is remembered of it; None before it was started."""
        ...

    @property
    def digest(self) -> str:
        """Hash of what was asked for; another one means that the entry has changed."""
        ...

    def keep(self, limits: Mapping[str, int] | None = None, predicted: Mapping[str, int] | None = None) -> None:
        """From now on it outlives the harness; `status`, `logs` and `down` find it under its name."""
        ...

    def all_log_lines(self) -> Iterator[str]:
        """The whole log from its beginning, wherever `log_lines` has come to."""
        ...
