"""What `up` starts beside the models: the gateway of --gateway, Prometheus and Grafana of --monitoring."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from harness.errors import MissingError, ServiceError, UsageError
from harness.serve.target import Say
from harness.stack import state
from harness.stack.gateway import FIRST_PORT, Route, gateway, route_to
from harness.stack.monitoring import GRAFANA_PORT, PROMETHEUS_PORT, ScrapeTarget, grafana, prometheus
from harness.stack.plan import ServicePlan, StackPlan
from harness.stack.ports import ports_from
from harness.stack.readiness import answers
from harness.stack.running import all_services
from harness.stack.service import OwnService
from harness.stack.sidecar import HEALTH_PATHS, Sidecar

GATEWAY, MONITORING = ("gateway",), ("prometheus", "grafana")
_TIMEOUT = 180.0  # seconds from the start of a sidecar to its first answer
_POLL = 0.2


def wanted(*, gateway: bool, monitoring: bool) -> tuple[str, ...]:
    """Names of the sidecars that these options mean."""
    return (*(GATEWAY if gateway else ()), *(MONITORING if monitoring else ()))


def require_possible(names: Collection[str], runtimes: Collection[str], models: Collection[str]) -> None:
    """Raises UsageError where sidecars could not reach the models, or a model has a sidecar's name."""
    if not names:
        return
    if wrong := sorted(set(runtimes) - {"compose", "swarm"}):
        raise UsageError(
            f"--gateway and --monitoring are containers and cannot reach what runs as {wrong[0]}",
            advice="Add --runtime compose, with --emulate where there is no GPU.",
        )
    if len(set(runtimes)) > 1:
        raise UsageError("--gateway and --monitoring need all models on one runtime")
    if taken := sorted(set(models) & set(names)):
        raise UsageError(f"a model is called {taken[0]}, as a service beside it", advice="Rename the entry.")


def fetch_images(names: Sequence[str], *, may_leave_out: bool, say: Say) -> dict[str, str]:
    """By sidecar, the image to run; fetched before any model is loaded, so that a failure costs no time.

    may_leave_out: what only watches and cannot be had is told and left out, instead of ending the command. Raises
    MissingError.
    """
    from harness.stack import sidecar_image

    images: dict[str, str] = {}
    for sidecar in _sidecars(names, [], {}, {}):
        try:
            images[sidecar.name] = sidecar_image.ensure(
                sidecar.image,
                sidecar.engine,
                lambda text, name=sidecar.name: say(f"{name}: {text}"),  # type: ignore[misc]
            )
        except MissingError as error:
            if not may_leave_out or sidecar.name in GATEWAY:
                raise
            say(f"{sidecar.name}: left out: {error.found}")
    return images


def start(names: Sequence[str], images: Mapping[str, str], *, project: str, runtime: str, say: Say) -> list[OwnService]:
    """Start what does not run yet and renew what changed; each answers when this returns. All models of the stack that
    are up are behind them, whoever started them.

    Raises MissingError, ServiceError.
    """
    from harness.stack import swarm

    project = swarm.project_of(project) if runtime == "swarm" else project
    served = _served(project, runtime)
    here = [name for name in names if name in images]
    earlier = {each.name: each for each in all_services() if each.name in here}
    ports = _ports(here, earlier)
    planned = _sidecars(here, served, ports, images)
    keep = [each for each in planned if _still_good(each, earlier.get(each.name), runtime, say)]
    fresh = [each for each in planned if each not in keep]
    started = _start(fresh, project, runtime, say) if fresh else []
    by_name = {service.name: service for service in [*earlier.values(), *started]}
    return [by_name[name] for name in here]


def plan_sidecars(names: Sequence[str], plan: StackPlan, host: Callable[[ServicePlan], str]) -> StackPlan:
    """The plan with these sidecars for its own models, on the first ports that nobody of the plan has.

    host: a service's name on the stack's network.
    """
    require_possible(names, {"compose"}, [service.name for service in plan.services])
    taken = {service.host_port for service in plan.services}
    ports = {
        name: next(port for port in range(first, 65536) if port not in taken)
        for name, first in _first_ports(names).items()
    }
    served = [route_to(service.model, host(service), service.engine) for service in plan.services]
    return replace(plan, sidecars=tuple(_sidecars(names, served, ports, {})))


