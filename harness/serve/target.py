"""Target: what a command works on, a model of the catalogue on some runtime or somebody else's service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.input_files import as_type
from harness.redaction import REDACTED, is_secret, redact

Runtime = Literal["compose", "local", "embedded", "swarm"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """The options that up, probe and bench share. Exactly one of model and url is set where one is required.

    runtime: None chooses `compose` where a GPU and Docker are there. emulate: with compose, run the emulator's image.
    launcher: the program of `local`. gpu: overrides the entry's. catalogue: path of models.yaml; None takes the one of
    the working directory, else the packaged one. changes: KEY=VALUE over the entry, which then has the name `called`.
    try_unsupported: start also what the engine's release is known not to serve.
    """

    model: str | None = None
    url: str | None = None
    runtime: Runtime | None = None
    launcher: str | None = None
    emulate: bool = False
    gpu: str | None = None
    catalogue: str | None = None
    model_name: str | None = None
    changes: tuple[str, ...] = ()
    called: str | None = None
    try_unsupported: bool = False

    def as_dict(self) -> dict[str, Any]:
        """What was said, without secrets: `target` of a manifest. `target_from` reads it again."""
        told = {**asdict(self), "changes": [_without_secret(each) for each in self.changes]}
        return {name: value for name, value in told.items() if value not in (None, False, [])}


def target_from(document: Mapping[str, Any], where: object) -> Target:
    """The reverse of as_dict. Raises UsageError."""
    return as_type(Target, document, where)


def _without_secret(change: str) -> str:
    name, _, value = change.partition("=")
    return f"{name}={REDACTED}" if is_secret(name, value) else redact(change)
