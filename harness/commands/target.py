"""What a command works on: a model of the catalogue on some runtime, or somebody else's service."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from harness.catalog.gpus import find_gpu
from harness.catalog.models import Model
from harness.errors import UsageError
from harness.stack.launch import embedded_launch, local_launch
from harness.stack.process import ProcessService
from harness.stack.service import Service

Runtime = Literal["compose", "local", "embedded", "swarm"]


@dataclass(frozen=True)
class Target:
    """The options that up, probe and bench share. Exactly one of model and url is set where one is required.

    runtime: None chooses `compose` where a GPU and Docker are there. emulate: with compose, run the emulator's image.
    launcher: the program of `local`. gpu: overrides the entry's. catalogue: path of models.yaml; None takes the one of
    the working directory, else the packaged one.
    """

    model: str | None = None
    url: str | None = None
    runtime: Runtime | None = None
    launcher: str | None = None
    emulate: bool = False
    gpu: str | None = None
    catalogue: str | None = None
    model_name: str | None = None


def choose_runtime(target: Target, model: Model, say: Callable[[str], None] = lambda text: None) -> Runtime:
    """The runtime that was asked for; else what the other options imply; else what this machine has."""
    if target.runtime is not None:
        if target.launcher and target.runtime != "local":
            raise UsageError(f"--launcher belongs to --runtime local, not to {target.runtime}")
        if target.emulate and target.runtime not in ("compose", "swarm"):
            raise UsageError(f"--emulate belongs to --runtime compose, not to {target.runtime}")
        return target.runtime
    if target.launcher or model.engine.command:
        return "local"
    if target.emulate:
        return "compose"
    if has_gpu() and shutil.which("docker"):
        return "compose"
    say("no GPU and Docker here: the embedded emulator serves the model, and its figures are a simulation's")
    return "embedded"


def has_gpu() -> bool:
    """Whether nvidia-smi lists at least one GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and listed.stdout.startswith(b"GPU ")


def service_for(
    model: Model,
    target: Target,
    *,
    changes: Mapping[str, str] | None = None,
    port: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Service:
    """A service of this model as the target says, not yet started; each call gives a new one.

    changes: the engine's environment variables that differ from the entry's; an empty value takes one away.
    port: of 127.0.0.1; None takes the entry's, else a free one.
    """
    if target.gpu is not None:
        model = replace(model, gpu=find_gpu(target.gpu).name)
    runtime = choose_runtime(target, model, say)
    if runtime == "local":
        return ProcessService(local_launch(model, program=target.launcher, port=port, changes=changes))
    if runtime == "embedded":
        return ProcessService(embedded_launch(model, port=port, changes=changes))
    raise UsageError(f"runtime {runtime} is not there yet")
