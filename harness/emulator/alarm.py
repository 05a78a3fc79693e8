"""Wake-ups with microsecond precision: an event loop's own timers round to a millisecond, a step of a small model."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_NONBLOCK, _CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_ABSOLUTE = 1


class Alarm:
    """Calls back once at a moment of time.monotonic(). Setting it again replaces the moment before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop, self._callback = loop, callback
        self._fd = -1
        self._handle: asyncio.TimerHandle | None = None
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK | _CLOEXEC)
        except AttributeError:  # not Linux: the loop's timers have to do
            return
        if self._fd >= 0:
            loop.add_reader(self._fd, self._ring)

    def set(self, moment: float) -> None:
        """moment: seconds of time.monotonic(); one that has passed rings at once."""
        if self._fd < 0:
            delay = max(0.0, moment - time.monotonic())
            self._handle = self._loop.call_later(delay, self._callback)
            return
        nanoseconds = max(1, int(moment * 1e9))
        setting = struct.pack("qqqq", 0, 0, *divmod(nanoseconds, 10**9))
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, setting, None)

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._callback()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        if self._handle is not None:
            self._handle.cancel()
