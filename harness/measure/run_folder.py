"""A run's folder: the names of its files, and manifest.json, which says what was run, where, and by which plan."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.input_files import as_type, brief, read_json_object
from harness.measure.arrivals import TRACE, Arrival, arrival_of
from harness.measure.clock import Anchor
from harness.redaction import arguments_without_secrets, redacted, without_secrets

SCHEMA = 1
MOST_SECONDS = 1e9  # of a moment in a run: thirty years
MOST_COUNT = 2**63
LEAST_RATE = 1e-6  # requests per second: one in twelve days


@dataclass(frozen=True)
class RunFolder:
    """Where each file of a run lies. Nothing is read or created by making one."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """A new, empty folder, this process's own until its manifest is written: of two that begin at once one is
        refused. Raises UsageError where something is in it already, or where no folder can be.
        """
        if os.path.exists(path) and not os.path.isdir(path):
            raise UsageError("is a file, not a folder", where=str(path), advice="Name a new folder with --output.")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL):
                raise  # what this machine lacks, such as space
            found = f"cannot be made: {error.strerror}"
            raise UsageError(found, where=str(path), advice="Name a new folder with --output.") from error
        if not _claim(path):
            raise UsageError("another run begins in it now", where=str(path), advice="Name a new one with --output.")
        if any(path.iterdir()):
            _let_go(path)
            raise UsageError("folder is not empty", where=str(path), advice="Name a new one with --output.")
        return cls(path)

    @classmethod
    def create_beside(cls, path: Path) -> RunFolder:
        """The same with `-1`, `-2`, ... behind the name where it is taken: runs that begin in one second."""
        for number in range(1000):
            own = path.with_name(f"{path.name}-{number}" if number else path.name)
            own.parent.mkdir(parents=True, exist_ok=True)
            try:
                own.mkdir()
            except FileExistsError:
                continue
            return cls(own)
        raise UsageError("is taken, and so are 999 beside it", where=str(path), advice="Name a new one with --output.")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A run's folder that is there already. Raises UsageError where it is none."""
        folder = cls(path)
        if not path.is_dir():
            raise UsageError("no such run folder", where=str(path), advice="Name a folder that `harness bench` wrote.")
        if not folder.manifest.is_file():
            raise UsageError(
                "holds no manifest.json", where=str(path), advice="Name a folder that `harness bench` wrote."
            )
        return folder

    @property
    def run_id(self) -> str:
        return self.path.resolve().name

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def stack(self) -> Path:
        return self.path / "stack.yaml"

    @property
    def records(self) -> Path:
        return self.path / "records.parquet"

    @property
    def server(self) -> Path:
        return self.path / "server.parquet"

    @property
    def server_journal(self) -> Path:
        """The same as it was read, an Arrow stream; there while the run lasts and after a crash."""
        return self.path / "server.arrows"

    @property
    def client(self) -> Path:
        """What the load processes noted about themselves (measure/client.py)."""
        return self.path / "client.json"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def figures(self) -> Path:
        """In place of the records, in the folders that a baseline keeps."""
        return self.path / "figures.json"

    @property
    def html(self) -> Path:
        return self.path / "report.html"

    @property
    def markdown(self) -> Path:
        return self.path / "report.md"

    def journal(self, process: str | int) -> Path:
        """The raw log of one load process, there while the run lasts and after a crash."""
        return self.path / f"journal-{process}.log"

    def journals(self) -> list[Path]:
        return sorted(self.path.glob("journal-*.log"))


REPEAT = re.compile(r"repeat-\d+")


def repeats_in(path: Path) -> list[Path]:
    """The run folders that a folder of repeats holds, in their order; the path itself where it is not such a folder."""
    if not path.is_dir() or (path / "manifest.json").exists():
        return [path]
    found = [each for each in path.iterdir() if REPEAT.fullmatch(each.name) and each.is_dir()]
    return sorted(found, key=lambda each: int(each.name.partition("-")[2])) or [path]


_claims: dict[str, int] = {}


def _claim(path: Path) -> bool:
    """Lock the folder itself: the kernel gives it back when this process dies, and nothing is left in it. False where
    another process has it.
    """
    key = str(path.resolve())
    if key in _claims:
        return True
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    except OSError:  # a file system without locks: an old manifest still keeps a second run out
        pass
    _claims[key] = descriptor
    return True


def _let_go(path: Path) -> None:
    if (descriptor := _claims.pop(str(path.resolve()), None)) is not None:
        os.close(descriptor)


