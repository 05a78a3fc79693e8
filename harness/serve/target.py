"""What a command works on: a model of the catalogue on some runtime, or somebody else's service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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
