"""`harness render` and `up --dry-run`: the stack's files, and nothing started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.commands.target import Target, resolve_model
from harness.errors import UsageError
from harness.stack import machine
from harness.stack.render import RENDERERS
from harness.stack.render import render as render_plan
from harness.stack.state import project_name

FILE_NAMES = {"compose": "compose.yaml", "swarm": "stack.yaml", "kubernetes": "kubernetes.yaml"}


def render(
    targets: Sequence[Target],
    *,
    format: str = "compose",
    gateway: bool = False,
    monitoring: bool = False,
    output: Path | None = None,
) -> str:
    """The text of the stack, or, with `output`, the names of the files written there. Raises UsageError."""
    if gateway or monitoring:
        raise UsageError("--gateway and --monitoring are not there yet")
    if format not in RENDERERS:
        raise UsageError(f"--format {format} is not there yet", advice=f"Known: {', '.join(RENDERERS)}.")
    models = [resolve_model(target) for target in targets]
    emulate = any(target.emulate for target in targets)
    text = render_plan(machine.plan_on_paper(models, project=project_name(), emulate=emulate), format)
    if output is None:
        return text
    output.mkdir(parents=True, exist_ok=True)
    path = output / FILE_NAMES[format]
    path.write_text(text, encoding="utf-8")
    return str(path)


def compose_text(targets: Sequence[Target], *, gateway: bool = False, monitoring: bool = False) -> str:
    """What `up --runtime compose` would start."""
    return render(targets, gateway=gateway, monitoring=monitoring)
