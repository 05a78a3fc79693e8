"""`harness render` and `up --dry-run`: the stack's files, and nothing started."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from harness.measure.run_folder import naming
from harness.redaction import secrets_of
from harness.serve import sidecars
from harness.serve.serving import resolve_model
from harness.serve.target import Target
from harness.stack import machine
from harness.stack import render as renderers
from harness.stack.plan import StackPlan
from harness.stack.render import renderer
from harness.stack.sidecar import ConfigFile
from harness.stack.state import project_name


def render(
    targets: Sequence[Target],
    *,
    format: str = "compose",
    gateway: bool = False,
    monitoring: bool = False,
    output: Path | None = None,
) -> str:
    """The text of the stack, or, with `output`, the names of the files written there. Raises UsageError."""
    plan = _plan(targets, format, sidecars.wanted(gateway=gateway, monitoring=monitoring))
    text, beside = (
        _token_by_hand(plan, format) + _secrets_by_hand(plan, format) + renderers.render(plan, format),
        renderers.files(plan, format),
    )
    if output is None:
        return text + "".join(map(_as_comment, beside))
    output.mkdir(parents=True, exist_ok=True)
    written = {renderer(format).file: text, **{each.name: each.text for each in beside}}
    for name, content in written.items():
        with naming(output / name):
            (output / name).write_text(content, encoding="utf-8")
    return "\n".join(str(output / name) for name in written)


def _token_by_hand(plan: StackPlan, format: str) -> str:
    """`harness up` writes the token's file; who starts a rendered stack otherwise has to."""
    if plan.token_file is None or format == "kubernetes":
        return ""
    command = f'(umask 077; printf %s "$HF_TOKEN" > {shlex.quote(plan.token_file)})'
    what = "The Hub token is read from a file that `harness up` writes and its last `down` removes. By hand:"
    return f"# {what}\n#   {command}\n"


def _secrets_by_hand(plan: StackPlan, format: str) -> str:
    """`harness up` lays a private file over the stack's; who starts a rendered stack otherwise has to."""
    hidden = {service.name: sorted(secrets_of(service.environment)) for service in plan.services}
    lines = [f"#   {name}: {', '.join(names)}\n" for name, names in hidden.items() if names]
    if not lines or format == "kubernetes":  # whose document says how its own Secrets are made
        return ""
    return (
        "# Not written here, because they are secrets; `harness up` lays a file of mode 0600 with them over this one:\n"
        + "".join(lines)
    )


def _plan(targets: Sequence[Target], format: str, names: Sequence[str]) -> StackPlan:
    target = renderer(format)
    models = [resolve_model(each) for each in targets]
    emulate = any(each.emulate for each in targets)
    plan = machine.plan_on_paper(
        models, project=project_name() + target.suffix, emulate=emulate, this_machine=target.this_machine
    )
    return sidecars.plan_sidecars(names, plan, target.host) if names else plan


def _as_comment(file: ConfigFile) -> str:
    """So that what is printed stays one document; --output writes the files."""
    lines = "".join(f"# {line}\n" if line else "#\n" for line in file.text.splitlines())
    return f"\n# The file {file.name}, which lies beside this one:\n#\n{lines}"
