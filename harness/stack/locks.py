"""One harness at a time: a lock per catalogue entry or stack, which the kernel gives back when its holder dies.

locks/<name>.lock     under the state folder; holds the process number of whoever has, or last had, the lock
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from harness.stack.state import safe_name, subfolder

_EVERY = 0.1  # seconds between tries; a blocking flock would hold off signals that are handled by a flag


@contextmanager
def held(names: Iterable[str], say: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Holds all of these while the block runs; `say` is told once for each that another process has.

    In one order for everybody, so that two who want two of them never wait for each other.
    """
    # By path: two names may be the same once they are made safe, and one process would then wait for itself.
    paths = {subfolder("locks") / f"{safe_name(name)}.lock": name for name in names}
    with ExitStack() as stack:
        for path in sorted(paths):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, descriptor)  # which lets go of the lock
            _acquire(descriptor, paths[path], say)
        yield


def _acquire(descriptor: int, name: str, say: Callable[[str], None]) -> None:
    said = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not said:
                holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
                say(f"{name}: another harness{f' (process {holder})' if holder else ''} works on it; waiting for that")
                said = True
            time.sleep(_EVERY)
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            return
