"""`harness status`, `logs` and `down`: what `up` left running."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness import terminal
from harness.catalog.limits import Limits
from harness.commands.up import ServiceStatus, running_of, running_sidecar
from harness.engines import engine_named
from harness.errors import MissingError, UsageError
from harness.serve import sidecars
from harness.serve.target import Say
from harness.sizing.predicted import compare
from harness.stack.readiness import gauges_now, look_at
from harness.stack.running import all_services, projects_at_work
from harness.stack.service import OwnService, State
from harness.units import format_count, format_percent


def status(names: Sequence[str] = ()) -> list[ServiceStatus]:
    """Everything that was started and not stopped, or what is named; what ended by itself has the phase `exited`."""
    return [_status_of(service) for service in _chosen(names)]


def _status_of(service: OwnService) -> ServiceStatus:
    record = service.record
    gpu = record.gpu if record else None
    try:
        state = service.state()
    except MissingError as error:  # Docker does not run; what else there is, is shown all the same
        runtime = record.runtime if record else "unknown"
        return ServiceStatus(service.name, runtime, service.endpoint.url, "unknown", gpu=gpu, detail=error.found)
    if sidecars.is_sidecar(service):
        return running_sidecar(service)
    looked = look_at(service) if state.running else None
    if looked is not None:
        return _with_load(running_of(service, looked, gpu), service)
    facts = service.facts()
    return ServiceStatus(
        name=service.name,
        runtime=facts.runtime,
        url=service.endpoint.url,
        phase="starting" if state.running else "exited",
        engine=facts.engine,
        engine_version=facts.engine_version,
        emulated=bool(record and record.emulated),
        gpu=gpu,
        image=facts.image,
        image_digest=facts.image_digest,
        detail=state.detail if state.running else _cause_of_death(service, state),
    )


def _cause_of_death(service: OwnService, state: State) -> str | None:
    """Why it ended, where its log names it, beside the runtime's own word."""
    lines = list(deque(service.all_log_lines(), maxlen=_LAST_LINES))
    failure = engine_named(service.facts().engine).explain(
        lines, state.exit_code, memory_limit_hit=state.memory_limit_hit
    )
    if state.exit_code == 0 or failure.cause == "unknown":
        return state.detail
    return f"{state.detail}: {failure.found}" if state.detail else failure.found


_LAST_LINES = 2000


def _with_load(running: ServiceStatus, service: OwnService) -> ServiceStatus:
    """With the limits that only the start-up log told, and with what it is doing now."""
    known = service.record.limits if service.record else {}
    limits = {name: value or known.get(name) for name, value in vars(running.limits).items()}
    load = gauges_now(service.endpoint, engine_named(service.facts().engine))
    budget = limits.get("max_batch_total_tokens")
    used = load.kv_used
    if used is None and budget and load.kv_tokens is not None:
        used = min(1.0, load.kv_tokens / budget)
    return replace(
        running,
        limits=Limits(**limits),
        predicted=tuple(compare(service.record.predicted if service.record else {}, limits)),
        queue=None if load.waiting is None else int(load.waiting),
        batch=None if load.running is None else int(load.running),
        kv_use=used,
    )


def status_text(running: Sequence[ServiceStatus]) -> str:
    """One line per service."""
    if not running:
        return "nothing runs"
    header = [
        "name",
        "phase",
        "runtime",
        "endpoint",
        "running",
        "queued",
        "KV used",
        "token budget",
        "predicted",
        "GPU",
    ]
    return terminal.table([_row(each) for each in running], header)


def _row(each: ServiceStatus) -> list[str]:
    budget = each.limits.max_batch_total_tokens
    return [
        each.name,
        each.phase if each.detail is None or each.phase == "ready" else f"{each.phase} ({each.detail})",
        each.runtime + (", emulated" if each.emulated and each.runtime != "embedded" else ""),
        each.url,
        "–" if each.batch is None else str(each.batch),
        "–" if each.queue is None else str(each.queue),
        "–" if each.kv_use is None else format_percent(each.kv_use),
        "–" if budget is None else format_count(budget),
        "–" if not each.predicted else f"{format_count(each.predicted[0].predicted)} ({each.predicted[0].off_by:+.1%})",
        each.gpu or "–",
    ]


def logs(names: Sequence[str] = (), *, follow: bool = False) -> Iterator[str]:
    """The engines' log lines, each with its service's name in front when there are several.

    follow: go on as lines come, until all have ended. Raises UsageError for a name that is not up.
    """
    services = _chosen(names)
    if not services:
        raise UsageError("nothing runs", advice="Start a model with `harness up MODEL`.")
    several = len(services) > 1
    while True:
        alive = [service for service in services if service.state().running]
        for service in services:
            for line in service.log_lines():
                yield f"{service.name} | {line}" if several else line
        if not follow or not alive:
            return
        time.sleep(0.2)


def down(names: Sequence[str] = (), *, progress: Say = lambda text: None) -> list[str]:
    """Stop what is named, or everything, also what a harness that was killed left half-started. The names that were
    stopped.

    Models stay in their cache. Raises UsageError for a name that is not up.
    """
    services = _chosen(names)
    for service in services:
        progress(f"{service.name}: stopping")
        service.stop()
    for service in sidecars.left_alone(services):
        progress(f"{service.name}: stopping, because no model is left")
        service.stop()
        services.append(service)
    stopped = [service.name for service in services]
    return stopped if names else stopped + _forgotten_stacks(progress)


def _forgotten_stacks(say: Say) -> list[str]:
    """Stacks that Docker knows and no record names, of this state folder."""
    try:
        from harness.stack import compose_stack, docker, swarm
        from harness.stack.state import subfolder

        ours = {path.name for path in subfolder("stacks").iterdir()}
        if not ours:
            return []
        left = [project for project in docker.leftovers() if project in ours]
    except MissingError:
        return []
    busy = projects_at_work()
    for project in left:
        if project not in busy:
            say(f"{project}: removing what is left of it")
            stack = swarm.SwarmStack(project) if swarm.is_swarm_project(project) else compose_stack.Stack(project)
            stack.remove_rest()
    return [project for project in left if project not in busy]


def _chosen(names: Sequence[str]) -> list[OwnService]:
    """Those named, by service or by entry; all when none is."""
    services = all_services()
    if not names:
        return services
    for name in names:
        if not any(_is(service, name) for service in services):
            names_up = ", ".join(service.name for service in services) or "nothing"
            raise UsageError(f"{name} is not up", advice=f"Running: {names_up}.")
    return [service for service in services if any(_is(service, name) for name in names)]


def _is(service: OwnService, name: str) -> bool:
    return name == service.name or (service.record is not None and name == service.record.model)
