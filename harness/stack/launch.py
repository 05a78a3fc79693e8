"""Model + options -> what to start as a process of this host. Looks up a program and free ports; starts nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from harness.catalog.models import Model
from harness.catalog.schema import DEFAULT_ENGINE
from harness.catalog.shapes import shape_for_emulator
from harness.catalog.version import Version
from harness.engines import engine_of
from harness.engines.base import Engine, Place
from harness.errors import UsageError
from harness.stack.ports import free_port
from harness.stack.process import Launch, emulator_command, version_output

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
DEFAULT_GPU = "L4"  # what the emulator plays where neither the entry nor the command line names a GPU


def local_launch(
    model: Model,
    *,
    program: str | None = None,
    port: int | None = None,
    changes: Mapping[str, str] | None = None,
    revision: str | None = None,
) -> Launch:
    """A program of this host. program: None takes the entry's `engine.command`, else the engine's own.

    It is asked for its version where it has `--version`; options are spelled for that one, else for the entry's.
    Raises UsageError for an option that this version does not know.
    """
    engine = engine_of(model)
    command = (_resolve(program),) if program else model.engine.command or engine.program
    told = _told_version(engine, command)
    scratch = f"/tmp/harness-{uuid.uuid4().hex[:8]}"
    asked_for = _Launch(model, "local", engine, command, told or model.engine.version, model.gpu, scratch)
    return asked_for.launch(port, changes, revision)


def embedded_launch(
    model: Model,
    *,
    gpu: str | None = None,
    port: int | None = None,
    changes: Mapping[str, str] | None = None,
    revision: str | None = None,
) -> Launch:
    """The emulator in this Python, playing this model on this GPU."""
    engine = engine_of(model)
    face = () if engine.name == DEFAULT_ENGINE else ("--engine", engine.name)
    name = gpu or model.gpu or DEFAULT_GPU
    asked_for = _Launch(model, "embedded", engine, (*emulator_command(), *face), model.engine.version, name, None)
    return asked_for.launch(port, changes, revision)


def _told_version(engine: Engine, command: tuple[str, ...]) -> str | None:
    """What the program says of its release; None where it has no `--version`, or is a script with arguments."""
    alone = len(command) == 1 or command == engine.program
    if not alone or not shutil.which(command[0]):
        return None
    return engine.told_version(version_output(command[0]))


@dataclass(frozen=True)
class _Launch:
    """What is to be started. scratch: beginning of the paths that are its own; None where it needs none."""

    model: Model
    runtime: str
    engine: Engine
    command: tuple[str, ...]
    version: str
    gpu: str | None
    scratch: str | None

    def launch(self, port: int | None, changes: Mapping[str, str] | None, revision: str | None) -> Launch:
        model = self.model
        if model.listen not in (LOOPBACK, EVERYWHERE):
            raise UsageError(
                f"a process of this host listens on {LOOPBACK} or on {EVERYWHERE}, not on {model.listen}",
                where=model.name,
                advice="Change the entry's `listen`, or use --runtime compose.",
            )
        number = port or model.port or free_port()
        # The engine runs in the same folder, but knows no `~`.
        path = os.path.abspath(os.path.expanduser(model.repo)) if model.is_local else None
        place = Place(model.listen, number, path, scratch=self.scratch, free_port=free_port)
        release = self.engine.version(self.version)
        asked_for = self.engine.invocation(model, release, place, revision=revision, changes=changes)
        environment = dict(asked_for.environment)
        if self.runtime == "embedded":
            environment["HARNESS_EMULATOR_GPU"] = self.gpu or DEFAULT_GPU
            environment |= shape_for_emulator(model.shape)
        return Launch(
            name=model.name,
            runtime=self.runtime,
            command=self.command,
            args=asked_for.args,
            options=environment,
            port=number,
            engine=self.engine.name,
            engine_version=self.version,
            forget=self.engine.forgotten_variables(),
            repo=model.repo,
            gpu=self.gpu,
            digest=self._digest(release, changes),
            scratch=(f"{self.scratch}*",) if self.scratch else (),
        )

    def _digest(self, release: Version, changes: Mapping[str, str] | None) -> str:
        """Of what does not differ from start to start."""
        lasting = self.engine.invocation(self.model, release, Place("", 0), changes=changes)
        options = {name: value for name, value in lasting.environment.items() if name not in ("HOSTNAME", "PORT")}
        if self.runtime == "embedded":
            options["HARNESS_EMULATOR_GPU"] = self.gpu or DEFAULT_GPU
            options |= shape_for_emulator(self.model.shape)
        return digest_of(
            self.runtime, self.command, asked(options, self.model), *([lasting.args] if lasting.args else [])
        )


# Differ from start to start without a meaning for the model. A revision counts only where the entry pins one.
_CHANGING = frozenset({"SHARD_UDS_PATH", "MASTER_PORT", "PROMETHEUS_PORT", "PORT", "REVISION"})


def asked(options: Mapping[str, str], model: Model) -> dict[str, object]:
    """What of a start is the entry's own will: the part that a digest is made of."""
    lasting = {name: value for name, value in options.items() if name not in _CHANGING}
    elsewhere = {} if model.listen == LOOPBACK else {"listen": model.listen}
    return {**lasting, "revision": model.revision, "port": model.port, **elsewhere}


def address_for_us(listen: str) -> str:
    """Where this host itself reaches what listens on an address."""
    return LOOPBACK if listen == EVERYWHERE else listen


def digest_of(*parts: object) -> str:
    """A short hash of what was asked for; equal exactly when nothing changed."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode()).hexdigest()[:16]


def _resolve(program: str) -> str:
    """`engine.py` in the working directory may be named without `./`."""
    if os.sep not in program and shutil.which(program) is None and os.path.isfile(program):
        return os.path.join(os.curdir, program)
    return program
