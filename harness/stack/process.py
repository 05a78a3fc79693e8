"""A launcher, or the emulator, as a process of this host: the same verbs as a container.

Its output goes to two files and not through pipes: nothing blocks when nobody reads, both streams stay whole line by
line, and the engine of `up` survives the death of the harness (TGI loses its requests when the reader of its log goes
away). What a command starts for itself does not: a watchdog ends it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import psutil

from harness import interrupts
from harness.engines import engine_named
from harness.engines.endpoint import Endpoint
from harness.errors import MissingError
from harness.redaction import arguments_without_secrets, without_secrets
from harness.stack import process_tree
from harness.stack import state as memory
from harness.stack.log_text import plain_line
from harness.stack.ports import release_port, require_free_port
from harness.stack.process_tree import MARKER
from harness.stack.service import ServiceFacts, State
from harness.stack.shutdown import whole_grace
from harness.stack.watchdog import Watchdog

_READ = 1 << 20


@dataclass(frozen=True)
class Launch:
    """What to start. command: the program, as the entry or the command line names it; args: the engine's arguments
    behind it. options: environment of the engine. forget: variables of the user's own environment that the engine must
    not see. port: where it will listen on 127.0.0.1. scratch: paths to remove afterwards. In the last and in `forget` a
    trailing `*` stands for whatever follows.
    """

    name: str
    runtime: str
    command: tuple[str, ...]
    options: Mapping[str, str]
    port: int
    engine: str
    args: tuple[str, ...] = ()
    engine_version: str | None = None
    forget: frozenset[str] = frozenset()
    repo: str = ""
    gpu: str | None = None
    digest: str = ""
    scratch: tuple[str, ...] = field(default=())


class ProcessService:
    """Service of one launched process and all that it started. `keep()` leaves it to run when the harness ends."""

    def __init__(
        self, launch: Launch, record: memory.ServiceRecord | None = None, *, outlives_harness: bool = False
    ) -> None:
        """outlives_harness: it stays where the harness is killed, also before `keep()`."""
        self.name = launch.name
        self.endpoint = Endpoint(f"http://127.0.0.1:{launch.port}")
        self._launch = launch
        self._record = record
        self._popen: subprocess.Popen[bytes] | None = None
        self._outlives_harness = outlives_harness
        self._watchdog: Watchdog | None = None
        self._tails: list[_Tail] = _tails(record)

    @classmethod
    def found_again(cls, record: memory.ServiceRecord) -> ProcessService:
        """The handle of a process that an earlier command left running."""
        port = int(record.url.rsplit(":", 1)[-1])
        launch = Launch(
            name=record.name,
            runtime=record.runtime,
            command=record.command,
            args=record.args,
            options=record.environment,
            port=port,
            engine=record.engine,
            engine_version=record.engine_version,
            repo=record.repo,
            gpu=record.gpu,
        )
        return cls(launch, record)

    @property
    def digest(self) -> str:
        """Equal for services that were asked for in the same way."""
        return self._record.digest if self._record is not None else self._launch.digest

    @property
    def record(self) -> memory.ServiceRecord | None:
        return self._record

    def start(self) -> None:
        """Raises MissingError when the program is not there, cannot be run, or its port is taken."""
        require_free_port(self._launch.port)
        marker = uuid.uuid4().hex
        log = memory.subfolder("logs") / f"{memory.safe_name(self.name)}-{marker[:8]}"
        if not self._outlives_harness:
            self._watchdog = self._new_watchdog(marker, str(log), memory.attached_name(self.name, marker[:8]))
        with interrupts.held_back():  # what is started is known before anything else can happen
            self._begin(marker, log)

    def _begin(self, marker: str, log: Path) -> None:
        try:
            self._popen = _spawn(self._launch, marker, log)
        except MissingError:
            self._let_go()
            raise
        if self._watchdog is not None:
            self._watchdog.watch(self._popen.pid)
        self._record = memory.ServiceRecord(
            name=self.name,
            model=self.name,
            runtime=self._launch.runtime,
            url=self.endpoint.url,
            engine=self._launch.engine,
            engine_version=self._launch.engine_version,
            repo=self._launch.repo,
            gpu=self._launch.gpu,
            emulated=self._launch.runtime == "embedded",
            pid=self._popen.pid,
            created=_created(self._popen.pid),
            marker=marker,
            digest=self._launch.digest,
            **memory.owned_by_us(),
            command=self._launch.command,
            args=arguments_without_secrets(self._launch.args),
            environment=without_secrets(self._launch.options),
            log=str(log),
            started_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        self._tails = _tails(self._record)
        memory.remember(replace(self._record, name=self._record_name()))

    def keep(self, limits: Mapping[str, int] | None = None, predicted: Mapping[str, int] | None = None) -> None:
        """From now on it outlives the harness; `status`, `logs` and `down` find it under its name."""
        if self._record is None:
            return
        memory.forget(self._record_name())
        self._record = replace(self._record, attached=None, limits=dict(limits or {}), predicted=dict(predicted or {}))
        memory.remember(self._record)
        release_port(self._launch.port)
        self._let_go()
        if self._popen is not None:  # left to run on purpose: the object must not complain about it when it goes
            self._popen.returncode = 0
            self._popen = None

    def state(self) -> State:
        if self._popen is not None:
            return _state_of(self._popen.poll())
        running = process_tree.alive(_process(self._record))
        return State(running, detail=None if running else "not running")

    def log_lines(self) -> Iterator[str]:
        ended = not self.state().running
        for tail in self._tails:
            yield from tail.lines(ended)

    def all_log_lines(self) -> Iterator[str]:
        """The whole log from its beginning, wherever `log_lines` has come to."""
        for tail in _tails(self._record):
            yield from tail.lines(ended=True)

    def downloaded_bytes(self) -> int | None:
        """Bytes of this model in the Hub's cache of this host; None where there are none."""
        cache = os.environ.get("HUGGINGFACE_HUB_CACHE") or os.environ.get("HF_HUB_CACHE")
        home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
        folder = Path(cache or home / "hub") / f"models--{self._launch.repo.replace('/', '--')}" / "blobs"
        try:
            return sum(path.stat().st_blocks * 512 for path in folder.iterdir())
        except OSError:
            return None

    def stop(self, grace: float = 100.0) -> None:
        """SIGTERM to the launcher, which drains and ends its shards itself; after `grace` seconds SIGKILL to all of
        them.
        """
        release_port(self._launch.port)
        if self._record is None:
            return
        grace = whole_grace(grace, self._launch.engine, None)
        launcher = _process(self._record)
        everyone = process_tree.tree_of(launcher)
        try:
            if launcher is not None and grace > 0:
                process_tree.send([launcher], signal.SIGTERM)
                self._wait(launcher, grace)
        finally:  # also when Ctrl-C comes once more: then nobody waits any longer
            process_tree.end(everyone | process_tree.marked(self._record.marker), launcher)
            self._reap()
            self._clean()
            self._let_go()

    def end_with_harness(self) -> None:
        """Although it was kept: for a command that has several others use it by its name."""
        if self._record is not None and self._record.pid is not None and self._watchdog is None:
            self._watchdog = self._new_watchdog(self._record.marker, self._record.log, self._record_name())
            self._watchdog.watch(self._record.pid)

    def _new_watchdog(self, marker: str, log: str | None, record_name: str) -> Watchdog:
        return Watchdog(marker, (*_files(log), str(memory.path_of(record_name)), *self._launch.scratch))

    def _let_go(self) -> None:
        if self._watchdog is not None:
            self._watchdog.let_go()
            self._watchdog = None

    def facts(self) -> ServiceFacts:
        return ServiceFacts(
            runtime=self._launch.runtime,
            engine=self._launch.engine,
            engine_version=self._launch.engine_version,
            command=self._launch.command,
            args=arguments_without_secrets(self._launch.args),
            environment=without_secrets(self._launch.options),
            stack=_as_script(self._launch),
        )

    def _wait(self, launcher: psutil.Process, grace: float) -> None:
        if self._popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(grace)
        else:
            process_tree.wait_until_gone({launcher}, grace)

    def _reap(self) -> None:
        if self._popen is not None:
            self._popen.wait()

    def _clean(self) -> None:
        assert self._record is not None
        for tail in self._tails:
            tail.keep_rest()
        process_tree.remove((*_files(self._record.log), *self._launch.scratch))
        memory.forget(self._record_name())

    def _record_name(self) -> str:
        assert self._record is not None
        left_to_run = self._record.attached is None
        return self.name if left_to_run else memory.attached_name(self.name, self._record.marker[:8])


