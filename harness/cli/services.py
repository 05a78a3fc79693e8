"""Commands around a running service: check the machine, start, look, stop; and the emulator alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from harness import terminal
from harness.cli.app import app, show
from harness.cli.options import (
    CatalogueOption,
    EmulateOption,
    GpuOption,
    JsonOption,
    LauncherOption,
    ModelsArg,
    OutputOption,
    RuntimeOption,
    UnsupportedOption,
    targets_of,
)
from harness.errors import UsageError


@app.command()
def doctor(
    models: ModelsArg = None, gpu: GpuOption = None, catalogue: CatalogueOption = None, json: JsonOption = False
) -> int:
    """Check what this machine has and lacks.

    Docker, Compose, GPU, disk, token, ports: each finding with the command that fixes it. With models named, also what
    each of them needs: image, memory, port, room for the weights, access on the Hub.

    \b
    Example: harness doctor
    For a model: harness doctor llama-3.1-8b
    """
    from harness.commands.doctor import as_text
    from harness.commands.doctor import doctor as examine

    findings = examine(models or (), gpu=gpu, catalogue=catalogue)
    show(json, [each.as_json() for each in findings], as_text(findings))
    return 0


@app.command()
def up(
    models: ModelsArg = None,
    runtime: RuntimeOption = None,
    launcher: LauncherOption = None,
    emulate: EmulateOption = False,
    gpu: GpuOption = None,
    catalogue: CatalogueOption = None,
    url: Annotated[Optional[str], typer.Option(hidden=True)] = None,
    gateway: Annotated[
        bool, typer.Option("--gateway", help="One OpenAI-style address for all models, by their name.")
    ] = False,
    monitoring: Annotated[bool, typer.Option("--monitoring", help="Prometheus and Grafana beside the stack.")] = False,
    try_unsupported: UnsupportedOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the rendered stack; start nothing.")] = False,
    json: JsonOption = False,
) -> int:
    """Start models and wait until they answer.

    Renders the stack, starts it, waits until each model truly answers, and prints its endpoint and limits.

    \b
    Example: harness up qwen2.5-7b
    Without Docker: harness up qwen2.5-0.5b --runtime embedded
    """
    if url is not None:
        raise UsageError("--url makes no sense here: a service that someone else runs is up already")
    from harness.commands.up import dry_run_text, up_text
    from harness.commands.up import up as start

    where = {"runtime": runtime, "launcher": launcher, "emulate": emulate, "gpu": gpu, "catalogue": catalogue}
    targets = targets_of(models, **where, try_unsupported=try_unsupported)
    if dry_run:
        terminal.print_result(dry_run_text(targets, gateway=gateway, monitoring=monitoring))
        return 0
    running = start(targets, gateway=gateway, monitoring=monitoring, progress=terminal.say)
    show(json, [each.as_json() for each in running], up_text(running))
    return 0


@app.command()
def render(
    models: ModelsArg = None,
    format: Annotated[Literal["compose", "swarm", "kubernetes"], typer.Option(help="What to render.")] = "compose",
    emulate: EmulateOption = False,
    gpu: GpuOption = None,
    catalogue: CatalogueOption = None,
    gateway: Annotated[bool, typer.Option("--gateway", help="With one OpenAI-style address for all models.")] = False,
    monitoring: Annotated[bool, typer.Option("--monitoring", help="With Prometheus and Grafana.")] = False,
    output: Annotated[
        Optional[Path], typer.Option(help="A folder for the files. Default: stdout.", metavar="DIR")
    ] = None,
) -> int:
    """Write the stack's files, and start nothing.

    \b
    Example: harness render qwen2.5-7b --format compose
    """
    from harness.commands.render import render as write

    targets = targets_of(models, runtime=None, launcher=None, emulate=emulate, gpu=gpu, catalogue=catalogue)
    text = write(targets, format=format, gateway=gateway, monitoring=monitoring, output=output)
    terminal.print_result(text)
    return 0


@app.command()
def status(models: ModelsArg = None, json: JsonOption = False) -> int:
    """Show what runs: phase, limits, health.

    \b
    Example: harness status
    """
    from harness.commands.status import status as look
    from harness.commands.status import status_text

    running = look(models or [])
    show(json, [each.as_json() for each in running], status_text(running))
    return 0


@app.command()
def logs(
    models: ModelsArg = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep showing lines as they come.")] = False,
) -> int:
    """Show the engines' logs.

    \b
    Example: harness logs -f qwen2.5-7b
    """
    from harness.commands.status import logs as read

    for line in read(models or [], follow=follow):
        if not terminal.print_line(line):
            break
    return 0


@app.command()
def down(models: ModelsArg = None, json: JsonOption = False) -> int:
    """Stop what `up` started.

    Everything where no model is named. The model cache stays.

    \b
    Example: harness down
    """
    from harness.commands.status import down as stop

    stopped = stop(models or [], progress=terminal.say)
    show(
        json, [{"name": name} for name in stopped], "\n".join(f"{name}: stopped" for name in stopped) or "nothing runs"
    )
    return 0


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def emulate() -> int:
    """Serve an engine's emulator alone, on a port.

    TGI's unless --engine says vllm, sglang or llamacpp. It takes the engine's own flags and environment variables too;
    `python -m harness.emulator [--engine NAME] --help` lists them.

    \b
    Example: harness emulate --port 8080 --gpu L4 --model Qwen/Qwen2.5-0.5B-Instruct
    Another engine: harness emulate --engine vllm --port 8000
    """
    raise UsageError("emulate must be the first argument")


@app.command()
def demo(
    output: OutputOption = None,
    json: JsonOption = False,
) -> int:
    """Try it all on the emulator: up, probe, bench, report.

    No GPU, no Docker, under two minutes.

    \b
    Example: harness demo
    """
    from harness.commands.demo import demo as run_all

    result = run_all(output, progress=terminal.say)
    show(json, result.as_json(), result.as_text())
    return 0
