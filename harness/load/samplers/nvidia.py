"""NVIDIA's GPUs, by its own bindings of NVML.

Units by NVIDIA's NVML API Reference: milliwatts, millijoules since the driver was loaded (Volta and newer), MHz, bytes,
and percent of the time of the last sample (a sixth of a second to a second) in which a kernel ran.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import suppress

import pynvml

from harness.load.samplers.cards import Card, NoLibrary

_SLOWED = {  # bits of nvmlClocksEventReasons that mean that the card runs slower than it could
    "power_cap": pynvml.nvmlClocksEventReasonSwPowerCap,
    "heat": pynvml.nvmlClocksEventReasonSwThermalSlowdown | pynvml.nvmlClocksEventReasonHwThermalSlowdown,
    "power_brake": pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    "hardware": pynvml.nvmlClocksEventReasonHwSlowdown,
}


class NvidiaCard:
    def __init__(self, index: int) -> None:
        self.index = str(index)
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        self.name = str(pynvml.nvmlDeviceGetName(self._handle))

    def processes(self) -> Set[int]:
        with suppress(pynvml.NVMLError):
            return {int(each.pid) for each in pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)}
        return frozenset()

    def read(self) -> Mapping[str, float]:
        found: dict[str, float] = {}
        for take in (self._power, self._energy, self._memory, self._use, self._clocks, self._slowed):
            try:
                found |= take()
            except pynvml.NVMLError as error:
                if error.value == pynvml.NVML_ERROR_GPU_IS_LOST:
                    raise NoLibrary(f"GPU {self.index} fell off the bus while it was read") from error
        return found

    def _power(self) -> Mapping[str, float]:
        return {"gpu_power_watts": pynvml.nvmlDeviceGetPowerUsage(self._handle) / 1e3}

    def _energy(self) -> Mapping[str, float]:
        return {"gpu_energy_joules_total": pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3}

    def _memory(self) -> Mapping[str, float]:
        told = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
        return {"gpu_memory_used_bytes": float(told.used), "gpu_memory_used_ratio": told.used / max(1, told.total)}

    def _use(self) -> Mapping[str, float]:
        return {"gpu_busy_ratio": pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu / 100}

    def _clocks(self) -> Mapping[str, float]:
        clock: Callable[[int], int] = lambda kind: pynvml.nvmlDeviceGetClockInfo(self._handle, kind)  # noqa: E731
        return {
            "gpu_clock_hertz": clock(pynvml.NVML_CLOCK_SM) * 1e6,
            "gpu_memory_clock_hertz": clock(pynvml.NVML_CLOCK_MEM) * 1e6,
        }

    def _slowed(self) -> Mapping[str, float]:
        try:
            reasons = pynvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle)
        except pynvml.NVMLError_FunctionNotFound:  # drivers before 535 have it under its older name
            reasons = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)
        known = {f"gpu_slowed_by_{name}_ratio": float(bool(reasons & bits)) for name, bits in _SLOWED.items()}
        return {"gpu_slowed_ratio": max(known.values()), **known}


def cards() -> Iterator[Card]:
    """All of this host. Raises NoLibrary where there is no driver."""
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        found = [NvidiaCard(index) for index in range(count)]
    except pynvml.NVMLError as error:
        raise NoLibrary(f"NVIDIA's library does not answer: {error}") from error
    if not found:
        raise NoLibrary("NVIDIA's library lists no GPU")
    return iter(found)


def close() -> None:
    with suppress(pynvml.NVMLError):
        pynvml.nvmlShutdown()
