"""The client's own machine: whether it has room for the load, or others use it meanwhile.

How long each load process was kept off its processor is its own to tell (measure/client.py, by load/contention.py);
this is about the machine, from the same counters.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

import psutil

from harness.load.contention import stolen, throttled, waiting
from harness.load.samplers.base import SampledService, SampledValue, own


class HostSampler:
    """Shares of the time since the last reading; none at the first, which only begins them.

    host_cpu_ratio, host_steal_ratio: of all processors. host_cpu_waiting_ratio, host_memory_waiting_ratio: time in
    which some task waited for it. host_throttled_ratio: time in which the CPU quota held this control group back.
    host_load_ratio: runnable tasks by the mean of a minute, per processor. host_memory_used_ratio: of what can be had.
    """

    name = "host"

    def __init__(self, service: SampledService) -> None:
        self._processors = os.cpu_count() or 1
        self._before: tuple[float, Mapping[str, float]] | None = None

    def read(self) -> Sequence[SampledValue]:
        now, counters = time.monotonic(), self._counters()
        before, self._before = self._before, (now, counters)
        found = {
            "host_load_ratio": os.getloadavg()[0] / self._processors,
            "host_memory_used_ratio": psutil.virtual_memory().percent / 100,
        }
        if before is not None and now > before[0]:
            passed = now - before[0]
            found |= {
                name: min(1.0, max(0.0, value - before[1][name]) / passed)
                for name, value in counters.items()
                if name in before[1]
            }
        return [own(name, value) for name, value in found.items()]

    def close(self) -> None:
        pass

    def _counters(self) -> dict[str, float]:
        """Seconds since the machine began, those of its processors as their mean."""
        times = psutil.cpu_times()
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0)
        busy -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # in `user` and `nice` already
        known = {
            "host_cpu_ratio": busy / self._processors,
            "host_steal_ratio": stolen() / self._processors,
            "host_throttled_ratio": throttled(),
            "host_cpu_waiting_ratio": waiting("cpu"),
            "host_memory_waiting_ratio": waiting("memory"),
        }
        return {name: value for name, value in known.items() if value is not None}
