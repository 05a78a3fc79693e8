"""GPUs from the driver's library to the report, through the command line: a made-up NVML beside a real load."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.commands.test_rerun import emulator
from tests.load.front import Front, standing
from tests.load.samplers.made_up_nvml import A_CARD, made_up_library, say

WATTS = 71.5
UNSEEN = Front(says=(b"harness-emulator", b"the real thing "))  # of the same length; else it is no GPU's work


@dataclass(frozen=True)
class Measured:
    """What one bench left."""

    summary: dict[str, Any]
    report: str
    rows: list[dict[str, Any]]
    requests: list[dict[str, Any]]

    @property
    def level(self) -> dict[str, Any]:
        return dict(self.summary["levels"][0])

    def series(self, name: str, gpu: str) -> tuple[list[float], list[float]]:
        """Moments and values of one figure of one GPU, as they stand in server.parquet."""
        mine = [row for row in self.rows if row["metric"] == f"harness:{name}" and dict(row["labels"])["gpu"] == gpu]
        return [row["at"] for row in mine], [row["value"] for row in mine]


def bench(url: str, folder: Path, libraries: Path, state: Path) -> Measured:
    """By the command line, in an environment where this library is the driver's."""
    command = [sys.executable, "-m", "harness", "bench", "--url", url, "--users", "4", "--duration", "5s"]
    command += ["--warmup", "1s", "--output-tokens", "uniform:20:60", "--output", str(folder)]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries), "FAKE_NVML": str(state)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stderr
    return Measured(
        json.loads((folder / "summary.json").read_text()),
        (folder / "report.md").read_text(),
        pq.read_table(folder / "server.parquet").to_pylist(),
        pq.read_table(folder / "records.parquet").to_pylist(),
    )


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """A service of this very process that does not tell that it is emulated."""
    with emulator() as behind, standing(UNSEEN, behind) as front:
        yield f"http://127.0.0.1:{front.port}"


@pytest.fixture(scope="module")
def measured(service: str, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Beside two GPUs: one that serves and counts its energy as it takes it, and another one's."""
    place = tmp_path_factory.mktemp("gpus")
    library, state, over = made_up_library(place), place / "gpus", threading.Event()

    def tell() -> None:
        began = time.monotonic()
        while True:
            taken = int(1e3 * WATTS * (time.monotonic() - began))
            serves = {**A_CARD, "millijoules": A_CARD["millijoules"] + taken, "pid": os.getpid()}
            say(state, {**A_CARD, "milliwatts": 300_000, "pid": 1}, serves)
            if over.wait(0.05):
                return

    teller = threading.Thread(target=tell)
    teller.start()
    try:
        return bench(service, place / "run", library.parent, state)
    finally:
        over.set()
        teller.join()


def test_what_the_gpu_tells_stands_in_the_table(measured: Measured) -> None:
    """Of the one that serves, once a second, in plain units; nothing of the other one's."""
    expected = {
        "gpu_power_watts": WATTS, "gpu_memory_used_bytes": 3 << 30, "gpu_memory_used_ratio": 0.125,
        "gpu_busy_ratio": 0.93, "gpu_clock_hertz": 1.41e9, "gpu_memory_clock_hertz": 6.251e9,
        "gpu_slowed_ratio": 1.0, "gpu_slowed_by_power_cap_ratio": 1.0, "gpu_slowed_by_heat_ratio": 0.0,
    }  # fmt: skip
    for name, value in expected.items():
        assert set(measured.series(name, "1")[1]) == {value}
        assert len(measured.series(name, "1")[1]) >= 5
    assert measured.series("gpu_power_watts", "0") == ([], [])
    counted = measured.series("gpu_energy_joules_total", "1")[1]
    assert counted == sorted(counted)
    assert counted[0] >= A_CARD["millijoules"] / 1e3


def test_joules_per_token_come_out_again_by_hand(measured: Measured) -> None:
    """The counter at both ends of the window, over the tokens that came in it."""
    start, end = measured.level["window"]
    at, counter = measured.series("gpu_energy_joules_total", "1")
    joules = float(np.interp(end, at, counter) - np.interp(start, at, counter))
    tokens = sum(
        count
        for request in measured.requests
        for moment, count in zip(request["token_at"], request["token_count"], strict=True)
        if start <= moment < end
    )
    told = measured.level["telemetry"]["gpu"]
    assert told["energy_joules"] == pytest.approx(joules)
    assert told["joules_per_output_token"] == pytest.approx(joules / tokens)
    assert 0.5 < joules / (WATTS * (end - start)) < 2  # the counter is moved by a thread that may come late
    assert (told["power_watts_mean"], told["busy_ratio_mean"]) == (pytest.approx(WATTS), pytest.approx(0.93))


def test_the_report_says_it(measured: Measured) -> None:
    """With its unit, and that the GPU held its clocks back."""
    told = measured.level["telemetry"]["gpu"]
    assert f"| Energy per output token | {told['joules_per_output_token']:.3g} J |" in measured.report
    assert re.search(r"\| Power of all GPUs that serve \| 71\.5 W \(71\.5\) \|", measured.report)
    assert re.search(r"\| GPU 1 clock \| 1,410 MHz \(1,410\) \|", measured.report)
    assert "the GPU held its clocks back at 100 % of the readings, mostly for: power cap" in measured.report


def test_without_a_makers_library_it_says_not_measured(service: str, tmp_path: Path) -> None:
    """Neither NVIDIA's nor AMD's: one reason for each, and no figure."""
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"")
    found = bench(service, tmp_path / "run", tmp_path, tmp_path / "none")
    assert not [row for row in found.rows if row["metric"].startswith("harness:gpu_power")]
    why = found.level["telemetry"]["not_measured"]["gpu"]
    assert why.startswith("NVIDIA's library does not answer")
    assert "AMD's library (amdsmi) is not installed" in why
    assert found.level["telemetry"]["gpu"]["joules_per_output_token"] is None
    assert "The GPU was not measured: NVIDIA's library does not answer" in found.report
