"""`harness up`: plans, starts, waits until each model truly answers, and leaves it running."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.commands.render import render
from harness.errors import HarnessError, UsageError
from harness.serve import sidecars
from harness.serve.before_start import look_before_start
from harness.serve.serving import await_ready, choose_runtime, digests_for, resolve_model, service_for
from harness.serve.target import Say, Target
from harness.sizing.predicted import BUDGET, LimitComparison, compare, may_die, predict, suspicion
from harness.stack import locks, machine
from harness.stack.launch import LOOPBACK
from harness.stack.plan import FIRST_PORT
from harness.stack.ports import ports_from, release_port
from harness.stack.readiness import Ready, StartFailed, look_at
from harness.stack.running import services_of
from harness.stack.service import OwnService, Service
from harness.stack.shutdown import stop_in_order
from harness.stack.state import project_name, safe_name
from harness.units import format_count, format_duration


@dataclass(frozen=True)
class ServiceStatus:
    """One service that was started: where it answers, what it allows, and how it is.

    phase: starting, pulling, downloading, loading, warming up, ready, stopping, exited or unknown. detail: why, when it
    is not ready. seconds: of this start; 0 when it was up before. predicted: the limits predicted before the start,
    beside those found. may_die: why it may end under load all the same.
    """

    name: str
    runtime: str
    url: str
    phase: str
    model_id: str | None = None
    engine: str = "tgi"
    engine_version: str | None = None
    emulated: bool = False
    gpu: str | None = None
    limits: Limits = field(default_factory=Limits)
    image: str | None = None
    image_digest: str | None = None
    queue: int | None = None
    batch: int | None = None
    kv_use: float | None = None
    seconds: float = 0.0
    detail: str | None = None
    predicted: tuple[LimitComparison, ...] = ()
    may_die: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values; `endpoint` is the address."""
        return {
            "name": self.name,
            "runtime": self.runtime,
            "endpoint": self.url,
            "phase": self.phase,
            "model_id": self.model_id,
            "engine": self.engine,
            "engine_version": self.engine_version,
            "emulated": self.emulated,
            "gpu": self.gpu,
            "limits": dict(vars(self.limits)),
            "image": self.image,
            "image_digest": self.image_digest,
            "requests": {"queued": self.queue, "running": self.batch},
            "kv_use": self.kv_use,
            "predicted": {each.name: each.as_json() for each in self.predicted},
            "may_die": list(self.may_die),
            "detail": self.detail,
        }


def up(
    targets: Sequence[Target],
    *,
    gateway: bool = False,
    monitoring: bool = False,
    outlives_harness: bool = True,
    progress: Say = lambda text: None,
) -> list[ServiceStatus]:
    """Start what does not run yet, renew what changed, wait for each first answer.

    What answers stays when this is interrupted later; what does not answer yet is taken down. outlives_harness: a
    process that does not answer yet stays where the harness is killed. Raises UsageError, MissingError, StartFailed.
    """
    models = [resolve_model(target, progress) for target in targets]
    _require_distinct(models)
    chosen = [
        (model, replace(target, runtime=choose_runtime(target, model, progress)))
        for model, target in zip(models, targets, strict=True)
    ]
    for model in models:
        if model.listen != LOOPBACK:
            progress(f"{model.name}: listens on {model.listen}: whoever reaches that can use it")
    beside = sidecars.wanted(gateway=gateway, monitoring=monitoring)
    runtimes = {target.runtime for _, target in chosen if target.runtime}
    sidecars.require_possible(beside, runtimes, [safe_name(model.name) for model in models])
    emulate = any(target.emulate for _, target in chosen)
    images = sidecars.fetch_images(beside, may_leave_out=emulate, say=progress)
    # Two at once would both see that nothing runs, and what the first one started would be nobody's.
    with locks.held([model.name for model in models], progress):
        stays = {model.name: _still_good(model, target, progress) for model, target in chosen}
        fresh = [pair for pair in chosen if not stays[pair[0].name]]
        started_now = _start_all(fresh, outlives_harness, progress)
    running = [each for model in models for each in stays[model.name] or started_now[model.name]]
    if images:
        project = project_name()
        with locks.held([f"sidecars of {project}"], progress):
            started = sidecars.start(beside, images, project=project, runtime=running[0].runtime, say=progress)
        running += [running_sidecar(service) for service in started]
    return running