class _Tail:
    """The lines of a file that grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._rest, self._kept = path, 0, b"", b""

    def lines(self, ended: bool) -> Iterator[str]:
        """Whole lines since the last call; the unfinished last one too when the writer has ended."""
        for chunk in self._chunks():
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            yield from map(_decode, whole)
        if ended and self._rest:
            last, self._rest = self._rest, b""
            yield _decode(last)

    def keep_rest(self) -> None:
        """Read what is left, because the file is about to go."""
        self._kept = b"".join(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        if self._kept:
            kept, self._kept = self._kept, b""
            yield kept
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                while chunk := file.read(_READ):
                    self._offset += len(chunk)
                    yield chunk
        except FileNotFoundError:
            return


@cache
def version_output(program: str) -> str:
    """What `PROGRAM --version` prints on either stream; empty when it has no such option."""
    marker = uuid.uuid4().hex
    environment = {**os.environ, MARKER: marker}
    watchdog = Watchdog(marker, ())
    try:
        answer = subprocess.run(
            [program, "--version"],
            env={key: value for key, value in environment.items() if key not in ("MODEL_ID", "PORT")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
            start_new_session=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    finally:
        process_tree.end(process_tree.marked(marker), None)
        watchdog.let_go()
    return (answer.stdout + answer.stderr).decode("utf-8", "replace") if answer.returncode == 0 else ""


def _spawn(launch: Launch, marker: str, log: Path) -> subprocess.Popen[bytes]:
    inherited = {
        key: value for key, value in os.environ.items() if not any(fnmatchcase(key, name) for name in launch.forget)
    }
    environment = {**inherited, "PYTHONUNBUFFERED": "1", **launch.options, MARKER: marker}
    with open(f"{log}.out", "ab", opener=_private) as out, open(f"{log}.err", "ab", opener=_private) as err:
        try:
            return subprocess.Popen(
                (*launch.command, *launch.args),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,  # Ctrl-C in the terminal reaches only the harness, which then ends it in order
            )
        except (OSError, ValueError) as error:
            Path(out.name).unlink(missing_ok=True)
            Path(err.name).unlink(missing_ok=True)
            raise _cannot_run(launch, error) from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _cannot_run(launch: Launch, error: Exception) -> MissingError:
    program = launch.command[0]
    if isinstance(error, FileNotFoundError):
        return MissingError(
            f"launcher program {program!r} not found",
            advice=f"Install {engine_named(launch.engine).title}, or name the program with --launcher PATH.",
        )
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return MissingError(f"launcher program {program!r} cannot be run: {reason}", advice="Check --launcher.")


def _state_of(code: int | None) -> State:
    if code is None:
        return State(True)
    if code < 0:  # as a shell and Docker count it
        return State(False, 128 - code, f"killed by signal {-code}")
    return State(False, code, f"ended with exit code {code}")


def _created(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def _process(record: memory.ServiceRecord | None) -> psutil.Process | None:
    """The launcher's process; None when it has gone and its number may belong to another."""
    if record is None or record.pid is None:
        return None
    try:
        process = psutil.Process(record.pid)
        return process if record.created is None or abs(process.create_time() - record.created) < 0.5 else None
    except psutil.Error:
        return None


def _tails(record: memory.ServiceRecord | None) -> list[_Tail]:
    return [] if record is None else [_Tail(Path(path)) for path in _files(record.log)]


def _files(log: Path | str | None) -> tuple[str, str]:
    """Where a process writes its two streams."""
    return f"{log}.out", f"{log}.err"


def _decode(line: bytes) -> str:
    return plain_line(line.decode("utf-8", "replace"))


def _as_script(launch: Launch) -> str:
    """How the same process could be started by hand, without secrets."""
    lines = [f"  {name}: {value!r}" for name, value in without_secrets(launch.options).items()]
    return (
        "\n".join(
            [
                f"runtime: {launch.runtime}",
                f"command: {[*launch.command, *arguments_without_secrets(launch.args)]!r}",
                "environment:",
                *lines,
            ]
        )
        + "\n"
    )


def emulator_command() -> tuple[str, ...]:
    """The embedded emulator in this very Python."""
    return (sys.executable, "-m", "harness.emulator")
