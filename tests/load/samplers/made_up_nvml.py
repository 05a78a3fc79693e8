"""NVIDIA's library made up: built from fake_nvml.c, which tells of each GPU what stands in a file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

A_CARD = {
    "milliwatts": 71_500, "millijoules": 9_000_250, "used": 3 << 30, "total": 24 << 30, "busy": 93,
    "sm": 1_410, "mem": 6_251, "reasons": 0x4,
}  # fmt: skip


def made_up_library(folder: Path) -> Path:
    """The library, built there; skips the test where nothing builds it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to build a stand-in for NVIDIA's library")
    path = folder / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("fake_nvml.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(path), str(source)], check=True)
    return path


def say(state: Path, *gpus: dict[str, int]) -> None:
    """What each GPU tells from now on, in one step. state: the file that FAKE_NVML names."""
    lines = [f"count 0 {len(gpus)}"]
    lines += [f"{name} {index} {value}" for index, gpu in enumerate(gpus) for name, value in gpu.items()]
    beside = state.with_suffix(".new")
    beside.write_text("\n".join(lines))
    beside.replace(state)
