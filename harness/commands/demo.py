"""`harness demo`: up, probe, bench and report on the embedded emulator, without a GPU or Docker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.commands.bench import bench
from harness.commands.probe import ProbeOptions, ProbeReport, probe
from harness.commands.up import ServiceStatus, up, up_text
from harness.drive.bench_plan import BenchPlan, Loads
from harness.drive.bench_result import BenchResult
from harness.engines import load_catalogue
from harness.errors import Interrupted, UsageError
from harness.serve.target import Target
from harness.stack.process import ProcessService
from harness.stack.running import service_named
from harness.stack.shutdown import stop_in_order

_BENCH = BenchPlan(loads=Loads(users=(1, 4, 16), duration=12.0, warmup=2.0))
_PROBE = ProbeOptions(quick=True)  # the proof under load fills the whole KV cache, which takes minutes
_STEPS = 3


@dataclass(frozen=True)
class DemoResult:
    """What each stage gave."""

    running: ServiceStatus
    limits: ProbeReport
    load: BenchResult

    def as_json(self) -> dict[str, Any]:
        return {"up": self.running.as_json(), "probe": self.limits.as_json(), "bench": self.load.as_json()}

    def as_text(self) -> str:
        return "\n\n".join(
            [
                "1. up\n" + up_text([self.running]),
                "2. probe\n" + self.limits.as_text(),
                "3. bench\n" + self.load.as_text(),
                "Everything above came from the emulator: its figures are simulated.",
            ]
        )


def demo(output: Path | None, progress: Callable[[str], None]) -> DemoResult:
    """Run all stages on the catalogue's first model and stop what was started, whatever happens."""
    model = next(iter(load_catalogue(None).models))
    target = Target(model=model, runtime="embedded")
    progress(f"1 of {_STEPS}: up. Starting the emulator for {model}")
    if service_named(model) is not None:
        raise UsageError(f"{model} is up", advice=f"The demo would replace it: `harness down {model}` first.")
    (started,) = up([target], outlives_harness=False, progress=progress)
    service = service_named(model)
    assert isinstance(service, ProcessService)
    try:
        service.end_with_harness()
        progress(f"2 of {_STEPS}: probe. Finding the limits of this model on {started.gpu}")
        limits = probe(target, _PROBE, progress=progress)
        progress(f"3 of {_STEPS}: bench. 1, 4 and 16 users on what `up` started")
        load = bench(target, replace(_BENCH, output=output), progress=progress)
    finally:
        stop_in_order(service)
    if load.interrupted:
        raise Interrupted(where=str(load.folder.path), advice="The report there holds what was recorded.")
    return DemoResult(started, limits, load)