def run_name(start: datetime, model: str, gpu: str | None, workload: str) -> str:
    """`<UTC to the second>-<model>-<gpu>-<workload>`, safe as a folder's name everywhere."""
    stamp = start.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    parts = [re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-.") for part in (model, gpu or "", workload)]
    return "-".join([stamp, *(part for part in parts if part)])


@dataclass(frozen=True)
class Level:
    """One offered load for a while: the plan, and its outcome. Seconds, run-relative where they are moments.

    users: closed loop; rate: open loop, requests per second; both None for a trace. arrival: None in a closed loop.
    warmup: as asked; None leaves it to the default rule of stats/window.py. started_at: None until it began.
    sending_ended_at: from when on no request was due: the duration was over or the count reached. ended_at: when the
    last answer was in or given up. sessions: conversations that are begun at most. ended_by: `duration`, `requests`,
    `sessions`, `trace`, or why it ended early: `oversaturated`, `stalled`, `turned_away` (every request failed),
    `service_gone`, `interrupted`; of Locust by hand also `stopped` (there was no limit) and `users_changed` (the next
    level began). spread, jitter: of a closed loop whose users were kept out of step: seconds over which their starts
    were spread, and their mean pause as a share of an answer's time. moved_turns: of a trace, turns that were sent
    later than their own moments, since what they waited for was answered later; moved_mean, moved_max: by how many
    seconds.
    """

    level: int
    users: int | None = None
    rate: float | None = None
    arrival: Arrival | None = None
    duration: float | None = None
    requests: int | None = None
    sessions: int | None = None
    warmup: float | None = None
    started_at: float | None = None
    sending_ended_at: float | None = None
    ended_at: float | None = None
    ended_by: str | None = None
    spread: float | None = None
    moved_turns: int | None = None
    moved_mean: float | None = None
    moved_max: float | None = None
    jitter: float | None = None

    @property
    def replays(self) -> bool:
        """Its requests are due when a trace says."""
        return self.arrival == TRACE

    def as_dict(self) -> dict[str, Any]:
        """As the manifest has it, and one process hands it to another: the arrival process as people write it."""
        return {**dataclasses.asdict(self), "arrival": None if self.arrival is None else str(self.arrival)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Level:
        """The reverse of as_dict."""
        arrival = fields["arrival"]
        return cls(**{**fields, "arrival": None if arrival is None else arrival_of(arrival)})

    @property
    def in_order(self) -> bool:
        """It ran to an end of its own, and its last answers were awaited."""
        return self.ended_at is not None and self.ended_by not in ("interrupted", "service_gone")


@dataclass(frozen=True)
class Manifest:
    """What was run, where, and under which plan. Written when the run begins, again as levels pass, and at its end.

    model: the catalogue's name or the served model's id. engine: `tgi 3.3.7`. flags: the engine's variables as set or
    told. seeds: one for what is asked, one for when. dataset: name, path and sha256 of a trace or prompt file.
    workload: its name and the lengths asked for, enough to tell whether two runs asked the same. lengths: how the
    prompts and answers that this seed asks first are spread. slo: bound -> seconds. exact_lengths: the engine was asked
    for answers of exactly the length that was drawn. slo_asked: the bounds came from --slo, not from the catalogue.
    think_time: seconds between an answer and the same user's next request. plan, target: the options of `bench` that
    give the run again, and those that say what was loaded; None where it was no bench. locustfile: path and sha256 of
    the file whose users asked. start, end: UTC, ISO 8601; end is None while it runs and after a crash. interrupted: it
    was stopped before its plan was done.
    commit: of the working directory.
    """

    run_id: str
    harness_version: str
    command: tuple[str, ...]
    model: str
    engine: str
    emulated: bool
    start: str
    clock: Mapping[str, Any]
    workload: Mapping[str, Any]
    levels: tuple[Level, ...]
    api: str
    stream: bool = True
    exact_lengths: bool = False
    runtime: str | None = None
    url: str | None = None
    revision: str | None = None
    image: str | None = None
    image_digest: str | None = None
    flags: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, int | float] = field(default_factory=dict)
    gpu: str | None = None
    gpus: int = 1
    driver: str | None = None
    host: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] | None = None
    lengths: Mapping[str, Any] | None = None
    seeds: Mapping[str, int] = field(default_factory=dict)
    slo: Mapping[str, float] = field(default_factory=dict)
    slo_asked: bool = False
    timeout: float | None = None
    think_time: float = 0.0
    processes: int = 1
    price_per_gpu_hour: float | None = None
    price_source: str | None = None
    plan: Mapping[str, Any] | None = None
    target: Mapping[str, Any] | None = None
    locustfile: Mapping[str, str] | None = None
    commit: str | None = None
    end: str | None = None
    interrupted: bool = False
    schema: int = SCHEMA

    @property
    def complete(self) -> bool:
        """The plan was carried out to its end, whatever the server did."""
        return self.end is not None and not self.interrupted

    def with_level(self, level: Level) -> Manifest:
        """The same with this level in place of the one with its number, or behind the others where there is none."""
        if level.level not in {each.level for each in self.levels}:
            return dataclasses.replace(self, levels=(*self.levels, level))
        return dataclasses.replace(
            self, levels=tuple(level if each.level == level.level else each for each in self.levels)
        )