def _require_distinct(models: Sequence[Model]) -> None:
    names = [model.name for model in models]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{twice} is named twice")


def _still_good(model: Model, target: Target, say: Say) -> list[ServiceStatus]:
    """What runs for this entry already, when all of it answers and nothing changed; else it is stopped, and the list
    empty.
    """
    earlier = services_of(model.name)
    if not earlier:
        return []
    looked = [look_at(service) if service.state().running else None for service in earlier]
    unchanged = sorted(service.digest for service in earlier) == sorted(digests_for(model, target))
    if unchanged and all(looked):
        say(f"{model.name}: up already")
        pairs = zip(earlier, looked, strict=True)
        return [running_of(service, each, model.gpu, may_die(model)) for service, each in pairs if each]
    reason = "its entry changed" if all(looked) else "what was left does not answer"
    say(f"{model.name}: stopping it, because {reason}")
    for service in earlier:
        service.stop()
    return []


def _start_all(
    chosen: Sequence[tuple[Model, Target]], outlives_harness: bool, say: Say
) -> dict[str, list[ServiceStatus]]:
    """Start them side by side, wait for one after another; whatever does not answer in the end is stopped."""
    looked = {model.name: look_before_start(model, target, say) for model, target in chosen}
    pinned = {name: revision for name, revision in looked.items() if revision is not None}
    services = _services(chosen, pinned, outlives_harness, say)
    running: dict[str, list[ServiceStatus]] = {model.name: [] for model, _ in chosen}
    with ExitStack() as unready:  # every one is stopped, also when stopping another fails
        kept: set[str] = set()
        for _, service in services:
            unready.callback(_stop_unless_kept, service, kept)
        for _, service in services:
            service.start()
        for model, service in services:
            predicted = predict(model, service.record.gpu if service.record else None)
            try:
                ready = await_ready(service, model, say)
            except StartFailed as failed:
                if failed.failure.kind == "memory" and predicted:
                    say(f"{model.name}: before the start the sum was: a KV cache of {predicted[BUDGET]:,} tokens")
                raise
            service.keep(_told(ready.limits), predicted)
            kept.add(service.name)
            one = running_of(service, ready, model.gpu, may_die(model))
            if doubt := suspicion(list(one.predicted), model.name):
                say(doubt)
            running[model.name].append(one)
    return running


def _stop_unless_kept(service: OwnService, kept: Collection[str]) -> None:
    if service.name not in kept:
        stop_in_order(service, _GRACE_UNREADY)


def _services(
    chosen: Sequence[tuple[Model, Target]],
    pinned: Mapping[str, str],
    outlives_harness: bool,
    say: Say,
) -> list[tuple[Model, OwnService]]:
    """Those of Compose share one stack. pinned: by model, the revision that the Hub named."""
    services: list[tuple[Model, OwnService]] = []
    in_stack = [model for model, target in chosen if target.runtime == "compose"]
    if in_stack:
        emulate = any(target.emulate for _, target in chosen)
        by_name = {model.name: model for model in in_stack}
        together = machine.compose_services_for(in_stack, project=project_name(), emulate=emulate, revisions=pinned)
        services += [(by_name[each.record.model], each) for each in together if each.record]
    if in_swarm := [model for model, target in chosen if target.runtime == "swarm"]:
        services += _swarm_services(
            in_swarm, emulate=any(target.emulate for _, target in chosen), pinned=pinned, say=say
        )
    asked = {model.port for model, _ in chosen if model.port}
    for model, target in chosen:
        if target.runtime not in ("compose", "swarm"):
            port = model.port or ports_from(FIRST_PORT, 1, reserve=True, avoid=asked)[0]
            try:
                service = service_for(
                    model,
                    target,
                    revision=pinned.get(model.name),
                    port=port,
                    outlives_harness=outlives_harness,
                    say=say,
                )
            except HarnessError:
                release_port(port)
                raise
            services.append((model, service))
    return services


