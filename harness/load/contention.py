"""How long this process was ready to run and did not: the machine's own words, all counters since it began.

- run queue: other work had the processor (/proc/thread-self/schedstat, its second number)
- stolen: the hypervisor gave it to another guest (/proc/stat, `steal`, of all processors)
- throttled: the control group had used up its quota (/sys/fs/cgroup/cpu.stat, `throttled_usec`)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


class RunQueue:
    """Of the thread that makes it: at a microsecond a call it may be asked after every wait."""

    def __init__(self) -> None:
        try:
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # a kernel without it, such as gVisor
            self._file = -1
        self._before = self.total()

    def total(self) -> float:
        """Seconds since the thread began; 0 where the kernel does not tell."""
        if self._file < 0:
            return 0.0
        try:
            return int(os.pread(self._file, 80, 0).split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0

    def since(self) -> float:
        """Seconds since the last call."""
        before, self._before = self._before, self.total()
        return self._before - before

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@dataclass(frozen=True)
class Contention:
    """Seconds, since the machine, the control group or the thread began; 0 where nobody tells."""

    run_queue: float
    stolen: float
    throttled: float

    @classmethod
    def now(cls, queue: RunQueue) -> Contention:
        return cls(queue.total(), stolen(), throttled())

    def since(self, before: Contention) -> Contention:
        return Contention(
            self.run_queue - before.run_queue, self.stolen - before.stolen, self.throttled - before.throttled
        )


def stolen() -> float:
    """Seconds that the hypervisor gave to other guests, of all processors, since the machine began."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            return int(file.readline().split()[8]) / _TICK
    except (OSError, ValueError, IndexError):
        return 0.0


def throttled() -> float:
    """Seconds that this control group's CPU quota held it back, since it began."""
    try:
        lines = Path("/sys/fs/cgroup/cpu.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1e6 for line in lines if line.startswith("throttled_usec "))


def waiting(kind: str) -> float | None:
    """Seconds in which some task of this machine waited for `cpu`, `memory` or `io`, since the machine began: the
    kernel's pressure stall information (Documentation/accounting/psi.rst), its microseconds of `some`. None without.
    """
    try:
        with open(f"/proc/pressure/{kind}", encoding="ascii") as file:
            return int(file.readline().rpartition("total=")[2]) / 1e6
    except (OSError, ValueError):
        return None
