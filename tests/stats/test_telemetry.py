"""What GPUs and the client's machine amount to over a level, against figures by hand."""

from __future__ import annotations

import numpy as np
import pytest

from harness.measure.client import ClientFacts, ClientSample
from harness.measure.records import Records
from harness.measure.server import ServerSamples
from harness.stats.summary import summarise
from harness.stats.telemetry import counted, integrated, telemetry
from harness.stats.window import Window
from tests.runs import closed_level, closed_loop, manifest

WINDOWS = (Window(2.0, 6.0, 0.0, "made up"),)


def series(**values: list[float]) -> ServerSamples:
    """One reading a second, from second 0 on; `name__0` is that of GPU 0."""
    named = {
        name.partition("__")[0] + (f"{{gpu={name[-1]}}}" if "__" in name else ""): each for name, each in values.items()
    }
    return ServerSamples({name: (np.arange(len(each), dtype=float), np.array(each)) for name, each in named.items()})


def test_joules_per_token_by_hand() -> None:
    """Two GPUs count 100 J and 50 J a second: 600 J in four seconds, over 300 tokens 2 J each."""
    known = series(
        gpu_energy_joules_total__0=[100.0 * n for n in range(9)],
        gpu_energy_joules_total__1=[7 + 50.0 * n for n in range(9)],
        gpu_power_watts__0=[0, 0, 90, 100, 110, 100, 500, 0, 0],
        gpu_power_watts__1=[0, 0, 40, 50, 60, 50, 500, 0, 0],
    )
    found = telemetry(known, WINDOWS, 300)
    assert (found.energy, found.per_token) == (600.0, 2.0)
    assert (found.power, found.power_most) == (150.0, 170.0)


def test_without_a_counter_energy_is_power_over_time() -> None:
    """The trapezoids between the readings at 2, 3, 4, 5 and 6 s: 15 + 25 + 35 + 45 J."""
    known = series(gpu_power_watts__0=[0, 0, 10, 20, 30, 40, 50, 0])
    found = telemetry(known, WINDOWS, 60)
    assert (found.energy, found.per_token) == (120.0, 2.0)


@pytest.mark.parametrize("of", [counted, integrated])
def test_between_readings_it_is_linear_and_beyond_them_unknown(of: object) -> None:
    """From 1.5 s to 3.5 s; a level that was not watched to its end has no energy."""
    moments = np.arange(6, dtype=float)
    values = {counted: 10 * moments, integrated: np.full(6, 10.0)}[of]  # type: ignore[index]
    assert of((moments, values), 1.5, 3.5) == pytest.approx(20.0)  # type: ignore[operator]
    assert of((moments, values), 1.5, 30.0) is None  # type: ignore[operator]


def test_tokens_that_are_not_told_leave_energy_alone() -> None:
    """Joules are known, and those of a token are not."""
    found = telemetry(series(gpu_power_watts__0=[10.0] * 8), WINDOWS, float("nan"))
    assert (found.energy, found.per_token) == (40.0, None)


def test_any_reading_with_a_unit_is_told() -> None:
    """A new sampler's figures need no line here: mean and most in the window, by name and labels."""
    found = telemetry(series(fan_speed_ratio__3=[0, 0, 0.25, 0.75, 0.5, 0.5, 1, 1], running=[9.0] * 8), WINDOWS, 1)
    (only,) = found.readings
    assert (only.name, only.of, only.mean, only.most) == ("fan_speed_ratio", "gpu=3", 0.5, 0.75)


@pytest.mark.parametrize(
    ("values", "rule", "words"),
    [
        ({"host_cpu_ratio": 0.99}, "busy_machine", "99.0 % busy; the load processes used 0.6 cores of them"),
        ({"host_steal_ratio": 0.05, "host_cpu_ratio": 0.99}, "busy_machine", "the hypervisor took 5.00 %"),
        ({"gpu_slowed_ratio": 1.0, "gpu_slowed_by_heat_ratio": 1.0, "gpu_slowed_by_power_cap_ratio": 0.1},
         "gpu_slowed", "mostly for: heat"),
        ({"host_cpu_ratio": 0.5, "host_steal_ratio": 0.0, "gpu_slowed_ratio": 0.0}, None, ""),
    ],
)  # fmt: skip
def test_a_machine_without_room_is_named(values: dict[str, float], rule: str | None, words: str) -> None:
    """A busy client's machine and a GPU that holds its clocks back stand among what is to be read with care."""
    level = closed_level(0, 4, 0.0, 60.0, warmup=0.0)
    samples = tuple(
        ClientSample(float(second), str(process), 0.3, 0.001, events=100, late_events=0, answers=10)
        for second in range(1, 61) for process in range(2)
    )  # fmt: skip
    known = series(**{name: [value] * 61 for name, value in values.items()})
    summary = summarise(Records.from_list(closed_loop(level)), manifest([level]), ClientFacts(samples), known)
    found = {each.rule: each.found for each in summary.total.warnings if each.rule in ("busy_machine", "gpu_slowed")}
    assert set(found) == ({rule} if rule else set())
    assert words in "".join(found.values())
