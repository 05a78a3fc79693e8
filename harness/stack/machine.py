"""What this host has and what of it is free: GPUs, ports, the Hub token. From here a plan gets its Machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.catalog.models import Model
from harness.engines.endpoint import Secret
from harness.redaction import remember_secret
from harness.stack import state
from harness.stack.plan import FIRST_PORT, Machine, StackPlan, plan_stack
from harness.stack.ports import ports_from
from harness.units import MIB

if TYPE_CHECKING:
    from harness.stack import compose_service


@dataclass(frozen=True)
class GpuHere:
    """One GPU of this host. index: as nvidia-smi counts. Bytes."""

    index: str
    name: str
    memory_bytes: int
    free_bytes: int
    driver: str

    @property
    def in_use(self) -> bool:
        """Whether something has more than a tenth of its memory."""
        return self.free_bytes < 0.9 * self.memory_bytes


def gpus_in_order() -> list[GpuHere]:
    """Those of this host in the order in which models get them: what nobody uses comes first."""
    return sorted(gpus_here(), key=lambda gpu: gpu.in_use)


def gpus_here() -> list[GpuHere]:
    """What nvidia-smi lists; empty without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=index,name,memory.total,memory.free,driver_version", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.stdout.splitlines()]
    return [_gpu(row) for row in rows if len(row) == 5 and row[0].isdigit()] if answer.returncode == 0 else []


def _gpu(row: Sequence[str]) -> GpuHere:
    def mebibytes(text: str) -> int:
        return int(float(text)) * MIB if text.replace(".", "", 1).isdigit() else 0

    return GpuHere(row[0], row[1], mebibytes(row[2]), mebibytes(row[3]), row[4])


def hub_token() -> Secret | None:
    """The token of the environment, else of the Hub's own token file."""
    token = _hub_token()
    if token is not None:
        remember_secret(token.reveal())
    return token


def _hub_token() -> Secret | None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if value := os.environ.get(name, "").strip():
            return Secret(value)
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    path = Path(os.environ.get("HF_TOKEN_PATH") or f"{home}/token").expanduser()
    try:
        value = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return Secret(value) if value else None


def token_file(*, write: bool = True) -> str | None:
    """Where containers get the token from: a file of mode 0600 in the state folder. None without a token."""
    token = hub_token()
    if token is None:
        return None
    path = state.subfolder("secrets") / "hub-token"
    if write:
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(token.reveal())
        # The same file is kept where it is the same token: containers mount it by its place on the disk.
        if path.is_file() and path.read_text(encoding="utf-8") == token.reveal():
            scratch.unlink()
        else:
            scratch.replace(path)
    return str(path)


def machine_for(models: Sequence[Model], *, to_start: bool, used_gpus: Sequence[str] = ()) -> Machine:
    """This host as a plan needs it: free GPUs, free ports for those that ask for none, the token's file.

    to_start: ports are reserved and the token is written.
    """
    here = [gpu.index for gpu in gpus_in_order()]
    unasked = sum(model.replicas for model in models if model.port is None)
    return Machine(
        gpus=tuple(index for index in here if index not in used_gpus) if here else None,
        used=tuple(used_gpus),
        ports=tuple(ports_from(FIRST_PORT, unasked, reserve=to_start)),
        token_file=token_file(write=to_start),
    )


def plan_for(
    models: Sequence[Model],
    *,
    project: str,
    emulate: bool,
    changes: Mapping[str, Mapping[str, str]] | None = None,
    revisions: Mapping[str, str] | None = None,
) -> StackPlan:
    """The stack of these models on this host as it is now. Raises MissingError when too few GPUs are free."""
    from harness.stack import (  # Docker's library takes a moment to load, and may not be needed
        docker,
        emulator_image,
    )

    image = emulator_image.emulator_image() if emulate else None
    machine = machine_for(models, to_start=True, used_gpus=[] if emulate else docker.used_gpus())
    return plan_stack(
        models, project=project, machine=machine, emulator_image=image, changes=changes, revisions=revisions
    )


def plan_on_paper(models: Sequence[Model], *, project: str, emulate: bool, this_machine: bool = True) -> StackPlan:
    """The same stack without asking Docker, for showing and comparing: an idle machine, nothing written.

    this_machine: False where others have the GPUs.
    """
    from harness.stack import emulator_image

    image = emulator_image.emulator_image() if emulate else None
    machine = machine_for(models, to_start=False)
    machine = machine if this_machine else replace(machine, gpus=None)
    return plan_stack(models, project=project, machine=machine, emulator_image=image)


def compose_services_for(
    models: Sequence[Model],
    *,
    project: str,
    emulate: bool,
    changes: Mapping[str, Mapping[str, str]] | None = None,
    revisions: Mapping[str, str] | None = None,
) -> list[compose_service.ComposeService]:
    """Services of one stack, not yet started. Raises MissingError without Docker."""
    from harness.stack import compose_service, docker, emulator_image

    docker.require_compose()
    plan = plan_for(models, project=project, emulate=emulate, changes=changes, revisions=revisions)
    prepare: Callable[[Callable[[str], None]], None] | None = None
    if emulate:
        prepare = partial(emulator_image.ensure, plan.services[0].image)
    return compose_service.compose_services(plan, prepare)
