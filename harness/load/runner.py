"""The load processes of a run, seen from the harness: start them, give them levels, listen, and end them.

Locust lives in these processes only. All of them begin a level at the same moment; the next one begins when the last
answer of the slowest is in.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.load.live import Live, live_line
from harness.load.plan import LoadOutcome, LoadPlan
from harness.measure.run_folder import Level

_START_AFTER = 0.1  # seconds between the order and a level's first moment, for every process to hear it
_STALLED_AFTER = 60.0  # seconds without a token to anyone; TGI's longest forwards are shorter by far
_READY_WITHIN = 60.0

OnLevel = Callable[[Level], None]


class ClientFailed(HarnessError):
    """A load process ended by itself: a fault of the harness, not of the service."""

    exit_code = 4


def run(
    plan: LoadPlan,
    *,
    on_level: OnLevel = lambda level: None,
    progress: Callable[[str], None] = lambda text: None,
    gone: Callable[[], str | None] = lambda: None,
) -> LoadOutcome:
    """Hold every level of the plan and return how they went.

    on_level: is called when a level begins and when it has ended. gone: says why the service is away, None while it
    is there. Ctrl-C ends the level and is told in the outcome; a second one raises KeyboardInterrupt. Raises
    ClientFailed when no process is left.
    """
    crew = _Crew(plan)
    levels: list[Level] = []
    try:
        crew.wait_until_ready()
        for level in plan.levels:
            held = _hold(crew, level, on_level, progress, gone)
            levels.append(held)
            on_level(held)
            if held.ended_by in ("interrupted", "service_gone", "stalled") or crew.interrupted:
                break
    finally:
        crew.close()
    return LoadOutcome(tuple(levels), tuple(crew.lost), crew.interrupted)


def _hold(crew: _Crew, level: Level, on_level: OnLevel, progress: Callable[[str], None], gone: Any) -> Level:
    at = crew.now() + _START_AFTER
    begun = replace(level, started_at=at)
    on_level(begun)
    live = Live(begun)
    crew.order(do="level", level=level.level, at=at)
    held: dict[int, dict[str, Any]] = {}
    while len(held) < len(crew.alive()):
        try:
            said = crew.next(timeout=0.5)
        except KeyboardInterrupt:
            crew.interrupt()
            continue
        if said is not None and said["say"] == "held":
            held[said["process"]] = said
        elif said is not None and said["say"] == "tick":
            live.take(said)
            if live.due():
                progress(live_line(live))
        _end_early(crew, live, gone)
    if not crew.alive():
        raise ClientFailed(crew.last_words(), where="load", advice="This is a fault of the harness; please report it.")
    return replace(
        begun,
        sending_ended_at=max(each["sending_ended_at"] for each in held.values()),
        ended_at=max(each["ended_at"] for each in held.values()),
        ended_by=crew.reason or next(each["ended_by"] for each in held.values()),
    )


def _end_early(crew: _Crew, live: Live, gone: Callable[[], str | None]) -> None:
    if crew.reason is not None:
        return
    if live.silent > _STALLED_AFTER:
        crew.stop("stalled", wait=False)
    elif gone() is not None:
        crew.stop("service_gone", wait=False)


class _Crew:
    """The processes, by number."""

    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.lost: list[str] = []
        self.reason: str | None = None
        self.interrupted = False
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        file = Path(plan.folder) / "load-plan.json"
        plan.write(file)
        self._file = file
        self._log = Path(plan.folder) / "load.log"
        with self._log.open("wb") as log:
            self._processes = {number: self._start(number, log) for number in range(plan.processes)}
        for number in self._processes:
            threading.Thread(target=self._listen, args=(number,), daemon=True, name=f"load-{number}").start()

    def _start(self, number: int, log: Any) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C on the terminal reaches the harness alone, which then ends the level in order.
        return subprocess.Popen(
            [sys.executable, "-m", "harness.load.worker", str(self._file), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )

    def now(self) -> float:
        return time.monotonic() - self.plan.clock_monotonic

    def alive(self) -> list[int]:
        return [number for number, process in self._processes.items() if process.poll() is None]

    def wait_until_ready(self) -> None:
        ready: set[int] = set()
        until = time.monotonic() + _READY_WITHIN
        while len(ready) < len(self._processes):
            said = self.next(timeout=0.5)
            if said is not None and said["say"] == "ready":
                ready.add(said["process"])
            if len(self.alive()) < len(self._processes) or time.monotonic() > until:
                raise ClientFailed(self.last_words(), where="load", advice="`harness doctor` shows what is missing.")

    def order(self, **what: Any) -> None:
        """One line to every process that is there."""
        line = (json.dumps(what) + "\n").encode()
        for process in self._processes.values():
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
        for number, process in self._processes.items():
            if process.poll() is not None and str(number) not in self.lost:
                self.lost.append(str(number))
        return said

    def stop(self, reason: str, *, wait: bool) -> None:
        """End the level for this reason; without `wait`, open requests are left as in flight."""
        self.reason = reason
        self.order(do="end", reason=reason)
        if not wait:
            self.order(do="abandon")

    def interrupt(self) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self.stop("interrupted", wait=False)

    def last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"the load process ended by itself: {lines[-1]}" if lines else "the load process ended by itself"

    def close(self) -> None:
        """End of input ends a process; one that does not end is killed."""
        for process in self._processes.values():
            if process.stdin is not None:
                try:
                    process.stdin.close()
                except BrokenPipeError:
                    continue
        for process in self._processes.values():
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._file.unlink(missing_ok=True)
        if self._log.exists() and self._log.stat().st_size == 0:
            self._log.unlink()

    def _listen(self, number: int) -> None:
        stdout = self._processes[number].stdout
        assert stdout is not None
        with stdout:
            for line in stdout:
                self._said.put({"process": number, **json.loads(line)})
