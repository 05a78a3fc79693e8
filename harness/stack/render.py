"""StackPlan -> the stack's files: one renderer per target, in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.errors import UsageError
from harness.stack.plan import ServicePlan, StackPlan
from harness.stack.render_compose import to_compose
from harness.stack.render_kubernetes import service_host, to_kubernetes
from harness.stack.render_swarm import SUFFIX, swarm_name, to_swarm
from harness.stack.sidecar import ConfigFile, stack_files


@dataclass(frozen=True)
class Renderer:
    """file: the usual name of its main file. host: a service's name on its network. files_beside: whether what
    sidecars read lies in files of its own. this_machine: whether the stack is for this machine's GPUs. suffix: of the
    project's name.
    """

    to_text: Callable[[StackPlan], str]
    file: str
    host: Callable[[ServicePlan], str]
    files_beside: bool
    this_machine: bool
    suffix: str = ""


RENDERERS: Mapping[str, Renderer] = {
    "compose": Renderer(to_compose, "compose.yaml", lambda service: service.name, True, True),
    "swarm": Renderer(to_swarm, "stack.yaml", lambda service: swarm_name(service.name), True, False, SUFFIX),
    "kubernetes": Renderer(to_kubernetes, "kubernetes.yaml", service_host, False, False),
}


def renderer(target: str) -> Renderer:
    """Raises UsageError for a target that is not in RENDERERS."""
    if target not in RENDERERS:
        raise UsageError(f"cannot render for {target}", advice=f"Known: {', '.join(RENDERERS)}.")
    return RENDERERS[target]


def render(plan: StackPlan, target: str = "compose") -> str:
    """The text of the stack's main file. Raises UsageError for an unknown target, and for what it cannot express."""
    return renderer(target).to_text(plan)


def files(plan: StackPlan, target: str = "compose") -> list[ConfigFile]:
    """The files that lie beside the main one."""
    return stack_files(plan.sidecars) if renderer(target).files_beside else []