def _swarm_services(
    models: Sequence[Model], *, emulate: bool, pinned: Mapping[str, str], say: Say
) -> list[tuple[Model, OwnService]]:
    from harness.stack import swarm

    services = swarm.services_for(models, project=project_name(), emulate=emulate, revisions=pinned)
    if warning := swarm.exposure():
        say(warning)
    by_name = {model.name: model for model in models}
    return [(by_name[each.record.model], each) for each in services if each.record]


def _told(limits: Limits) -> dict[str, int]:
    return {name: value for name, value in limits.known().items() if isinstance(value, int)}


# Seconds for what has served nobody yet. A launcher in warm-up ends when the shard's call returns, which may take long.
_GRACE_UNREADY = 15.0


def predicted_of(service: Service, limits: Limits) -> tuple[LimitComparison, ...]:
    """Limits as predicted before the start, beside what is in force."""
    record = getattr(service, "record", None)
    return tuple(compare(record.predicted, limits.known())) if record is not None else ()


def running_of(service: Service, ready: Ready, gpu: str | None = None, risks: tuple[str, ...] = ()) -> ServiceStatus:
    """What the command line shows of a service that answers."""
    facts = service.facts()
    return ServiceStatus(
        name=service.name,
        runtime=facts.runtime,
        url=service.endpoint.url,
        phase="ready",
        model_id=ready.info.model_id,
        engine=ready.info.engine,
        engine_version=ready.info.version,
        emulated=ready.info.emulated,
        gpu=gpu,
        limits=ready.limits,
        image=facts.image,
        image_digest=facts.image_digest,
        seconds=ready.seconds,
        predicted=predicted_of(service, ready.limits),
        may_die=risks,
    )


def running_sidecar(service: OwnService) -> ServiceStatus:
    """What the command line shows of the gateway, Prometheus or Grafana."""
    facts = service.facts()
    return ServiceStatus(
        name=service.name,
        runtime=facts.runtime,
        url=service.endpoint.url,
        phase=sidecars.phase_of(service),
        engine=facts.engine,
        engine_version=facts.engine_version,
        image=facts.image,
        image_digest=facts.image_digest,
        detail=service.state().detail,
    )


def dry_run_text(targets: Sequence[Target], *, gateway: bool = False, monitoring: bool = False) -> str:
    """What `up` would start: the rendered stack, or the process with its environment."""
    models = [resolve_model(target) for target in targets]
    _require_distinct(models)
    runtimes = {choose_runtime(target, model) for target, model in zip(targets, models, strict=True)}
    for runtime in ("compose", "swarm"):
        if runtimes <= {runtime}:
            return render(targets, format=runtime, gateway=gateway, monitoring=monitoring)
    sidecars.require_possible(sidecars.wanted(gateway=gateway, monitoring=monitoring), runtimes, ())
    services = [service_for(model, target) for model, target in zip(models, targets, strict=True)]
    return "\n".join(f"# {service.name}\n{service.facts().stack}" for service in services)


def up_text(running: Sequence[ServiceStatus]) -> str:
    """Endpoint and effective limits of each."""
    return "\n".join(_paragraph(each) for each in running)


def _paragraph(each: ServiceStatus) -> str:
    head = f"{each.name}: {each.url}  ({_engine(each)}{_ready_in(each)})"
    beside = {known.name: f" ({known.text()})" for known in each.predicted}
    lines = [
        f"  {name.replace('_', ' ')}: {_limit(value)}{beside.get(name, '')}"
        for name, value in each.limits.known().items()
    ]
    return "\n".join([head, *lines, *(f"  may die under load: {reason}" for reason in each.may_die)])


def _limit(value: int | float) -> str:
    """Tokens and requests are whole; the only share is one of memory."""
    return format_count(value) if isinstance(value, int) else f"{value:g}"


def _engine(each: ServiceStatus) -> str:
    simulated = ", emulated: its figures are simulated" if each.emulated else ""
    return f"{each.runtime}, {each.engine} {each.engine_version or ''}".rstrip() + simulated


def _ready_in(each: ServiceStatus) -> str:
    return f", ready in {format_duration(each.seconds)}" if each.seconds >= 0.1 else ""
