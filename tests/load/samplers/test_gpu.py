"""GPUs beside a load: NVIDIA's own bindings over a made-up driver library, and AMD's by a made-up module."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pynvml
import pytest

from harness.catalog.limits import Limits
from harness.engines.base import EngineInfo
from harness.engines.endpoint import Endpoint
from harness.load.samplers.base import NotMeasured, SampledService
from harness.load.samplers.gpu import GpuSampler
from tests.load.samplers.made_up_nvml import A_CARD, made_up_library, say

Tell = Callable[..., None]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def tell(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Puts the made-up library in the place of NVIDIA's; called, it says what each GPU tells."""
    state = tmp_path / "gpus"
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(library)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setenv("FAKE_NVML", str(state))
    os.putenv("FAKE_NVML", str(state))

    return lambda *gpus: say(state, *gpus)


@pytest.fixture
def here() -> Iterator[str]:
    """The URL of a port at which this very process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def read(url: str, **info: bool) -> dict[tuple[str, str], float]:
    service = SampledService(Endpoint(url), EngineInfo("vllm", None, None, info.get("emulated", False), Limits()))
    return {
        (each.metric.removeprefix("harness:"), dict(each.labels)["gpu"]): each.value
        for each in GpuSampler(service).read()
    }


def test_a_card_is_read_in_plain_units(tell: Tell, here: str) -> None:
    """Milliwatts, millijoules, MHz and percent become watts, joules, hertz and shares; what slows it is named."""
    tell({**A_CARD, "pid": os.getpid()})
    assert read(here) == {
        ("gpu_power_watts", "0"): 71.5,
        ("gpu_energy_joules_total", "0"): 9000.25,
        ("gpu_memory_used_bytes", "0"): 3 << 30,
        ("gpu_memory_used_ratio", "0"): 0.125,
        ("gpu_busy_ratio", "0"): 0.93,
        ("gpu_clock_hertz", "0"): 1.41e9,
        ("gpu_memory_clock_hertz", "0"): 6.251e9,
        ("gpu_slowed_ratio", "0"): 1.0,
        ("gpu_slowed_by_power_cap_ratio", "0"): 1.0,
        ("gpu_slowed_by_heat_ratio", "0"): 0.0,
        ("gpu_slowed_by_power_brake_ratio", "0"): 0.0,
        ("gpu_slowed_by_hardware_ratio", "0"): 0.0,
    }


def test_what_a_card_does_not_tell_is_left_out(tell: Tell, here: str) -> None:
    """A card older than Volta counts no energy; the others of its figures stand all the same."""
    tell({"milliwatts": 30_000, "pid": os.getpid()})
    assert read(here) == {("gpu_power_watts", "0"): 30.0}


def test_only_the_card_that_serves_is_read(tell: Tell, here: str) -> None:
    """Of two GPUs the one that the process at the URL's port holds; the other one's work is somebody else's."""
    tell({**A_CARD, "pid": 1}, {**A_CARD, "pid": os.getpid()})
    assert {gpu for _, gpu in read(here)} == {"1"}


@pytest.mark.parametrize("gone", [psutil.NoSuchProcess(1), ProcessLookupError()], ids=["listener", "group"])
def test_a_server_that_ends_while_it_is_looked_at_is_not_measured(
    tell: Tell, here: str, monkeypatch: pytest.MonkeyPatch, gone: Exception
) -> None:
    """Which is said, so that the other samplers go on."""
    tell({**A_CARD, "pid": os.getpid()})

    def ended(number: int) -> None:
        raise gone

    whole = psutil if isinstance(gone, psutil.Error) else os
    monkeypatch.setattr(whole, "Process" if whole is psutil else "getpgid", ended)
    with pytest.raises(NotMeasured, match="cannot be seen"):
        read(here)


def test_a_card_that_a_child_of_the_server_holds_serves(tell: Tell, here: str) -> None:
    """Engines compute in processes of their own below the one that listens."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        tell({**A_CARD, "pid": child.pid})
        assert ("gpu_power_watts", "0") in read(here)
        child.communicate(b"\n")


@pytest.mark.parametrize(
    ("gpus", "url", "emulated", "why"),
    [
        ([{**A_CARD, "pid": 1}], None, False, "holds no GPU of this machine"),
        ([A_CARD, A_CARD], None, False, "which of this machine's 2 GPUs serves is not told"),
        ([A_CARD], "http://192.0.2.7:8080", False, r"the service runs elsewhere \(192.0.2.7\)"),
        ([{**A_CARD, "pid": os.getpid()}], None, True, "the engine is emulated, and no GPU serves"),
        ([], None, False, "NVIDIA's library lists no GPU"),
    ],
    ids=["held by another", "two in use", "another host", "emulated", "none"],
)
def test_a_card_that_may_not_serve_is_not_measured(
    tell: Tell, here: str, gpus: list[dict[str, int]], url: str | None, emulated: bool, why: str
) -> None:
    """Nothing is told of a GPU of which it is not known that it serves, and it is said why."""
    tell(*gpus)
    with pytest.raises(NotMeasured, match=why):
        read(url or here, emulated=emulated)


def test_without_the_drivers_library_nothing_is_measured(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without an NVIDIA driver says so; the run goes on."""
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr(pynvml, "CDLL", lambda name: ctypes.CDLL("lib-that-is-nowhere.so"))
    with pytest.raises(NotMeasured, match=r"NVIDIA's library does not answer: .*; AMD's library .* is not installed"):
        read(here)


def test_the_only_card_in_use_serves_where_processes_go_by_other_numbers(tell: Tell, here: str) -> None:
    """Within a container the driver names processes by the host's numbers: one card in use is the one that serves."""
    tell({**A_CARD, "pid": 2**22 + 7}, {**A_CARD, "used": 0})
    assert {gpu for _, gpu in read(here)} == {"0"}


def test_amds_cards_are_read_by_its_own_module(here: str, monkeypatch: pytest.MonkeyPatch, tell: Tell) -> None:
    """Where ROCm's bindings can be imported, their figures come under the same names; a text for none is left out."""

    class AmdSmiException(Exception):
        pass

    smi = ModuleType("amdsmi")
    vars(smi).update(
        AmdSmiException=AmdSmiException,
        AmdSmiClkType=SimpleNamespace(GFX=0),
        amdsmi_init=lambda: None,
        amdsmi_get_processor_handles=lambda: ["handle"],
        amdsmi_get_gpu_asic_info=lambda handle: {"market_name": "AMD Instinct MI300X"},
        amdsmi_get_gpu_process_list=lambda handle: [{"pid": os.getpid()}],
        amdsmi_get_power_info=lambda handle: {"current_socket_power": "N/A", "average_socket_power": 412},
        amdsmi_get_gpu_vram_usage=lambda handle: {"vram_used": 1024, "vram_total": 4096},
        amdsmi_get_gpu_activity=lambda handle: {"gfx_activity": 40},
        amdsmi_get_clock_info=lambda handle, kind: {"clk": "N/A"},
    )
    monkeypatch.setitem(sys.modules, "amdsmi", smi)
    tell()
    assert read(here) == {
        ("gpu_power_watts", "0"): 412.0,
        ("gpu_memory_used_bytes", "0"): 1 << 30,
        ("gpu_memory_used_ratio", "0"): 0.25,
        ("gpu_busy_ratio", "0"): 0.4,
    }
