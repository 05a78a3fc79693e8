"""AMD's GPUs, by the bindings that come with ROCm (not a package we depend on: each release of ROCm has its own).

Units by AMD SMI's Python API reference: watts, percent, MB, MHz; a figure that a card does not have is the text "N/A".
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from typing import Any

from harness.load.samplers.cards import Card, NoLibrary
from harness.units import MIB


class AmdCard:
    def __init__(self, library: Any, index: int, handle: Any) -> None:
        self._smi, self._handle = library, handle
        self.index = str(index)
        self.name = str(library.amdsmi_get_gpu_asic_info(handle).get("market_name", "AMD GPU"))

    def processes(self) -> Set[int]:
        with suppress(self._smi.AmdSmiException):
            return {int(each["pid"]) for each in self._smi.amdsmi_get_gpu_process_list(self._handle)}
        return frozenset()

    def read(self) -> Mapping[str, float]:
        found: dict[str, float] = {}
        for take in (self._power, self._memory, self._use, self._clocks):
            with suppress(self._smi.AmdSmiException):
                found |= {name: value for name, value in take().items() if value is not None}
        return found

    def _power(self) -> Mapping[str, float | None]:
        told = self._smi.amdsmi_get_power_info(self._handle)
        now = _number(told.get("current_socket_power"))
        return {"gpu_power_watts": now if now is not None else _number(told.get("average_socket_power"))}

    def _memory(self) -> Mapping[str, float | None]:
        told = self._smi.amdsmi_get_gpu_vram_usage(self._handle)
        used, total = _number(told.get("vram_used")), _number(told.get("vram_total"))
        if used is None:
            return {}
        return {"gpu_memory_used_bytes": used * MIB, "gpu_memory_used_ratio": used / total if total else None}

    def _use(self) -> Mapping[str, float | None]:
        busy = _number(self._smi.amdsmi_get_gpu_activity(self._handle).get("gfx_activity"))
        return {"gpu_busy_ratio": None if busy is None else busy / 100}

    def _clocks(self) -> Mapping[str, float | None]:
        told = _number(self._smi.amdsmi_get_clock_info(self._handle, self._smi.AmdSmiClkType.GFX).get("clk"))
        return {"gpu_clock_hertz": None if told is None else told * 1e6}


def _number(told: Any) -> float | None:
    return float(told) if isinstance(told, int | float) and not isinstance(told, bool) else None


def cards() -> Iterator[Card]:
    """All of this host. Raises NoLibrary without ROCm's bindings or its driver."""
    try:
        library = importlib.import_module("amdsmi")
    except (ImportError, OSError, KeyError) as error:  # it looks for its own library as it is imported
        raise NoLibrary("AMD's library (amdsmi) is not installed") from error
    try:
        library.amdsmi_init()
        handles = library.amdsmi_get_processor_handles()
        found = [AmdCard(library, index, handle) for index, handle in enumerate(handles)]
    except library.AmdSmiException as error:
        raise NoLibrary(f"AMD's library does not answer: {error}") from error
    if not found:
        raise NoLibrary("AMD's library lists no GPU")
    return iter(found)


def close() -> None:
    pass  # its own exit handler shuts it down
