"""Validity rules about the machines: whether others used the client's, and whether GPUs were throttled."""

from __future__ import annotations

from collections.abc import Iterator

from harness.stats.evidence import Evidence, Reason
from harness.units import format_duration, format_percent

KEPT_OFF = 0.01  # of the time: from here on other work explains what came late
IDLE = 0.5  # of a core: a load process that uses less has room, and more of them would not help
BUSY_MOST, STOLEN_MOST = 0.95, 0.02  # mean share of all processors in use; taken by the hypervisor
SLOWED_MOST = 0.05  # of the readings


def why_late(evidence: Evidence, busy_least: float, otherwise: str) -> str:
    """Whose fault it was, by what the machine tells: more load processes help only where the load is too much.

    busy_least: share of a core from which a load process has no room itself. otherwise: what to do where nobody else is
    to blame.
    """
    seconds, processors = max(evidence.window.length, 1e-9), _processors(evidence)
    throttled, stolen, queue = (_each(evidence, name) for name in ("throttled", "stolen", "run_queue"))
    # A thread that its quota holds back is in the run queue meanwhile; one that is stolen from seems to run.
    other = max(0.0, queue - throttled)
    most = max(throttled, stolen / processors, other)
    busy = max((each.cpu_fraction for each in evidence.samples), default=0.0)
    own = _mean_cpu(evidence) * _processes(evidence)
    if most <= KEPT_OFF * seconds:
        return otherwise if busy > IDLE or not evidence.samples else _nobody_to_blame(evidence)
    if most == throttled:
        return f"Its control group's CPU quota held the client back for {format_duration(throttled)}: give it more."
    if most == other and own > busy_least * processors:
        return (
            f"The load processes alone used {own:.1f} of this machine's {processors} processors: lower --processes, or "
            "measure from a larger machine."
        )
    if most == other:
        if busy >= busy_least:
            return otherwise
        kept = format_duration(other)
        return f"Other work kept the client off the processor for {kept}: end it, or measure from elsewhere."
    return f"The hypervisor took {format_duration(stolen)} of CPU time from this machine: measure from a quieter one."


def _nobody_to_blame(evidence: Evidence) -> str:
    """A client that had time, and was late all the same."""
    waited = evidence.telemetry.mean("host_memory_waiting_ratio")
    if waited is not None and waited > KEPT_OFF:
        return f"This machine's processes waited for memory {format_percent(waited)} of the time: give it more."
    return (
        "The client had a processor and was late all the same: it was stopped (a debugger, a frozen container, a "
        "virtual machine that was paused), or this kernel does not tell what kept it off. Run it again."
    )


def _each(evidence: Evidence, name: str) -> float:
    """Seconds of one load process, as their mean. What the machine and the control group tell, each of them noted."""
    return sum(float(getattr(each, name)) for each in evidence.samples) / _processes(evidence)


def _processes(evidence: Evidence) -> int:
    return max(1, len({each.process for each in evidence.samples}))


def _mean_cpu(evidence: Evidence) -> float:
    return sum(each.cpu_fraction for each in evidence.samples) / max(1, len(evidence.samples))


def _processors(evidence: Evidence) -> int:
    told = evidence.manifest.host.get("cpus")
    return told if isinstance(told, int) and told > 0 else 1


def busy_machine(evidence: Evidence) -> Iterator[Reason]:
    """A client's machine without idle processors, or one whose host serves others meanwhile, may itself be slow."""
    told = evidence.telemetry
    busy, stolen = told.mean("host_cpu_ratio"), told.mean("host_steal_ratio")
    if stolen is not None and stolen > STOLEN_MOST:
        found = f"the hypervisor took {format_percent(stolen)} of this machine's CPU time"
        yield Reason("busy_machine", found, format_percent(STOLEN_MOST), "Measure from a quieter machine.", "client")
    elif busy is not None and busy > BUSY_MOST:
        own = _mean_cpu(evidence) * _processes(evidence)
        used = f"; the load processes used {own:.1f} cores of them" if evidence.samples else ""
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