def clock_entry(anchor: Anchor) -> dict[str, Any]:
    """`clock` of the manifest: the moment of the records' 0."""
    return {"monotonic": anchor.monotonic, "utc": utc_text(anchor.utc)}


def utc_text(moment: datetime) -> str:
    """ISO 8601 in UTC with microseconds, such as `2025-01-31T12:00:00.000000Z`."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def is_moment(text: str) -> bool:
    """Whether this is a moment as utc_text writes them, of a year that clocks can show."""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() > 0
    except (ValueError, OverflowError, OSError):
        return False


def stack_of_url(url: str) -> str:
    """stack.yaml of a service that somebody else runs: all that is known of it."""
    return f"runtime: url\nurl: {url}\n"


def write_manifest(folder: RunFolder, manifest: Manifest) -> None:
    """manifest.json, replaced in one step: a reader sees the old or the new one, never half of it."""
    levels = [level.as_dict() for level in manifest.levels]
    document = redacted({"schema": manifest.schema, **dataclasses.asdict(manifest), "levels": levels})
    document["command"] = arguments_without_secrets(manifest.command)
    document["flags"] = without_secrets(manifest.flags)
    write_atomically(folder.manifest, (json.dumps(document, indent=2) + "\n").encode())
    _let_go(folder.path)


def read_manifest(folder: RunFolder) -> Manifest:
    """The manifest of a run. Keys that this version does not know are left out. Raises UsageError."""
    where = str(folder.manifest)
    document = read_json_object(folder.manifest)
    if document.get("schema") != SCHEMA:
        found = f"schema {brief(repr(document.get('schema')))}, this version reads {SCHEMA}"
        raise UsageError(found, where=where, advice="Use the version of harness that wrote it.")
    manifest = as_type(Manifest, document, where, {Arrival: arrival_of})
    if mistake := _mistake(manifest):
        raise UsageError(f"not as expected: {mistake}", where=where)
    return manifest


def _mistake(manifest: Manifest) -> str | None:
    """What no run can have had, though its type is right; figures are computed from it and must not fail."""
    numbers = [level.level for level in manifest.levels]
    if not is_moment(manifest.start):
        return f"start: expected a moment in UTC, found {brief(repr(manifest.start))}"
    if len(set(numbers)) < len(numbers) or any(not 0 <= number < MOST_COUNT for number in numbers):
        return "levels: their numbers are not distinct, or beyond all bounds"
    for level in manifest.levels:
        moments = (level.started_at, level.sending_ended_at, level.ended_at)
        seconds = (level.duration, level.warmup, level.spread, level.jitter, level.moved_mean, level.moved_max)
        if not all(each is None or abs(each) <= MOST_SECONDS for each in (*moments, *seconds)):
            return f"$.levels: a moment of level {level.level} is beyond all bounds"
        if level.rate is not None and not LEAST_RATE <= level.rate <= MOST_COUNT:
            return f"$.levels: rate of level {level.level} is {level.rate}"
        if any(
            each is not None and not 0 <= each <= MOST_COUNT
            for each in (level.users, level.requests, level.moved_turns)
        ):
            return f"$.levels: a count of level {level.level} is beyond all bounds"
    if not (0 <= manifest.processes <= MOST_COUNT and 0 <= manifest.gpus <= MOST_COUNT):
        return "processes or gpus: beyond all bounds"
    numbers_told = [*manifest.limits.values(), *manifest.slo.values(), *(manifest.seeds or {}).values()]
    numbers_told += [each for each in (manifest.timeout, manifest.think_time, manifest.price_per_gpu_hour) if each]
    if not all(abs(each) <= MOST_COUNT for each in numbers_told):
        return "a number of limits, slo, seeds, timeout, think_time or price_per_gpu_hour is beyond all bounds"
    return None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What fails while a file that is open is written (no space, no quota) does not tell which: say so."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside, flush to disk, rename over. Raises OSError that names the path; nothing is left beside it then."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except KeyboardInterrupt:
        beside.unlink(missing_ok=True)
        raise
