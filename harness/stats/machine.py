"""Whether the machines had room for the run: the client's, which others may use, and the GPUs, which may slow down."""

from __future__ import annotations

from collections.abc import Iterator

from harness.stats.evidence import Evidence, Reason
from harness.units import format_duration, format_percent

KEPT_OFF = 0.01  # of the time: from here on other work explains what came late
BUSY_MOST, STOLEN_MOST = 0.95, 0.02  # mean share of all processors in use; taken by the hypervisor
SLOWED_MOST = 0.05  # of the readings


def why_late(evidence: Evidence, busy_least: float, otherwise: str) -> str:
    """Whose fault it was, by what the machine tells: more load processes help only where the load is too much.

    busy_least: share of a core from which a load process has no room itself. otherwise: what to do where nobody else is
    to blame.
    """
    samples = evidence.samples
    seconds = max(evidence.window.length * len({each.process for each in samples}), 1e-9)
    names = ("run_queue", "stolen", "throttled")
    queue, stolen, throttled = (sum(getattr(each, name) for each in samples) for name in names)
    if throttled / seconds > KEPT_OFF:
        return f"Its control group's CPU quota held the client back for {format_duration(throttled)}: give it more."
    if stolen / seconds > KEPT_OFF:
        return (
            f"The hypervisor took {format_duration(stolen)} of CPU time from this machine: measure from a quieter one."
        )
    busy = max((each.cpu_fraction for each in samples), default=0.0)
    if queue / seconds > KEPT_OFF and busy < busy_least:
        kept = format_duration(queue)
        return f"Other work kept the client off the processor for {kept}: end it, or measure from elsewhere."
    return otherwise


def busy_machine(evidence: Evidence) -> Iterator[Reason]:
    """A client's machine without idle processors, or one whose host serves others meanwhile, may itself be slow."""
    told = evidence.telemetry
    busy, stolen = told.mean("host_cpu_ratio"), told.mean("host_steal_ratio")
    if stolen is not None and stolen > STOLEN_MOST:
        found = f"the hypervisor took {format_percent(stolen)} of this machine's CPU time"
        yield Reason("busy_machine", found, format_percent(STOLEN_MOST), "Measure from a quieter machine.", "client")
    elif busy is not None and busy > BUSY_MOST:
        own = sum(each.cpu_fraction for each in evidence.samples)
        moments = len(evidence.samples) / max(1, len({each.process for each in evidence.samples}))
        used = f"; the load processes used {own / moments:.1f} cores of them" if moments else ""
        found = f"this machine's processors were {format_percent(busy)} busy{used}"
        advice = "End what else runs here, or measure from another machine: what waits for a processor is late."
        yield Reason("busy_machine", found, format_percent(BUSY_MOST), advice, "client")


def gpu_slowed(evidence: Evidence) -> Iterator[Reason]:
    """A GPU that runs slower than it could serves less than one of its kind in a cooler or better fed place."""
    told = evidence.telemetry
    if told.slowed is None or told.slowed <= SLOWED_MOST:
        return
    causes = {
        name.removeprefix("gpu_slowed_by_").removesuffix("_ratio").replace("_", " "): told.mean(name) or 0.0
        for name in {each.name for each in told.readings if each.name.startswith("gpu_slowed_by_")}
    }
    main = max(sorted(causes), key=causes.__getitem__, default="")
    found = f"the GPU held its clocks back at {format_percent(told.slowed)} of the readings"
    found += f", mostly for: {main}" if causes else ""
    advice = "These are this card's figures in this place; see its power limit and its cooling."
    yield Reason("gpu_slowed", found, format_percent(SLOWED_MOST), advice, "server")
