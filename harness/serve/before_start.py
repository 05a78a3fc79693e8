"""Checks before a model is started on a real GPU: does it fit, is the disk large enough, does the Hub give access.

Only what is certain ends the command; an estimate is told and leaves the decision to the engine.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.catalog.gpus import find_gpu
from harness.catalog.models import Model
from harness.engines import support_of
from harness.errors import MissingError, UsageError
from harness.serve.target import Say, Target
from harness.simulator.fit import DoesNotFit, describe, weights_bytes
from harness.sizing.check import Fit, check
from harness.sizing.known import known_shape
from harness.stack import machine
from harness.units import format_bytes

_REAL = ("compose", "swarm", "local")


def look_before_start(model: Model, target: Target, say: Say) -> str | None:
    """Tell what will be tight. Gives the revision to pin, where the entry has none and the Hub answers.

    Raises MissingError when the weights alone are larger than the GPUs, or the Hub refuses this token; UsageError when
    there is no such model, or the engine's release does not serve it.
    """
    require_served(model, target, say)
    if target.emulate or target.runtime not in _REAL:
        return None
    here = machine.gpus_in_order()
    if not here:  # another maker's GPU, or none: Docker or the engine will say
        return None
    _memory(model, here, say)
    _disk(model, say)
    return _revision(model, say)


def require_served(model: Model, target: Target, say: Say) -> None:
    """Raises UsageError where the image's release is known not to serve the architecture; of the emulator, which plays
    all, where there is no shape to play.
    """
    if target.emulate or target.runtime not in _REAL:
        _require_shape(model)
        return
    support = support_of(model)
    if support.kind == "fallback":
        say(f"{model.name}: {support.reason}")
    elif support.kind == "no" and (target.try_unsupported or target.runtime == "local"):
        # What is installed on this host may be another release than the entry says.
        say(f"{model.name}: by its registry {support.reason}; tried all the same")
    elif support.kind == "no":
        raise UsageError(
            f"by its registry {support.reason}",
            where=model.name,
            advice="Change engine in its entry, or add --try-unsupported to `up` or `probe` where you know better",
        )


def _require_shape(model: Model) -> None:
    if known_shape(model) is None:
        raise UsageError(
            f"the emulator cannot play {model.repo}, whose shape is not known here",
            where=model.name,
            advice="Give its entry a `shape:` (`harness models add` reads most), or start it on a GPU.",
        )


def _memory(model: Model, here: Sequence[machine.GpuHere], say: Say) -> None:
    for gpu in here[: model.gpus]:
        if gpu.in_use:
            free = f"{format_bytes(gpu.free_bytes)} of {format_bytes(gpu.memory_bytes)} free"
            say(f"{model.name}: GPU {gpu.index}: {free}; something else uses it (`nvidia-smi` shows who)")
    try:
        fit = fit_here(model, here)
    except (UsageError, MissingError) as error:  # a card or a model that the sheets do not know
        say(f"{model.name}: cannot say beforehand whether it fits ({error.found})")
        return
    if fit.fits:
        for reason in fit.may_die:
            say(f"{model.name}: may die under load: {reason}")
        return
    say(f"{model.name}: {fit.reason}{f' ({fit.estimate})' if fit.estimate else ''}")
    for remedy in fit.remedies:
        say(f"{model.name}: would fit: {remedy}")
    if isinstance(fit.outcome, DoesNotFit) and cannot_be(fit.outcome):
        for line in describe(fit.outcome).splitlines():
            say(f"    {line}")
        raise MissingError(
            f"its weights take {format_bytes(weights_bytes(fit.outcome))} per GPU, {fit.gpu.name} has"
            f" {format_bytes(fit.outcome.total_bytes)}",
            where=model.name,
            advice="Use more GPUs (`gpus:`), quantized weights, or a smaller model.",
        )


def fit_here(model: Model, here: Sequence[machine.GpuHere]) -> Fit:
    """Whether it fits into what is free on the GPUs that it would get. Raises like `check`."""
    used = [gpu.memory_bytes - gpu.free_bytes for gpu in here[: model.gpus] if gpu.in_use]
    return check(model, find_gpu(here[0].name), used_bytes=max(used, default=0))


def cannot_be(outcome: DoesNotFit) -> bool:
    """Whether the weights alone are larger than the GPU, whoever else uses it."""
    return weights_bytes(outcome) > outcome.total_bytes


def _disk(model: Model, say: Say) -> None:
    """The weights may be there already; so this is told, and nothing more."""
    if model.weight_bytes is None or model.is_local:
        return
    place = docker_folder()
    free = shutil.disk_usage(place).free
    if free < model.weight_bytes:
        need = format_bytes(model.weight_bytes)
        say(f"{model.name}: the weights take {need}, {format_bytes(free)} are free at {place}")


def docker_folder() -> Path:
    """Where images and model caches lie on this host, or the nearest folder above it that is there."""
    from harness.stack import docker

    try:
        place = Path(str(docker.engine().info().get("DockerRootDir") or "/"))
    except MissingError:
        place = Path("/var/lib/docker")
    while not place.exists():
        place = place.parent
    return place


def _revision(model: Model, say: Say) -> str | None:
    if model.is_local:
        return None
    from harness.catalog import hub  # half a second that a start without a GPU need not wait

    try:  # a pinned one is asked for too: is it there, and are we let in?
        commit = hub.resolve_revision(model.repo, model.revision)
    except UsageError as error:
        asked = model.repo if model.revision is None else f"{model.repo}@{model.revision}"
        raise UsageError(f"{asked} {error.found}", where=f"models/{model.name}", advice=error.advice) from error
    except MissingError as error:
        if "gated" in error.found or "refused" in error.found:
            raise
        say(f"{model.name}: {error.found}; it is served as the cache has it")
        return None
    return commit if model.revision is None else None