def left_alone(stopped: Sequence[OwnService]) -> list[OwnService]:
    """Sidecars whose last model is among those that were stopped: they would watch over nothing."""
    projects = {each.record.marker for each in stopped if each.record is not None}
    rest = [each for each in all_services() if each.record is not None and each.record.marker in projects]
    alone = projects - {each.record.marker for each in rest if each.record and each.record.engine not in HEALTH_PATHS}
    return [each for each in rest if each.record and each.record.marker in alone]


def _sidecars(
    names: Sequence[str], served: Sequence[Route], ports: Mapping[str, int], images: Mapping[str, str]
) -> list[Sidecar]:
    watched = [ScrapeTarget(each.model, each.host, each.port) for each in served]
    made = []
    for name in names:
        port = ports.get(name, _first_ports([name])[name])
        if name == "gateway":
            made.append(gateway(served, host_port=port, image=images.get(name)))
        elif name == "prometheus":
            made.append(prometheus(watched, host_port=port, image=images.get(name)))
        else:
            made.append(grafana(host_port=port))
    return made


def _first_ports(names: Sequence[str]) -> dict[str, int]:
    first = {"gateway": FIRST_PORT, "prometheus": PROMETHEUS_PORT, "grafana": GRAFANA_PORT}
    return {name: first[name] for name in names}


def _served(project: str, runtime: str) -> list[Route]:
    records = [each for each in state.recall_all() if each.marker == project and each.runtime == runtime]
    return [route_to(each.model, each.service, each.engine) for each in records if each.model and each.attached is None]


def _ports(names: Sequence[str], earlier: Mapping[str, OwnService]) -> dict[str, int]:
    """The one it had, else the first free one."""
    ports = {name: int(each.endpoint.url.rpartition(":")[2]) for name, each in earlier.items()}
    for name, first in _first_ports(names).items():
        if name not in ports:
            ports[name] = ports_from(first, 1, reserve=True, avoid=ports.values())[0]
    return ports


def _still_good(sidecar: Sidecar, earlier: OwnService | None, runtime: str, say: Say) -> bool:
    from harness.stack import swarm

    if earlier is None:
        return False
    digest = sidecar.digest if runtime == "compose" else swarm.swarm_digest(sidecar.digest)
    same = earlier.digest == digest
    if same and earlier.state().running and _answers(earlier):
        say(f"{sidecar.name}: up already")
        return True
    say(f"{sidecar.name}: renewing it")
    earlier.stop(grace=10)
    return False


def _start(sidecars: Sequence[Sidecar], project: str, runtime: str, say: Say) -> list[OwnService]:
    services = _services(StackPlan(project, (), sidecars=tuple(sidecars)), runtime)
    with ExitStack() as unready:
        kept: set[str] = set()
        for service in services:
            unready.callback(lambda each=service: None if each.name in kept else each.stop(grace=5))  # type: ignore[misc]
        for service in services:
            say(f"{service.name}: starting")
            service.start()
        for service in services:
            _await(service)
            service.keep()
            kept.add(service.name)
    return services


def _services(plan: StackPlan, runtime: str) -> list[OwnService]:
    from harness.stack import compose_service, docker, swarm

    if runtime == "compose":
        docker.require_compose()
        return list(compose_service.compose_services(plan))
    for service in all_services():  # the gateway must find their names
        if isinstance(service, swarm.SwarmService) and service.stack.project == plan.project:
            service.settle()
    return list(swarm.swarm_services(plan))


def _await(service: OwnService) -> None:
    """Raises ServiceError when it ends or does not answer in time."""
    deadline = time.monotonic() + _TIMEOUT
    while not _answers(service):
        now = service.state()
        if not now.running or time.monotonic() > deadline:
            why = now.detail if not now.running else "does not answer"
            lines = [line for line in service.log_lines() if line.strip()][-3:]
            raise ServiceError(f"{why}: {' | '.join(lines)}" if lines else f"{why}", where=service.name)
        time.sleep(_POLL)


def _answers(service: OwnService) -> bool:
    assert service.record is not None
    return answers(service.endpoint, HEALTH_PATHS[service.record.engine])


def is_sidecar(service: OwnService) -> bool:
    return service.record is not None and service.record.engine in HEALTH_PATHS


def phase_of(service: OwnService) -> str:
    """As `status` shows it."""
    if not service.state().running:
        return "exited"
    return "ready" if _answers(service) else "starting"
