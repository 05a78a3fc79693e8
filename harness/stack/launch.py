"""Model + options -> what to start as a process of this host. Looks up a program and free ports; starts nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping

from harness.catalog.models import Model
from harness.engines import tgi
from harness.errors import UsageError
from harness.stack.process import Launch, emulator_command, free_port, launcher_version

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
LAUNCHER = "text-generation-launcher"
DEFAULT_GPU = "L4"  # what the emulator plays where neither the entry nor the command line names a GPU


def local_launch(
    model: Model, *, program: str | None = None, port: int | None = None, changes: Mapping[str, str] | None = None
) -> Launch:
    """A launcher of this host. program: None takes the entry's `engine.command`, else `text-generation-launcher`.

    The launcher is asked for its version where it has `--version`; options are spelled for that one, else for the
    entry's. Raises UsageError for an option that this version does not know.
    """
    command = (_resolve(program),) if program else model.engine.command or (LAUNCHER,)
    told = launcher_version(command[0]) if len(command) == 1 and shutil.which(command[0]) else None
    version = tgi.parse_version(told or model.engine.version)
    scratch = f"/tmp/harness-{uuid.uuid4().hex[:8]}"
    options = tgi.options_for(model, version, changes)
    options |= {name: value for name, value in _own_places(version, scratch, model.gpus).items() if name not in options}
    return _launch(model, "local", command, options, port, told or model.engine.version, model.gpu, (f"{scratch}*",))


def embedded_launch(
    model: Model, *, gpu: str | None = None, port: int | None = None, changes: Mapping[str, str] | None = None
) -> Launch:
    """The emulator in this Python, playing this model on this GPU."""
    name = gpu or model.gpu or DEFAULT_GPU
    options = tgi.options_for(model, tgi.parse_version(model.engine.version), changes)
    options["HARNESS_EMULATOR_GPU"] = name
    return _launch(model, "embedded", emulator_command(), options, port, model.engine.version, name, ())


def _launch(
    model: Model,
    runtime: str,
    command: tuple[str, ...],
    options: dict[str, str],
    port: int | None,
    version: str,
    gpu: str | None,
    scratch: tuple[str, ...],
) -> Launch:
    digest = digest_of(runtime, command, asked(options, model))
    if model.is_local:  # the engine runs in the same folder, but knows no `~`
        options["MODEL_ID"] = os.path.abspath(os.path.expanduser(model.repo))
    number = port or model.port or free_port()
    if model.listen not in (LOOPBACK, EVERYWHERE):
        raise UsageError(
            f"a process of this host listens on {LOOPBACK} or on {EVERYWHERE}, not on {model.listen}",
            where=model.name,
            advice="Change the entry's `listen`, or use --runtime compose.",
        )
    options = options | {"HOSTNAME": model.listen, "PORT": str(number)}
    return Launch(
        name=model.name,
        runtime=runtime,
        command=command,
        options=options,
        port=number,
        engine=model.engine.name,
        engine_version=version,
        forget=tgi.forgotten_variables(),
        repo=model.repo,
        gpu=gpu,
        digest=digest,
        scratch=scratch,
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


def _own_places(version: tgi.Version, scratch: str, shards: int) -> dict[str, str]:
    """Sockets and ports that two launchers on one host would otherwise fight for."""
    places = {"SHARD_UDS_PATH": scratch}
    if tgi.OPTIONS["PROMETHEUS_PORT"].known_in(version):
        places["PROMETHEUS_PORT"] = str(free_port())
    if shards > 1:
        places["MASTER_PORT"] = str(free_port())
    return places


def _resolve(program: str) -> str:
    """`engine.py` in the working directory may be named without `./`."""
    if os.sep not in program and shutil.which(program) is None and os.path.isfile(program):
        return os.path.join(os.curdir, program)
    return program
