"""A process and all that it started: found by descent and by a mark in their environment, ended together.

Shards live in sessions of their own, may ignore SIGTERM, and may have lost their parent: a process group is not enough.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import psutil

MARKER = "HARNESS_SERVICE"
_SHARD_GRACE = 2.0  # seconds that shards get to end by themselves once their launcher is gone


def alive(process: psutil.Process | None) -> bool:
    """A zombie is not: whose parent does not collect it cannot be helped from here."""
    try:
        return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def tree_of(launcher: psutil.Process | None) -> set[psutil.Process]:
    """The process with its descendants."""
    if launcher is None:
        return set()
    try:
        return {launcher, *launcher.children(recursive=True)}
    except psutil.Error:
        return {launcher}


def descendants(known: Iterable[psutil.Process]) -> set[psutil.Process]:
    """Those that live, with what they started since; one look at the table of processes, however many are known."""
    children: defaultdict[int, list[psutil.Process]] = defaultdict(list)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            children[process.ppid()].append(process)
    found = {process for process in known if alive(process)}
    new = list(found)
    while new:
        more = {child for process in new for child in children[process.pid]} - found
        found |= more
        new = list(more)
    return found


def marked(marker: str) -> set[psutil.Process]:
    """All processes that inherited the marker."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == marker:
                found.add(process)
        except (psutil.Error, OSError):
            continue
    return found


def end(processes: set[psutil.Process], launcher: psutil.Process | None) -> None:
    """Ask the shards, wait a moment, kill what is left, until nobody is left."""
    rest = {process for process in processes if alive(process)}
    if rest and (launcher is None or launcher not in rest):
        send(rest, signal.SIGTERM)
        wait_until_gone(rest, _SHARD_GRACE)
    while rest := {process for process in rest if alive(process)}:
        rest |= {child for process in rest for child in tree_of(process)}
        send(rest, signal.SIGKILL)
        wait_until_gone(rest, 0.2)


def send(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def wait_until_gone(processes: Iterable[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    processes = set(processes)
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)


def remove(patterns: Iterable[str]) -> None:
    """Files by their absolute paths; a trailing `*` is a pattern."""
    for pattern in patterns:
        for path in Path("/").glob(pattern.lstrip("/")):
            path.unlink(missing_ok=True)
