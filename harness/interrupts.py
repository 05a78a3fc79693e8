"""Ctrl-C, SIGTERM and SIGHUP: noted by a handler, and raised as KeyboardInterrupt where that can be caught.

A handler runs between any two instructions. Raised in a destructor, a weak reference's callback or the middle of
asyncio, an exception is printed and lost, and with it the user's wish; raised while a process is being started, it
leaves one that nobody knows. There the signal waits, and a timer tries again until it can be heard.
"""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN = 0.02  # seconds
_DEPTH = 400  # frames that are looked at
# Where an exception of a handler would be swallowed, or would tear apart what must be whole.
# _internal_poll of subprocess.Popen takes a lock one instruction before the block that gives it back: an exception in
# between leaves a process that is never seen to end, and whoever waits for it waits for ever.
_DEAF_NAMES = frozenset({"__del__", "_execute_child", "_internal_poll", "_run_finalizers", "_cleanup", "_shutdown"})
_DEAF_MODULES = ("asyncio.", "weakref", "_weakrefset", "importlib._bootstrap", "logging", "aiohttp.")

_waiting: list[int] = []  # signals that came and were not raised yet
_held = 0


def install() -> None:
    """SIGINT too where a shell started us in the background, with it ignored; SIGHUP stays ignored under nohup."""
    signal.signal(signal.SIGINT, _note)
    signal.signal(signal.SIGTERM, _note)
    signal.signal(signal.SIGALRM, _try_again)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _note)
    atexit.register(_over)  # the first that is registered is called last


def _over() -> None:
    """The command has its exit code. Python puts the default handlers back before it takes the modules down, and a
    signal in that tenth of a second would end a command that is done as if it had been killed.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def waiting() -> bool:
    """Whether a signal came that was not raised yet: for loops that look by themselves."""
    return bool(_waiting)


@contextmanager
def held_back() -> Iterator[None]:
    """No signal is raised while the block runs, but at its end: for what must be whole, and for loops that look at
    `waiting`. Of the main thread.
    """
    global _held
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _held += 1
    try:
        yield
    finally:
        _held -= 1
        if _waiting and not _held:  # also where the block itself failed: then a moment later
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
    if _waiting and not _held:
        _raise()


def _note(number: int, frame: FrameType | None) -> None:
    _waiting.append(number)
    _try_again(number, frame)


def _try_again(number: int, frame: FrameType | None) -> None:
    if not _waiting or _held:
        return
    if _deaf(frame):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        return
    _raise()


def _raise() -> None:
    _waiting.clear()
    signal.setitimer(signal.ITIMER_REAL, 0)
    raise KeyboardInterrupt


def _deaf(frame: FrameType | None) -> bool:
    """Whether an exception that is raised here would not come out where the command ends."""
    for _ in range(_DEPTH):
        if frame is None:
            return False
        module = str(frame.f_globals.get("__name__", ""))
        if frame.f_code.co_name in _DEAF_NAMES or module.startswith(_DEAF_MODULES):
            return True
        # exec() of a text, as dataclasses do: a KeyboardInterrupt that passes it makes Python end by SIGINT in spite of
        # whoever catches it (run_eval_code_obj in Python/pythonrun.c).
        if frame.f_code.co_filename == "<string>" and module != "__main__":
            return True
        frame = frame.f_back
    return False
