"""Gives a command a service that answers: one that runs already, one started for the command, or somebody else's.

Docker's library is imported where a container is really meant: it takes longer to load than the emulator to start.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from harness.catalog.gpus import find_gpu
from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.catalog.variant import on_gpu, variant
from harness.engines import accepted, load_catalogue
from harness.engines.base import EngineInfo
from harness.engines.endpoint import Endpoint
from harness.engines.identify import asked_name, endpoint_at, identify
from harness.errors import MissingError, UsageError
from harness.serve.before_start import look_before_start
from harness.serve.target import Runtime, Say, Target
from harness.stack import machine, timings
from harness.stack.launch import embedded_launch, local_launch
from harness.stack.process import ProcessService
from harness.stack.readiness import Ready, look_at, wait_until_ready
from harness.stack.running import abandoned, service_named
from harness.stack.service import OwnService, Service
from harness.stack.shutdown import stop_in_order
from harness.stack.state import passing_project
from harness.stack.url import UrlService


@dataclass(frozen=True)
class RunningService:
    """A service that answers. model: its entry, None for a URL. ready: how its start went, None where it was up before.

    ours: it was started for this command and is stopped after it. entry: of a variant, the name of its entry in the
    catalogue.
    """

    service: Service
    info: EngineInfo
    limits: Limits
    model: Model | None = None
    ready: Ready | None = None
    ours: bool = False
    entry: str | None = None

    @property
    def endpoint(self) -> Endpoint:
        """Where the service is, with the name by which its model is asked for."""
        endpoint = self.service.endpoint
        return replace(endpoint, model_name=asked_name(endpoint, self.info))


def _quiet(text: str) -> None:
    """Says nothing."""


def resolve_model(target: Target, say: Say = _quiet) -> Model:
    """The catalogue's entry of the target, with the command line's GPU, or the one of this machine that will serve it,
    and that one's price.

    Raises UsageError, with the nearest names.
    """
    if target.model is None:
        raise UsageError("no model named", advice="Name one of `harness models list`, or give --url.")
    if target.called is not None:
        model = variant(target.catalogue, target.model, target.changes, target.called, accepted())
    else:
        model = load_catalogue(target.catalogue).find(target.model)
    if target.gpu is not None:
        return on_gpu(model, find_gpu(target.gpu).name)
    here = _on_this_machine(model, target, say)
    return here if here.gpu is None else on_gpu(here, here.gpu)


def _entry(target: Target) -> str | None:
    return target.model if target.called is not None else None


def _on_this_machine(model: Model, target: Target, say: Say) -> Model:
    """The entry's `gpu` says what it is meant for; what is measured is the card that is here."""
    if target.emulate or model.engine.variant != "cuda":
        return model
    if choose_runtime(target, model) not in ("compose", "local") or not (here := machine.gpus_in_order()):
        return model
    try:
        name = find_gpu(here[0].name).name
    except UsageError:  # a card that the sheets do not know
        return model
    if model.gpu not in (None, name):
        say(f"{model.name}: its entry is meant for {model.gpu}; this machine has {name}, and figures are of that")
    return on_gpu(model, name)


def choose_runtime(target: Target, model: Model, say: Say = _quiet) -> Runtime:
    """The runtime that was asked for; else what the other options imply; else what this machine has."""
    if target.runtime is not None:
        if target.launcher and target.runtime != "local":
            raise UsageError(f"--launcher belongs to --runtime local, not to {target.runtime}")
        if target.emulate and target.runtime not in ("compose", "swarm"):
            raise UsageError(f"--emulate belongs to --runtime compose, not to {target.runtime}")
        return target.runtime
    if target.launcher or model.engine.command:
        return "local"
    if target.emulate:
        return "compose"
    if has_gpu() and shutil.which("docker"):
        return "compose"
    say("no GPU and Docker here: the embedded emulator serves the model, and its figures are simulated")
    return "embedded"


