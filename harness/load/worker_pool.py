"""Load processes of our own, over pipes: start them, give them orders, listen, and end them.

Locust lives in these processes only. Each message is one JSON object a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import MissingError, UsageError
from harness.load.plan import LoadPlan
from harness.load.pool import ClientFailed, Pool
from harness.measure.run_folder import naming
from harness.workload.user_spec import UserSpec
from harness.workload.workload import AnyWorkload

_READY_WITHIN, PREPARED_WITHIN = 60.0, 120.0
_LACKING = 3  # how a load process ends that this machine gives no room (load/worker.py)

Rehearsed = list[tuple[int, int, int, float]]  # as load/rehearsal.py has it, which only a load process can import


@dataclass(frozen=True)
class LocustfileContents:
    """What a locustfile holds. shape: of its load shape, targets of users with the seconds that each lasts; empty
    without one.
    """

    users: tuple[UserSpec, ...]
    shape: tuple[tuple[int, float], ...] = ()


class WorkerPool(Pool):
    """As a context manager the processes end with it. They start at once and import Locust while others are busy;
    `take` gives them a plan.
    """

    def __init__(self, processes: int) -> None:
        super().__init__()
        self._folder: Path | None = None
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`
        self.processes = {number: self._start(number) for number in range(processes)}
        self._ready: set[int] = set()
        for number in self.processes:
            threading.Thread(target=self._listen, args=(number,), daemon=True, name=f"load-{number}").start()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C on the terminal reaches the harness alone, which then ends the level in order.
        return subprocess.Popen(
            [sys.executable, "-m", "harness.load.worker", str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )

    def take(self, plan: LoadPlan) -> None:
        """Have all processes ready for the levels of this plan. Raises ClientFailed."""
        self._plan = plan
        self._folder = self._folder or Path(plan.folder)  # a calibration that follows has one of its own
        if len(self._ready) < len(self.processes):
            self._ready = self.await_all("ready", within=_READY_WITHIN)
        if self.lost:
            raise ClientFailed(self.last_words(), where="load", advice="`harness doctor` shows what is missing.")
        self.order(do="plan", plan=plan.as_dict())

    def describe(self, file: str) -> LocustfileContents:
        """What a locustfile holds, as the load process says that runs it. Raises UsageError for the file,
        ClientFailed.
        """
        if len(self._ready) < len(self.processes):
            self._ready = self.await_all("ready", within=_READY_WITHIN)
        self.order(only=0, do="describe", file=file)
        said = self._answer("described", file)
        if "error" in said:
            wrong = said["error"]
            raise UsageError(wrong["found"], where=wrong["where"], advice=wrong["advice"])
        steps = tuple((int(users), float(seconds)) for users, seconds in said["shape"] or ())
        return LocustfileContents(tuple(UserSpec.from_dict(each) for each in said["users"]), steps)

    def rehearse(self, workload: AnyWorkload, file: str | None, count: int, seed: int) -> list[Rehearsed]:
        """What a workload would ask first, with made-up answers. file: whose users ask it. Raises UsageError for what
        the file's own code does.
        """
        self.order(only=0, do="rehearse", workload=workload.as_dict(), file=file, count=count, seed=seed)
        return [[tuple(request) for request in each] for each in self._answer("rehearsed", file or "load")["played"]]

    def _answer(self, word: str, where: str) -> dict[str, Any]:
        """What the first process says to an order. Raises ClientFailed."""
        until = time.monotonic() + PREPARED_WITHIN
        while (said := self.next(timeout=0.5)) is None or said["say"] != word:
            if self.lost or time.monotonic() > until:
                raise ClientFailed(self.last_words(), where=where, advice="The file ends or holds up the process.")
        return said

    def alive(self) -> list[int]:
        return [number for number in self.processes if str(number) not in self.lost]

    def require_someone(self) -> None:
        """Raises ClientFailed when no process is left, MissingError where this machine gives no room."""
        if not self.alive() and any(process.poll() == _LACKING for process in self.processes.values()):
            folder = str(self._folder or "load")
            raise MissingError(self.last_words(), where=folder, advice="Free some space, or write elsewhere.")
        super().require_someone()

    def order(self, only: int | None = None, **what: Any) -> None:
        """One line to every process that is there, or to one."""
        line = (json.dumps(what) + "\n").encode()
        for number, process in self.processes.items():
            if only not in (None, number):
                continue
            if process.stdin is not None and process.poll() is None:
                try:
                    process.stdin.write(line)
                    process.stdin.flush()
                except BrokenPipeError:
                    continue

    def next(self, timeout: float) -> dict[str, Any] | None:
        """What a process said next; None when nobody spoke within `timeout` seconds. Notes who died."""
        try:
            said = self._said.get(timeout=timeout)
        except queue.Empty:
            said = None
        if said is not None:
            self.last_report[said["process"]] = time.monotonic()
        if said is not None and said["say"] == "fault":
            raise UsageError(said["found"], where=said["where"])
        if said is not None and said["say"] == "page":
            self.page = said["url"]
        for number, process in self.processes.items():
            if process.poll() is not None and str(number) not in self.lost:
                self.lost.append(str(number))
        return said

    def dismiss(self, number: int) -> None:
        self.processes[number].kill()

    def last_words(self) -> str:
        """How a process ended, with the last line that one of them left."""
        signals = [-code for process in self.processes.values() if (code := process.poll()) is not None and code < 0]
        found = f"a load process was killed by signal {signals[0]}" if signals else "a load process ended by itself"
        lines = self._words().decode("utf-8", "replace").strip().splitlines()
        return f"{found}: {lines[-1]}" if lines else found

    def close(self) -> None:
        """End of input ends a process; one that does not end, or never got anything to do, is killed.

        What they complained of is kept in the run's load.log.
        """
        for process in self.processes.values():
            if self._plan is None:
                process.kill()
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
        for process in self.processes.values():
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        words = self._words()
        if words and self._folder is not None and self._folder.is_dir():
            log = self._folder / "load.log"
            with naming(log):
                log.write_bytes(words)
        self._log.close()

    def _words(self) -> bytes:
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0)  # the position belongs to the processes that write

    def _listen(self, number: int) -> None:
        stdout = self.processes[number].stdout
        assert stdout is not None
        with stdout:
            for line in stdout:
                if line.endswith(b"\n"):  # the last line of a process that was killed may be cut
                    self._said.put({"process": number, **json.loads(line)})
