"""Ends an engine whose harness is gone: who is killed cannot tidy up any more.

`Watchdog` is the harness's side. It holds the only write end of the watchdog's stdin, so its end, however it comes, is
the end of that file. The watchdog is a process in a session of its own, and remembers all that the launcher started: a
shard whose parents are dead, and which has overwritten its environment, can be found in no other way.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil

from harness.stack import process_tree

_LET_GO = b"."
_LOOK = 1.0  # seconds between looks at who is there
_GRACE = 1.0  # seconds from SIGTERM to SIGKILL: nobody waits for an answer any more
_PATIENCE = 60.0  # seconds for what SIGKILL does not end, such as a process that waits for its disk


class Watchdog:
    """Started before the launcher, so that there is no moment at which nobody would end it."""

    def __init__(self, marker: str, leavings: Sequence[str]) -> None:
        """marker: of all that is to be ended. leavings: absolute paths and patterns of files to remove after that."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harness.stack.watchdog", marker, *leavings],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, pid: int) -> None:
        """This is the launcher."""
        self._say(b"%d\n" % pid)

    def let_go(self) -> None:
        """There is nothing to end any more, or it is to stay. Harmless twice."""
        self._say(_LET_GO)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _say(self, word: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # somebody killed it, or it was let go before
            self._process.stdin.write(word)
            self._process.stdin.flush()


def main(marker: str, leavings: Sequence[str]) -> None:
    """Wait for a word or for the end of stdin."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the harness says when
    known: set[psutil.Process] = set()
    while (word := _heard()) != b"":
        if word is None:
            known = process_tree.descendants(known)
        elif _LET_GO in word:
            return
        else:
            with contextlib.suppress(psutil.Error, ValueError):
                known = process_tree.tree_of(psutil.Process(int(word)))
    _end(marker, known)
    process_tree.remove(leavings)


def _heard() -> bytes | None:
    """What the harness said, empty when it is gone, None when there was nothing for a while."""
    ready, _, _ = select.select([0], [], [], _LOOK)
    return os.read(0, 100) if ready else None


def _end(marker: str, known: set[psutil.Process]) -> None:
    everyone = process_tree.descendants(known | process_tree.marked(marker))
    process_tree.send(everyone, signal.SIGTERM)
    process_tree.wait_until_gone(everyone, _GRACE)
    deadline = time.monotonic() + _PATIENCE
    while (
        everyone := process_tree.descendants(everyone | process_tree.marked(marker))
    ) and time.monotonic() < deadline:
        process_tree.send(everyone, signal.SIGKILL)
        process_tree.wait_until_gone(everyone, 0.2)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
