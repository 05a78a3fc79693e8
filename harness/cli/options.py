"""Options that several commands share, each defined and explained once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from harness.errors import UsageError
from harness.serve.target import Target


def _from_file(context: typer.Context, path: Optional[Path]) -> Optional[Path]:
    """`--config FILE`: options of the command as YAML; what is on the command line wins."""
    if path is not None:
        from harness.settings import read_settings

        names = {name for each in context.command.params for name in (*each.opts, *each.secondary_opts)}
        context.default_map = {**(context.default_map or {}), **read_settings(path, names)}
    return path


# Options that several commands share.
ModelArg = Annotated[Optional[str], typer.Argument(metavar="MODEL", help="A name of the catalogue.")]
ModelsArg = Annotated[Optional[list[str]], typer.Argument(metavar="MODEL", help="Names of the catalogue.")]
RuntimeOption = Annotated[
    Optional[Literal["compose", "local", "embedded", "swarm"]],
    typer.Option(
        help="How the model is served: compose (Docker), local (a launcher on this host), embedded (the emulator: no"
        " Docker, no GPU). Default: compose where a GPU and Docker are there, else embedded."
    ),
]
LauncherOption = Annotated[Optional[str], typer.Option(help="The program of --runtime local.", metavar="PATH")]
EmulateOption = Annotated[
    bool, typer.Option("--emulate", help="With --runtime compose: run the emulator's image in the engine's place.")
]
UnsupportedOption = Annotated[
    bool, typer.Option("--try-unsupported", help="Start also what the engine's release is known not to serve.")
]
UrlOption = Annotated[Optional[str], typer.Option(help="A service that someone else runs.", metavar="URL")]
GpuOption = Annotated[
    Optional[str], typer.Option(help="A GPU's name, such as L4 or H100; overrides the entry's.", metavar="NAME")
]
CatalogueOption = Annotated[
    Optional[str], typer.Option(help="The catalogue. Default: models.yaml.", metavar="FILE", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
ConfigOption = Annotated[
    Optional[Path],
    typer.Option(
        help="Options of this command as YAML, `users: 4`; the command line wins.",
        metavar="FILE",
        callback=_from_file,
        is_eager=True,
        exists=True,
        dir_okay=False,
    ),
]
OutputOption = Annotated[
    Optional[Path], typer.Option(help="The run's folder itself; must be empty or absent.", metavar="DIR")
]
UsersOption = Annotated[
    Optional[str], typer.Option(help="Closed loop: concurrent users; `1,4,16` runs a level of each.", metavar="N,...")
]
RateOption = Annotated[
    Optional[str], typer.Option(help="Open loop: requests per second; `2,4` runs a level of each.", metavar="R,...")
]
DurationOption = Annotated[
    Optional[str], typer.Option(help="Of each level, such as 30s or 5m. Default: 60s.", metavar="DURATION")
]
WarmupOption = Annotated[
    Optional[str], typer.Option(help="Time at each level's start that the metrics leave out.", metavar="DURATION")
]
RequestsOption = Annotated[Optional[int], typer.Option(min=1, help="Of each level, at most.")]
InputTokensOption = Annotated[
    Optional[str],
    typer.Option(
        help="Prompt length: 200, 4k (4,096), a distribution such as lognormal:500:300, or file:PATH.",
        metavar="LENGTH",
    ),
]
OutputTokensOption = Annotated[
    Optional[str],
    typer.Option(
        help="Answer length, likewise; drawn as pairs where --input-tokens names the same file.", metavar="LENGTH"
    ),
]
WorkloadOption = Annotated[
    Optional[str],
    typer.Option(help="What is asked: a file of locustfiles/, by name, or a path. Default: questions.", metavar="NAME"),
]
ThinkTimeOption = Annotated[
    Optional[str],
    typer.Option(help="With --users: pause between an answer and the user's next request.", metavar="PAUSE"),
]
ApiOption = Annotated[
    Optional[Literal["tgi", "openai-chat", "openai-completions"]],
    typer.Option(help="Which of the service's APIs. Default: the one that it speaks best."),
]
ModelNameOption = Annotated[
    Optional[str], typer.Option(help="The `model` field of requests. Default: as the service says.", metavar="NAME")
]
ProcessesOption = Annotated[int, typer.Option(min=1, help="Load processes on this machine.")]
SeedOption = Annotated[int, typer.Option(help="Of lengths, prompts and arrivals.")]
TimeoutOption = Annotated[str, typer.Option(help="For one request.", metavar="DURATION")]
GateOption = Annotated[Optional[Path], typer.Option(help="Limits per metric, YAML.", metavar="FILE")]
JunitOption = Annotated[Optional[Path], typer.Option(help="Write JUnit XML.", metavar="FILE")]
MarkdownOption = Annotated[Optional[Path], typer.Option(help="Write Markdown.", metavar="FILE")]
GpusOption = Annotated[Optional[int], typer.Option(help="How many of these GPUs.", min=1, metavar="N")]
DtypeOption = Annotated[Optional[str], typer.Option(help="Instead of the entry's dtype.", metavar="DTYPE")]
QuantizeOption = Annotated[
    Optional[str], typer.Option(help="Instead of the entry's method; `none`: not quantised.", metavar="METHOD")
]
EngineOption = Annotated[
    Optional[str],
    typer.Option(help="Instead of the entry's: a name, or NAME:VERSION.", metavar="NAME[:VERSION]"),
]

ForUsersOption = Annotated[
    Optional[float], typer.Option(help="Size for this many users: GPUs, a spare, and cost.", metavar="N")
]
PeakOption = Annotated[float, typer.Option(help="With --for-users: the busiest moment, as a multiple of them.")]
SpareOption = Annotated[int, typer.Option(min=0, help="With --for-users: deployments that may fail.")]
ApiPriceOption = Annotated[
    Optional[str],
    typer.Option(
        help="An API's USD per million prompt and generated tokens, such as 0.15,0.60: says when own GPUs are cheaper.",
        metavar="USD,USD",
    ),
]
TurnsOption = Annotated[
    Optional[float],
    typer.Option(help="Questions of one session, to count people. Default: as the workload has them.", metavar="N"),
]
SessionsPerHourOption = Annotated[
    Optional[float],
    typer.Option(help="Sessions of one person in the busy hour, to count people. Default: 1.", metavar="N"),
]
PROFILE_HELP = "How a day goes: flat, office, evening, or a file with 24 numbers."
PriceOption = Annotated[
    Optional[float], typer.Option(help="USD for one GPU and hour, in place of the entry's.", metavar="USD")
]


def targets_of(models: list[str] | None, **options: Any) -> list[Target]:
    """One target per named model; the catalogue's first entry when none is named."""
    return [Target(model=name, **options) for name in (models or [None])]  # type: ignore[list-item]


def target_of(
    model: str | None,
    runtime: str | None,
    launcher: str | None,
    emulate: bool,
    url: str | None,
    gpu: str | None,
    catalogue: str | None,
    model_name: str | None = None,
) -> Target:
    if (model is None) == (url is None):
        raise UsageError(
            "give either a MODEL of the catalogue or --url" if model is None else "MODEL and --url exclude each other",
            advice="`harness models list` shows the catalogue.",
        )
    if url is not None:
        misplaced: Mapping[str, object] = {"--runtime": runtime, "--launcher": launcher, "--emulate": emulate or None}
        for option, value in misplaced.items():
            if value is not None:
                raise UsageError(f"{option} cannot go with --url: that service is started by someone else")
        from harness.engines.client import base_url  # takes a moment to load

        base_url(url)  # before anything is named after it, or written
    return Target(
        model=model,
        url=url,
        runtime=runtime,  # type: ignore[arg-type]
        launcher=launcher,
        emulate=emulate,
        gpu=gpu,
        catalogue=catalogue,
        model_name=model_name,
    )