def has_gpu() -> bool:
    """Whether nvidia-smi lists at least one GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and listed.stdout.startswith(b"GPU ")


def service_for(
    model: Model,
    target: Target,
    *,
    changes: Mapping[str, str] | None = None,
    revision: str | None = None,
    port: int | None = None,
    outlives_harness: bool = False,
    say: Say = _quiet,
) -> OwnService:
    """A service for this model and target, not started yet; each call makes a new one, which its caller stops.

    changes: the engine's environment variables that differ from the entry's; an empty value takes one away. revision:
    where the entry pins none. port: of 127.0.0.1; None takes the entry's, else a free one. outlives_harness: a process
    of this host stays where the harness is killed. Raises UsageError, MissingError.
    """
    if target.gpu is not None:
        model = replace(model, gpu=find_gpu(target.gpu).name)
    runtime = choose_runtime(target, model, say)
    if runtime == "local":
        launch = local_launch(model, program=target.launcher, port=port, changes=changes, revision=revision)
        return ProcessService(launch, outlives_harness=outlives_harness)
    if runtime == "embedded":
        launch = embedded_launch(model, port=port, changes=changes, revision=revision)
        return ProcessService(launch, outlives_harness=outlives_harness)
    if runtime == "compose":
        one = replace(model, replicas=1, port=port or model.port)
        project = passing_project()
        own, pinned = {one.name: changes or {}}, {one.name: revision} if revision else {}
        services = machine.compose_services_for(
            [one], project=project, emulate=target.emulate, changes=own, revisions=pinned
        )
        return services[0]
    from harness.stack import swarm

    one = replace(model, replicas=1, port=port or model.port)
    project = passing_project()
    return swarm.services_for([one], project=project, emulate=target.emulate, changes={one.name: changes or {}})[0]


def digests_for(model: Model, target: Target) -> list[str]:
    """What `service.digest` is for services of this model and target, one per replica; nothing is started or
    reserved.
    """
    runtime = choose_runtime(target, model)
    if runtime not in ("compose", "swarm"):
        return [service_for(model, target).digest]
    from harness.stack import swarm

    plan = machine.plan_on_paper([model], project="", emulate=target.emulate, this_machine=runtime == "compose")
    digests = [service.digest for service in plan.services]
    return digests if runtime == "compose" else [swarm.swarm_digest(digest) for digest in digests]


@contextmanager
def open_service(
    target: Target,
    *,
    own: bool = False,
    changes: Mapping[str, str] | None = None,
    say: Say = _quiet,
) -> Iterator[RunningService]:
    """A service that answers: the URL's; else the one that `up` started from the same entry; else one of our own,
    which is stopped at the end whatever happens.

    own: never use one that runs already. Raises UsageError, MissingError, ServiceError or StartFailed.
    """
    if target.url is not None:
        yield _somebody_elses(target, say)
        return

    model = resolve_model(target, say)
    running = None if own or changes else _already_up(target, model, say)
    if running is not None:
        yield running
        return
    target = replace(target, runtime=choose_runtime(target, model, say))
    remove_abandoned(say)
    revision = look_before_start(model, target, say)
    service = service_for(model, target, changes=changes, revision=revision, say=say)
    try:
        ready = started(service, model, say)
        yield RunningService(service, ready.info, ready.limits, model, ready, ours=True, entry=_entry(target))
    finally:
        stop_in_order(service)


def remove_abandoned(say: Say = _quiet) -> None:
    """Containers of commands that were killed hold the GPU that the next one needs."""
    with suppress(MissingError):  # no Docker here any more
        for service in abandoned():
            say(f"{service.name}: removing what a killed command left of it")
            service.stop(1)


def started(service: Service, model: Model, say: Say = _quiet) -> Ready:
    """Start it and wait for its first answer. Raises StartFailed; does not stop it then."""
    service.start()
    return await_ready(service, model, say)


def await_ready(service: Service, model: Model, say: Say = _quiet) -> Ready:
    """Wait for the first answer of a service that was started. Raises StartFailed; does not stop it then."""
    key = timings.key_of(service.facts(), model)
    ready = wait_until_ready(
        service,
        timeout=model.start_timeout,
        say=say,
        expected=timings.last(key),
        downloaded=getattr(service, "downloaded_bytes", lambda: None),
    )
    timings.note(key, ready.phases)
    return ready


def _somebody_elses(target: Target, say: Say) -> RunningService:
    assert target.url is not None
    info, endpoint = identify(endpoint_at(target.url, target.model_name))
    if info.caution is not None:
        say(f"{endpoint.url}: {info.caution}")
    return RunningService(UrlService(endpoint), info, info.limits)


def _already_up(target: Target, model: Model, say: Say) -> RunningService | None:
    """What `up` left running for this entry, when it still answers and the entry has not changed."""
    service = service_named(model.name)
    if service is None or (target.runtime or service.facts().runtime) != service.facts().runtime:
        return None
    looked = look_at(service) if service.state().running else None
    if looked is None:
        say(f"{model.name}: what `up` left does not answer; starting another")
        return None
    if service.digest not in digests_for(model, _as_it_runs(target, service)):
        raise UsageError(
            "is up from another state of the entry",
            where=model.name,
            advice=f"`harness up {model.name}` renews it, `harness down {model.name}` ends it.",
        )
    for caution in looked.cautions:
        say(f"{model.name}: {caution}")
    record = service.record
    played = on_gpu(model, record.gpu) if record is not None and record.emulated and record.gpu else model
    return RunningService(service, looked.info, looked.limits, played, looked)


def _as_it_runs(target: Target, service: OwnService) -> Target:
    """The target with what only `up` was told: bench need not repeat --runtime, --emulate and --launcher."""
    record = service.record
    if record is None or target.runtime or target.launcher or target.emulate:
        return target
    runtime: Runtime = record.runtime  # type: ignore[assignment]
    program = record.command[0] if runtime == "local" and len(record.command) == 1 else None
    emulate = record.emulated and runtime in ("compose", "swarm")
    return replace(target, runtime=runtime, launcher=program, emulate=emulate, gpu=target.gpu or record.gpu)
