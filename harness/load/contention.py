"""How long this process was ready to run but did not: the kernel's counters, each since the machine or thread began.

- run queue: other work had the processor (/proc/thread-self/schedstat, its second number)
- stolen: the hypervisor gave it to another guest (/proc/stat, `steal`, of all processors)
- throttled: the control group had used up its quota (its cpu.stat: `throttled_usec`, `throttled_time`)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
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
    """Seconds that a CPU quota held this process's control group back, since it began: the most of its own and of those
    above it, any of which may have the quota.
    """
    return max((_throttled(file) for file in quota_files()), default=0.0)


@cache
def quota_files(told: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> tuple[Path, ...]:
    """cpu.stat of this process's control group and of those above it, as far as they can be seen from here; of version
    2 and of version 1 (cgroups(7)). A container sees its own group at the top, whatever its path says.
    """
    try:
        lines = told.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    found: dict[Path, None] = {}
    for line in ("0::/", *lines):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        tops = (mounted, mounted / "unified") if number == "0" else (mounted / controllers, mounted / "cpu")
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for top in tops:
            for depth in range(len(parts), -1, -1):
                found[top.joinpath(*parts[:depth], "cpu.stat")] = None
    return tuple(file for file in found if file.is_file())


def _throttled(file: Path) -> float:
    """Microseconds in version 2, nanoseconds in version 1."""
    try:
        counters = dict(line.split() for line in file.read_text(encoding="ascii").splitlines())
        return int(counters.get("throttled_usec", 0)) / 1e6 + int(counters.get("throttled_time", 0)) / 1e9
    except (OSError, ValueError):
        return 0.0


def waiting(kind: str) -> float | None:
    """Seconds in which some task of this machine waited for `cpu`, `memory` or `io`, since the machine began: the
    kernel's pressure stall information (Documentation/accounting/psi.rst), its microseconds of `some`. None without.
    """
    try:
        with open(f"/proc/pressure/{kind}", encoding="ascii") as file:
            return int(file.readline().rpartition("total=")[2]) / 1e6
    except (OSError, ValueError):
        return None
