"""StackPlan -> the stack's file: one renderer per target, in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.errors import UsageError
from harness.stack.plan import StackPlan
from harness.stack.render_compose import to_compose

RENDERERS: Mapping[str, Callable[[StackPlan], str]] = {"compose": to_compose}


def render(plan: StackPlan, target: str = "compose") -> str:
    """The text of the stack's file for this target. Raises UsageError for a target that is not in RENDERERS."""
    if target not in RENDERERS:
        raise UsageError(f"cannot render for {target}", advice=f"Known: {', '.join(RENDERERS)}.")
    return RENDERERS[target](plan)
