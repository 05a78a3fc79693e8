"""What was started and may outlive the harness, remembered under `$XDG_STATE_HOME/harness/`.

    services/<name>.json     one service: how it runs, where it answers, and how to find its processes or its stack
    logs/<name>-<id>.out     output of a local process, .err beside it
    stacks/<project>/        the rendered stack of a Compose project
    locks/                   one per entry that is being started and per stack that is being written (stack/locks.py)
    aa/                      how much repeats of one thing differ (drive/aa.py)
    faults/                  tracebacks of faults of harness itself
    secrets/                 files of mode 0600 that containers mount

The folder itself is of mode 0700. A record is written whole and renamed, so a reader never sees half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from harness.errors import MissingError, UsageError
from harness.input_files import as_type, read_json_object
from harness.measure.run_folder import write_atomically

SCHEMA = 1
_LAST_PROCESS = 2**22  # PID_MAX_LIMIT of the kernel (include/linux/threads.h)
_LATEST = 2.0**40  # seconds since 1970
_UNSAFE = re.compile(r"[^a-z0-9_.-]+")


@dataclass(frozen=True)
class ServiceRecord:
    """One started service. model: the entry it serves; several replicas of one have names of their own.

    runtime: compose, swarm, local or embedded. pid, created: the process and the moment it began (seconds since 1970),
    by which a reused process number is told apart; None for containers. marker: the value of HARNESS_SERVICE in the
    environment of all its processes, or the Compose project. digest: hash of what was asked for, to notice a changed
    entry. attached: process number of the harness that will stop it itself, None once it was left to run. args: the
    engine's arguments behind the command. environment: the engine's options, no secrets. service: its name in the
    Compose project. limits: what was in force when it became ready, because the log that says so may be gone later.
    predicted: the same as predicted before the start.
    """

    name: str
    runtime: str
    url: str
    model: str = ""
    engine: str = "tgi"
    engine_version: str | None = None
    repo: str = ""
    gpu: str | None = None
    emulated: bool = False
    pid: int | None = None
    created: float | None = None
    marker: str = ""
    digest: str = ""
    attached: int | None = None
    attached_created: float | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    image: str | None = None
    log: str | None = None
    service: str = ""
    limits: dict[str, int] = field(default_factory=dict)
    predicted: dict[str, int] = field(default_factory=dict)
    started_at: str = ""
    schema: int = SCHEMA


def state_folder() -> Path:
    """`$XDG_STATE_HOME/harness`, by default `~/.local/state/harness`; made when it is not there."""
    base = os.environ.get("XDG_STATE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    folder = root / "harness"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise MissingError(
            f"cannot make the state folder: {error.strerror}", where=str(folder), advice="Set XDG_STATE_HOME."
        ) from error
    return folder


def subfolder(name: str) -> Path:
    folder = state_folder() / name
    folder.mkdir(exist_ok=True, mode=0o700)
    return folder


def safe_name(text: str) -> str:
    """Lower case, and only what file names, Compose projects and host names may all hold: `a/../b: c` -> `a-b-c`."""
    plain = _UNSAFE.sub("-", text.lower())
    return re.sub(r"[-_.]{2,}", "-", plain).strip("-_.")[:48].strip("-_.") or "model"


def attached_name(name: str, start: str) -> str:
    """Attached services have a name of their own: they never hide one that was left running.

    start: what tells this start from others. A name that has it already, because it was found again, stays.
    """
    return name if name.endswith(f"-{start}") else f"{name[:30]}-{start}"


def remember(record: ServiceRecord) -> None:
    """Write or replace the record of this name."""
    write_atomically(path_of(record.name), (json.dumps(asdict(record), indent=1) + "\n").encode())


def forget(name: str) -> None:
    path_of(name).unlink(missing_ok=True)


def recall(name: str) -> ServiceRecord | None:
    """The record of this name; None when there is none that can be read."""
    try:
        document = read_json_object(path_of(name))
        record = as_type(ServiceRecord, document, path_of(name)) if document.get("schema") == SCHEMA else None
    except UsageError:  # damaged, or written by another version with other fields
        return None
    return record if record is not None and _can_be(record) else None


def _can_be(record: ServiceRecord) -> bool:
    """Whether there can be such processes and files: what is damaged must not end whoever looks for them, nor another's
    process.
    """
    numbers = [each for each in (record.pid, record.attached) if each is not None]
    moments = [each for each in (record.created, record.attached_created) if each is not None]
    texts = (record.name, record.log or "", record.marker, record.service, record.url)
    return (
        record.runtime in ("compose", "swarm", "local", "embedded")
        and re.fullmatch(r"https?://\S+:\d{1,5}", record.url) is not None
        and all(1 < each <= _LAST_PROCESS for each in numbers)
        and all(0 <= each < _LATEST for each in moments)
        and not any("\0" in each for each in texts)
    )


def recall_all() -> list[ServiceRecord]:
    """All records, by name."""
    names = sorted(path.stem for path in subfolder("services").glob("*.json"))
    return [record for record in map(recall, names) if record is not None]


def project_name() -> str:
    """Of the Compose project that `up` works on: one for each state folder, so that two users or test runs never
    meet.
    """
    folder = state_folder()
    if folder == Path.home() / ".local" / "state" / "harness":
        return "harness"
    return f"harness-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}"


_PASSING = re.compile(r"harness-[0-9a-f]{8}(-.*)?")


def passing_project() -> str:
    """A new name for the Compose project of one command, which ends with it."""
    return f"harness-{uuid.uuid4().hex[:8]}"


def is_passing(project: str) -> bool:
    """Whether a project ends with its command, rather than being the one that `up` works on."""
    return _PASSING.fullmatch(project) is not None


def owned_by_us() -> dict[str, Any]:
    """The fields that say which harness will stop a service itself."""
    return {"attached": os.getpid(), "attached_created": psutil.Process().create_time()}


def owner_lives(record: ServiceRecord) -> bool:
    """Whether the harness that will stop an attached service itself is still there."""
    try:
        owner = psutil.Process(record.attached)
        return record.attached_created is None or abs(owner.create_time() - record.attached_created) < 0.5
    except psutil.Error:
        return False


def path_of(name: str) -> Path:
    """Of the record of this name."""
    return subfolder("services") / f"{safe_name(name)}.json"
