"""The kernel's receive stamps as moments of the one monotonic clock.

The kernel stamps segments with CLOCK_REALTIME; records are CLOCK_MONOTONIC. The difference is measured many times a
second, because time synchronisation slews and sometimes steps the wall clock.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TIMESPEC = struct.Struct("<qq")
_SECOND = 1_000_000_000
_STEP = 1_000_000  # ns; what synchronisation slews between two anchors is far less
_DOUBT = 200_000_000  # ns before a step was noticed in which it may have happened
_REMEMBERED = 120 * _SECOND


def measure_offset() -> int:
    """CLOCK_REALTIME minus CLOCK_MONOTONIC in ns: the tightest of five readings, so a preemption cannot spoil it."""
    best, offset = 1 << 62, 0
    for _ in range(5):
        before = time.monotonic_ns()
        real = time.time_ns()
        after = time.monotonic_ns()
        if after - before < best:
            best, offset = after - before, real - (before + after) // 2
    return offset


class Clock:
    """Converts stamps. `anchor` is called some times a second.

    A step of the wall clock between two anchors shows in stamps that would lie in the future, or long before the step.
    """

    def __init__(self) -> None:
        self._offset = self._before = measure_offset()
        self._stepped_at = 0

    def anchor(self) -> None:
        offset = measure_offset()
        if abs(offset - self._offset) > _STEP:
            self._before, self._stepped_at = self._offset, time.monotonic_ns()
        self._offset = offset

    def stamp(self) -> bytes:
        """A stamp of this moment, for a read that carries none."""
        return _TIMESPEC.pack(*divmod(time.monotonic_ns() + self._offset, _SECOND))

    def seconds(self, stamps: Sequence[bytes]) -> NDArray[np.float64]:
        """CLOCK_MONOTONIC seconds of raw stamps (struct timespec)."""
        raw = np.frombuffer(b"".join(stamps), "<i8")
        real = raw[::2] * _SECOND + raw[1::2]
        return np.asarray((self._sided(real) if self._stepped_at else real - self._offset) * 1e-9)

    def _sided(self, real: NDArray[np.int64]) -> NDArray[Any]:
        """For each stamp the side of the step that it is on."""
        after, before, now = real - self._offset, real - self._before, time.monotonic_ns()
        if now - self._stepped_at > _REMEMBERED:
            self._stepped_at = 0
            return after
        early = (after < self._stepped_at - _DOUBT) & (before <= self._stepped_at)
        return np.where((after > now) | early, before, after)
