"""The command line: parse, make one call, print, exit code. No decisions.

Each command imports its stage when it is called, so that `harness --help` stays quick.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from harness import __version__, terminal
from harness.errors import ConditionNotMet, HarnessError, InternalError, Interrupted, MissingError, UsageError
from harness.input_files import brief
from harness.redaction import redact
from harness.serve.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.commands.bench import BenchResult
    from harness.commands.repeat import RepeatResult

app = typer.Typer(
    name="harness",
    help="Serve a model with Text Generation Inference, find its limits, load it, and report numbers to be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models_app = typer.Typer(help="The catalogue in models.yaml.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models_app, name="models")
baseline_app = typer.Typer(help="Stored repeats to compare with.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(baseline_app, name="baseline")


# The root of typer's own errors: click's where typer builds on click (Python 3.10), its own elsewhere.
_WrongUsage: type[Exception] = next(
    each for each in reversed(typer.BadParameter.__mro__) if each.__module__ != "builtins"
)


def run(arguments: Sequence[str]) -> int:
    """Run one command; every expected failure becomes one line on stderr (and, with --json, a document) and a code."""
    terminal.show_what_can_be_shown()
    try:
        return _invoke(arguments)
    except (KeyboardInterrupt, typer.Abort):
        return _failed(Interrupted(), arguments)
    except HarnessError as failure:
        return _failed(failure, arguments)
    except typer.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:
        if "--help" not in arguments:
            raise
        terminal.discard_results()  # nobody reads the help to its end
        return 0
    except MemoryError:
        return _failed(MissingError("out of memory", advice="Free some, or ask for less at once."), arguments)
    except OSError as error:
        if error.errno is None:
            return _failed(_fault(error), arguments)
        return _failed(_lacking(error), arguments)
    except _WrongUsage as wrong:
        return _wrong_usage(wrong, arguments)
    except Exception as error:  # noqa: BLE001  # the outermost border: whatever gets here is a fault of ours
        return _failed(_fault(error), arguments)


def _fault(error: Exception) -> InternalError:
    """The line for people; the traceback goes into a file of mode 0600 under the state folder, to be sent along."""
    import traceback

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "harness" in frame.filename]
    place = f" ({'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno})" if frames else ""
    found = f"a fault of harness itself: {type(error).__name__}: {brief(error)}{place}"
    advice = "Please report it as an issue of harness"
    try:
        from harness.stack.state import subfolder

        path = subfolder("faults") / f"{os.getpid()}-{time.time_ns()}.txt"
        path.touch(mode=0o600)
        path.write_text(redact("".join(traceback.format_exception(error))), encoding="utf-8", errors="backslashreplace")
        advice += f", with {path}"
    except (OSError, HarnessError):
        pass  # the line above must come in any case
    return InternalError(found, advice=f"{advice}.")


def _invoke(arguments: Sequence[str]) -> int:
    """Not by calling the app: that ends in silence on Ctrl-C, and with 1 on a pipe that nobody reads any more."""
    command = typer.main.get_command(app)
    with command.make_context("harness", list(arguments)) as context:
        return command.invoke(context) or 0


# What may happen to any file at any time.
_ADVICE = {
    errno.ENOSPC: "Free some space, or write elsewhere.",
    errno.EDQUOT: "Free some space, or write elsewhere.",
    errno.EROFS: "Name a folder that can be written.",
    errno.EACCES: "Change its permissions, or name another place.",
    errno.EPERM: "Change its permissions, or name another place.",
    errno.EMFILE: "Allow more open files: `ulimit -n 65536`.",
    errno.ENFILE: "Close some programs: this machine has no file descriptors left.",
}


def _lacking(error: OSError) -> MissingError:
    found = error.strerror or str(error)
    where = None if error.filename is None else str(error.filename)
    return MissingError(found[:1].lower() + found[1:], where=where, advice=_ADVICE.get(error.errno or 0))


def _wrong_usage(wrong: Any, arguments: Sequence[str]) -> int:
    context = getattr(wrong, "ctx", None)
    if type(wrong).__name__ == "NoArgsIsHelpError":
        terminal.print_result(context.get_help() if context else str(wrong))
        return 2
    advice = f"See {context.command_path} --help." if context is not None else None
    return _failed(UsageError(wrong.format_message(), advice=advice), arguments)


def _failed(failure: HarnessError, arguments: Sequence[str]) -> int:
    terminal.say(f"harness: {failure}")
    if "--json" in arguments:
        terminal.print_json({"error": {"message": str(failure), "exit_code": failure.exit_code}})
    return failure.exit_code


def _show(as_json: bool, document: Any, text: str) -> None:
    if as_json:
        terminal.print_json(document)
    else:
        terminal.print_result(text)


def _from_file(context: typer.Context, path: Optional[Path]) -> Optional[Path]:
    """`--config FILE`: options of the command as YAML; what stands on the command line wins."""
    if path is not None:
        from harness.settings import read_settings

        names = {name for each in context.command.params for name in (*each.opts, *each.secondary_opts)}
        context.default_map = {**(context.default_map or {}), **read_settings(path, names)}
    return path


def _version(wanted: bool) -> None:
    if wanted:
        terminal.print_result(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


# Options that several commands share.
ModelArg = Annotated[Optional[str], typer.Argument(metavar="[MODEL]", help="A name of the catalogue.")]
ModelsArg = Annotated[Optional[list[str]], typer.Argument(metavar="[MODEL]...", help="Names of the catalogue.")]
RuntimeOption = Annotated[
    Optional[Literal["compose", "local", "embedded", "swarm"]],
    typer.Option(
        help="How the model is served: compose (Docker), local (a launcher on this host), embedded (the emulator: no"
        " Docker, no GPU). Default: compose where a GPU and Docker are there, else embedded."
    ),
]
LauncherOption = Annotated[Optional[str], typer.Option(help="The program of --runtime local.", metavar="PATH")]
EmulateOption = Annotated[
    bool, typer.Option("--emulate", help="With --runtime compose: run the emulator's image in the very stack.")
]
UrlOption = Annotated[Optional[str], typer.Option(help="A service that someone else runs.", metavar="URL")]
GpuOption = Annotated[Optional[str], typer.Option(help="GPU, by a name of the GPU sheet; overrides the entry's.")]
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
OutputOption = Annotated[Optional[Path], typer.Option(help="The run's folder itself; must be empty or absent.")]
UsersOption = Annotated[
    Optional[str], typer.Option(help="Closed loop: so many users at once; `1,4,16` are levels one after another.")
]
RateOption = Annotated[
    Optional[str], typer.Option(help="Open loop: requests per second; `2,4` are levels one after another.")
]
DurationOption = Annotated[Optional[str], typer.Option(help="Of each level, such as 30s or 5m. Default: 60s.")]
WarmupOption = Annotated[Optional[str], typer.Option(help="Part of each level's start that the metrics leave out.")]
RequestsOption = Annotated[Optional[int], typer.Option(min=1, help="Of each level, at most.")]
InputTokensOption = Annotated[
    Optional[str],
    typer.Option(help="Prompt length: 200, 4k (4,096), a distribution such as lognormal:500:300, or file:PATH."),
]
OutputTokensOption = Annotated[
    Optional[str],
    typer.Option(help="Answer length, likewise; with the same file as --input-tokens, drawn as pairs."),
]
WorkloadOption = Annotated[
    Optional[str],
    typer.Option(help="What is asked: a file of locustfiles/, by name, or a path. Default: questions."),
]
ThinkTimeOption = Annotated[
    Optional[str], typer.Option(help="With --users: pause between an answer and the user's next request.")
]
ApiOption = Annotated[
    Optional[Literal["tgi", "openai-chat", "openai-completions"]],
    typer.Option(help="Which of the service's APIs. Default: the one that it speaks best."),
]
ModelNameOption = Annotated[
    Optional[str], typer.Option(help="The `model` field of requests. Default: as the service tells.")
]
ProcessesOption = Annotated[int, typer.Option(min=1, help="Load processes on this machine.")]
SeedOption = Annotated[int, typer.Option(help="Of lengths, prompts and arrivals.")]
TimeoutOption = Annotated[str, typer.Option(help="For one request.")]
GateOption = Annotated[Optional[Path], typer.Option(help="Limits per metric, YAML.", metavar="FILE")]
JunitOption = Annotated[Optional[Path], typer.Option(help="Write JUnit XML.", metavar="FILE")]
MarkdownOption = Annotated[Optional[Path], typer.Option(help="Write Markdown.", metavar="FILE")]


@app.command()
def doctor(
    models: ModelsArg = None, gpu: GpuOption = None, catalogue: CatalogueOption = None, json: JsonOption = False
) -> int:
    """Check this machine: Docker, Compose, GPU, disk, token, ports; each finding with the command that mends it.

    With models named, also what each of them needs: image, memory, port, room for the weights, access on the Hub.

    Example: harness doctor        Example for one model: harness doctor llama-3.1-8b
    """
    from harness.commands.doctor import as_text
    from harness.commands.doctor import doctor as examine

    findings = examine(models or (), gpu=gpu, catalogue=catalogue)
    _show(json, [each.as_json() for each in findings], as_text(findings))
    return 0


@models_app.command("list")
def models_list(catalogue: CatalogueOption = None, json: JsonOption = False) -> int:
    """List the catalogue.

    Example: harness models list
    """
    from harness.commands.models import list_models, list_text

    rows = list_models(catalogue)
    _show(json, [each.as_json() for each in rows], list_text(rows))
    return 0


GpusOption = Annotated[Optional[int], typer.Option(help="How many of these GPUs.", min=1, metavar="N")]
DtypeOption = Annotated[Optional[str], typer.Option(help="Instead of the entry's dtype.")]
QuantizeOption = Annotated[
    Optional[str], typer.Option(help="Instead of the entry's method; `none` for the weights as they are.")
]
EngineOption = Annotated[
    Optional[str],
    typer.Option(help="Instead of the entry's: a name, or NAME:VERSION.", metavar="NAME[:VERSION]"),
]


@models_app.command("check")
def models_check(
    models: ModelsArg = None,
    gpu: GpuOption = None,
    gpus: GpusOption = None,
    dtype: DtypeOption = None,
    quantize: QuantizeOption = None,
    engine: EngineOption = None,
    all_gpus: Annotated[bool, typer.Option("--all-gpus", help="A table over every GPU of the sheets.")] = False,
    catalogue: CatalogueOption = None,
    json: JsonOption = False,
) -> int:
    """Say, before anything is started, whether models fit their GPU and why not. All of them when none is named.

    Also whether the engine's release serves the architecture at all. Exit 1 where one does not fit or cannot be served.

    Example: harness models check llama-3.1-8b --gpu L4        Any model: harness models check Qwen/Qwen3-8B --all-gpus
    """
    from harness.commands.models import Settings, all_gpus_text, check_all_gpus, check_models
    from harness.sizing.check import check_text

    settings = Settings(gpu, gpus, dtype, quantize, engine)
    if all_gpus:
        if gpu is not None:
            raise UsageError("--gpu and --all-gpus cannot be combined")
        tables = check_all_gpus(models or [], catalogue=catalogue, settings=settings)
        _show(json, [each.as_json() for table in tables for each in table], all_gpus_text(tables))
        return 0 if all(any(each.good for each in table) for table in tables) else 1
    verdicts = check_models(models or [], catalogue=catalogue, settings=settings)
    _show(json, [each.as_json() for each in verdicts], check_text(verdicts))
    return 0 if all(each.good for each in verdicts) else 1


@models_app.command("add")
def models_add(
    repo: Annotated[str, typer.Argument(metavar="HUB_ID", help="A Hub id or a local directory.")],
    name: Annotated[Optional[str], typer.Option(help="Its name in the catalogue. Default: from the id.")] = None,
    gpu: GpuOption = None,
    gpus: GpusOption = None,
    dtype: DtypeOption = None,
    quantize: QuantizeOption = None,
    engine: EngineOption = None,
    catalogue: CatalogueOption = None,
    json: JsonOption = False,
) -> int:
    """Add a model to the catalogue; revision, sizes and defaults are filled in from the Hub.

    The engine is the catalogue's own where that serves the model, else one that does. Exit 1 where the entry that was
    written does not fit the GPU.

    Example: harness models add Qwen/Qwen2.5-7B-Instruct --gpu L4
    """
    from harness.commands.models import Settings, add_model, add_text

    settings = Settings(gpu, gpus, dtype, quantize, engine)
    added = add_model(repo, name=name, catalogue=catalogue, settings=settings)
    _show(json, added.as_json(), add_text(added))
    return 0 if added.good else 1


@models_app.command("update")
def models_update(
    models: ModelsArg = None,
    write: Annotated[bool, typer.Option("--write", help="Put what has changed into the catalogue.")] = False,
    catalogue: CatalogueOption = None,
    json: JsonOption = False,
) -> int:
    """Compare entries with the Hub as it is now: revision, name and size. All of them when none is named.

    Example: harness models update qwen2.5-7b --write
    """
    from harness.commands.models import update_models, update_text

    updates = update_models(models or [], catalogue=catalogue, write=write)
    _show(json, [each.as_json() for each in updates], update_text(updates))
    return 0 if not any(each.problem for each in updates) else 1


@app.command()
def up(
    models: ModelsArg = None,
    runtime: RuntimeOption = None,
    launcher: LauncherOption = None,
    emulate: EmulateOption = False,
    gpu: GpuOption = None,
    catalogue: CatalogueOption = None,
    url: UrlOption = None,
    gateway: Annotated[
        bool, typer.Option("--gateway", help="One OpenAI-style address for all models, by their name.")
    ] = False,
    monitoring: Annotated[bool, typer.Option("--monitoring", help="Prometheus and Grafana beside the stack.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the rendered stack; start nothing.")] = False,
    json: JsonOption = False,
) -> int:
    """Render the stack, start it, wait until the model truly answers, print endpoint and effective limits.

    Example: harness up qwen2.5-7b        Example without Docker: harness up qwen2.5-0.5b --runtime embedded
    """
    if url is not None:
        raise UsageError("--url makes no sense here: a service that someone else runs is up already")
    from harness.commands.up import dry_run_text, up_text
    from harness.commands.up import up as start

    targets = _targets(models, runtime=runtime, launcher=launcher, emulate=emulate, gpu=gpu, catalogue=catalogue)
    if dry_run:
        terminal.print_result(dry_run_text(targets, gateway=gateway, monitoring=monitoring))
        return 0
    running = start(targets, gateway=gateway, monitoring=monitoring, progress=terminal.say)
    _show(json, [each.as_json() for each in running], up_text(running))
    return 0


@app.command()
def render(
    models: ModelsArg = None,
    format: Annotated[Literal["compose", "swarm", "kubernetes"], typer.Option(help="What to render.")] = "compose",
    emulate: EmulateOption = False,
    gpu: GpuOption = None,
    catalogue: CatalogueOption = None,
    gateway: Annotated[bool, typer.Option("--gateway", help="With the gateway.")] = False,
    monitoring: Annotated[bool, typer.Option("--monitoring", help="With Prometheus and Grafana.")] = False,
    output: Annotated[Optional[Path], typer.Option(help="A folder for the files. Default: stdout.")] = None,
) -> int:
    """Write the stack's files to stdout or into a folder; start nothing.

    Example: harness render qwen2.5-7b --format compose
    """
    from harness.commands.render import render as write

    targets = _targets(models, runtime=None, launcher=None, emulate=emulate, gpu=gpu, catalogue=catalogue)
    text = write(targets, format=format, gateway=gateway, monitoring=monitoring, output=output)
    terminal.print_result(text)
    return 0


@app.command()
def status(models: ModelsArg = None, json: JsonOption = False) -> int:
    """What runs, its phase, effective limits and health.

    Example: harness status
    """
    from harness.commands.status import status as look
    from harness.commands.status import status_text

    running = look(models or [])
    _show(json, [each.as_json() for each in running], status_text(running))
    return 0


@app.command()
def logs(
    models: ModelsArg = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
) -> int:
    """Show the engines' logs.

    Example: harness logs -f qwen2.5-7b
    """
    from harness.commands.status import logs as read

    for line in read(models or [], follow=follow):
        if not terminal.print_line(line):
            break
    return 0


@app.command()
def down(models: ModelsArg = None, json: JsonOption = False) -> int:
    """Stop what `up` started and clean up; the model cache stays. All of it when no model is named.

    Example: harness down
    """
    from harness.commands.status import down as stop

    stopped = stop(models or [], progress=terminal.say)
    _show(
        json, [{"name": name} for name in stopped], "\n".join(f"{name}: stopped" for name in stopped) or "nothing runs"
    )
    return 0


@app.command()
def probe(
    model: ModelArg = None,
    answer_tokens: Annotated[
        Optional[int],
        typer.Option(min=1, help="Tokens the capacity card reserves for the answer. Default: the entry's."),
    ] = None,
    goal: Annotated[
        Literal["balanced", "history", "chats", "latency"], typer.Option(help="What the recommended flags are for.")
    ] = "balanced",
    max_starts: Annotated[int, typer.Option(min=1, help="Start the service at most this often.")] = 8,
    history_share: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Share of the token budget that `balanced` gives for a longer history."),
    ] = 0.1,
    quick: Annotated[bool, typer.Option("--quick", help="Skip the proof under load; the result says so.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier probe of --output ended.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write the limits into models.yaml.")] = False,
    output: OutputOption = None,
    runtime: RuntimeOption = None,
    launcher: LauncherOption = None,
    emulate: EmulateOption = False,
    url: UrlOption = None,
    gpu: GpuOption = None,
    catalogue: CatalogueOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> int:
    """Find the GPU's real limits: largest history, token budget, batch; proved under load, with flags to set.

    Example: harness probe qwen2.5-7b --goal chats --write
    """
    from harness.commands.probe import ProbeOptions
    from harness.commands.probe import probe as search

    target = _target(model, runtime, launcher, emulate, url, gpu, catalogue)
    options = ProbeOptions(
        answer_tokens=answer_tokens,
        goal=goal,
        max_starts=max_starts,
        history_share=history_share,
        quick=quick,
        resume=resume,
        write=write,
        output=output,
    )
    report = search(target, options, progress=terminal.say)
    _show(json, report.as_json(), report.as_text())
    return 0


@app.command()
def bench(
    model: ModelArg = None,
    users: UsersOption = None,
    rate: RateOption = None,
    arrival: Annotated[
        Optional[str],
        typer.Option(
            help="With --rate: poisson (the default), constant, gamma:SHAPE; ramp:TO_RATE:SECONDS or "
            "steps:SECONDS:RATE:..., which begin at the rate."
        ),
    ] = None,
    trace: Annotated[
        Optional[Path],
        typer.Option(
            help="Replay lengths and arrival times of this file; docs/traces.md lists the forms.", metavar="FILE"
        ),
    ] = None,
    dataset: Annotated[
        Optional[str],
        typer.Option(
            help="Ask what this file of the Hugging Face Hub holds, at its own moments where it tells them and neither "
            "--users nor --rate is given. A path that begins with ./ or / names a file here.",
            metavar="REPO[@REVISION][:FILE]",
        ),
    ] = None,
    dataset_rows: Annotated[
        Optional[int], typer.Option(min=1, help="Of --dataset, so many rows are asked. Default: 10000.")
    ] = None,
    trace_speed: Annotated[
        Optional[float], typer.Option(help="Replay so many times as fast; --duration is that of the replay.")
    ] = None,
    trace_start: Annotated[
        Optional[str], typer.Option(help="Begin so far into the trace, such as 10m.", metavar="DURATION")
    ] = None,
    trace_loop: Annotated[
        bool, typer.Option("--trace-loop", help="Begin the trace again at its end, until --duration or --requests.")
    ] = False,
    trace_form: Annotated[
        Optional[str], typer.Option(help="How the file is written, where its first lines do not tell.")
    ] = None,
    trace_time_unit: Annotated[
        Optional[Literal["s", "ms", "us", "ns"]], typer.Option(help="Of its moments, where the file does not tell.")
    ] = None,
    trace_block_tokens: Annotated[
        Optional[int], typer.Option(min=1, help="Tokens of one block hash, where the file does not tell.")
    ] = None,
    duration: DurationOption = None,
    warmup: WarmupOption = None,
    requests: RequestsOption = None,
    sessions: Annotated[
        Optional[int], typer.Option(min=1, help="Conversations of each level, at most; each is carried to its end.")
    ] = None,
    input_tokens: InputTokensOption = None,
    output_tokens: OutputTokensOption = None,
    workload: WorkloadOption = None,
    api: ApiOption = None,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Ask for whole answers.")] = False,
    slo: Annotated[Optional[str], typer.Option(help='Bounds, such as "ttft_p95=1s,itl_p95=60ms".')] = None,
    require_valid: Annotated[bool, typer.Option("--require-valid", help="Exit 1 when the run is not valid.")] = False,
    processes: ProcessesOption = 1,
    seed: SeedOption = 1,
    timeout: TimeoutOption = "10m",
    think_time: ThinkTimeOption = None,
    in_step: Annotated[
        bool,
        typer.Option(
            "--in-step",
            help="With --users: all begin at once and ask again without a pause, and stay in step. Default: starts are "
            "spread over an answer's time, and each user pauses for a random moment, 2 % of that on average.",
        ),
    ] = False,
    model_name: ModelNameOption = None,
    output: OutputOption = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.md and report.html.")] = True,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what would be sent, and what it would cost; send nothing.")
    ] = False,
    web_ui: Annotated[bool, typer.Option("--web-ui", help="Show Locust's own page while it runs.")] = False,
    repeat: Annotated[
        Optional[int], typer.Option(min=1, help="Run it so many times, with other seeds: one side of `compare`.")
    ] = None,
    aa: Annotated[
        bool, typer.Option("--aa", help="With --repeat: store how much runs differ, to judge single ones by.")
    ] = False,
    runtime: RuntimeOption = None,
    launcher: LauncherOption = None,
    emulate: EmulateOption = False,
    url: UrlOption = None,
    gpu: GpuOption = None,
    catalogue: CatalogueOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> int:
    """Drive Locust load at the live service and say how many users it serves within the SLO.

    Example: harness bench qwen2.5-7b --users 1,4,16 --duration 60s --slo "ttft_p95=1s,itl_p95=60ms"
    """
    from harness.commands.bench import BenchOptions, explain_bench
    from harness.commands.bench import bench as measure

    options = BenchOptions(
        users=users,
        rate=rate,
        arrival=arrival,
        trace=trace,
        dataset=dataset,
        dataset_rows=dataset_rows,
        trace_form=trace_form,
        trace_time_unit=trace_time_unit,
        trace_block_tokens=trace_block_tokens,
        trace_speed=trace_speed,
        trace_start=trace_start,
        trace_loop=trace_loop,
        duration=duration,
        warmup=warmup,
        requests=requests,
        sessions=sessions,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        workload=workload,
        api=api,
        stream=not no_stream,
        slo=slo,
        require_valid=require_valid,
        processes=processes,
        seed=seed,
        timeout=timeout,
        think_time=think_time,
        in_step=in_step,
        output=output,
        report=report,
        web_ui=web_ui,
    )
    target = _target(model, runtime, launcher, emulate, url, gpu, catalogue, model_name)
    if explain:
        explanation = explain_bench(target, options, progress=terminal.say)
        _show(json, explanation.as_json(), explanation.as_text())
        return 0
    if repeat is not None or aa:
        from harness.commands.repeat import repeat as measure_again

        return _told(measure_again(target, options, repeat or 1, progress=terminal.say, keep=aa), json)
    return _told(measure(target, options, progress=terminal.say), json)


def _told(result: BenchResult | RepeatResult, json: bool) -> int:
    """Print what was measured, and say the condition that does not hold; the exit code."""
    _show(json, result.as_json(), result.as_text())
    if result.unmet is not None:
        terminal.say(f"harness: {ConditionNotMet(result.unmet)}")
    elif result.warning is not None:
        terminal.say(f"harness: warning: {result.warning}")
    return result.exit_code


@app.command()
def capacity(
    model: ModelArg = None,
    unit: Annotated[
        Literal["users", "chats", "rate"],
        typer.Option(
            help="What is counted: users of a closed loop with --think-time between an answer and the next question, "
            "chats that are answered at once, or the rate of requests per second."
        ),
    ] = "users",
    history: Annotated[
        Optional[str],
        typer.Option(help="Prompt tokens, such as 2000 or 2000,8000: a search for each.", metavar="TOKENS,..."),
    ] = None,
    slo: Annotated[
        Optional[str], typer.Option(help='Bounds, such as "ttft_p95=1s,itl_p95=60ms". Default: the entry\'s.')
    ] = None,
    budget: Annotated[str, typer.Option(help="Time for all levels together.")] = "20m",
    level: Annotated[str, typer.Option(help="Length of a level beside the limit; others are shorter.")] = "60s",
    start: Annotated[float, typer.Option(help="The first load.")] = 1.0,
    most: Annotated[Optional[float], typer.Option(help="The highest load that may be tried.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in --output; no level that ended is repeated.")
    ] = False,
    think_time: Annotated[
        Optional[str], typer.Option(help="With --unit users: pause between an answer and the next question.")
    ] = None,
    turns: Annotated[float, typer.Option(help="Questions of one session, to count people.")] = 1.0,
    sessions_per_hour: Annotated[
        float, typer.Option(help="Sessions of one person in the busy hour, to count people.")
    ] = 1.0,
    profile: Annotated[
        str, typer.Option(help="How a day goes: flat, office, evening, or a file with 24 numbers.")
    ] = "flat",
    input_tokens: Annotated[Optional[str], typer.Option(help="Prompt length, as `bench` takes it.")] = None,
    output_tokens: Annotated[Optional[str], typer.Option(help="Answer length, likewise.")] = None,
    workload: Annotated[Optional[str], typer.Option(help="What is asked, as `bench` takes it.")] = None,
    api: ApiOption = None,
    processes: ProcessesOption = 1,
    seed: SeedOption = 1,
    timeout: TimeoutOption = "10m",
    model_name: ModelNameOption = None,
    output: OutputOption = None,
    runtime: RuntimeOption = None,
    launcher: LauncherOption = None,
    emulate: EmulateOption = False,
    url: UrlOption = None,
    gpu: GpuOption = None,
    catalogue: CatalogueOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> int:
    """Search the highest load whose SLO holds, and say how sure that is and how many people are behind it.

    Example: harness capacity qwen2.5-7b --slo "ttft_p95=1s,itl_p95=60ms" --think-time 30s --turns 6 --budget 20m
    """
    from harness.commands.bench import BenchOptions
    from harness.commands.capacity import CapacityOptions
    from harness.commands.capacity import capacity as search

    asked = BenchOptions(
        slo=slo,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        workload=workload,
        api=api,
        processes=processes,
        seed=seed,
        timeout=timeout,
        think_time=think_time,
        output=output,
    )
    options = CapacityOptions(
        asked=asked,
        unit=unit,
        history=history,
        budget=budget,
        level=level,
        start=start,
        most=most,
        turns=turns,
        sessions_per_hour=sessions_per_hour,
        profile=profile,
        resume=resume,
    )
    target = _target(model, runtime, launcher, emulate, url, gpu, catalogue, model_name)
    result = search(target, options, progress=terminal.say)
    _show(json, result.as_json(), result.as_text())
    if result.unmet is not None:
        terminal.say(f"harness: {ConditionNotMet(result.unmet)}")
    return 0 if result.unmet is None else 1


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    format: Annotated[
        Optional[list[str]], typer.Option(help="html, markdown, json, csv; may be repeated. Default: html, markdown.")
    ] = None,
    output: Annotated[Optional[Path], typer.Option(help="A folder for the reports. Default: each run's own.")] = None,
    json: JsonOption = False,
) -> int:
    """Make the report again from run folders, also of a run that was killed.

    Example: harness report reports/2026-05-04T12-00-00Z-qwen2.5-7b-L4-chat
    """
    from harness.commands.report import report as make

    paths = make(runs, formats=format or None, output=output)
    _show(json, [str(path) for path in paths], "\n".join(str(path) for path in paths))
    return 0


@app.command()
def ab(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name of models.yaml: side A, and B without OTHER.")],
    other: Annotated[Optional[str], typer.Argument(metavar="OTHER", help="Another entry, for side B.")] = None,
    a: Annotated[
        Optional[list[str]],
        typer.Option("--a", help="Of side A, over the entry; repeatable.", metavar="KEY=VALUE"),
    ] = None,
    b: Annotated[
        Optional[list[str]],
        typer.Option("--b", help="Of side B, such as engine=vllm or limits.max_batch_size=16.", metavar="KEY=VALUE"),
    ] = None,
    repeat: Annotated[Optional[int], typer.Option(min=2, help="Runs of each side. Default: 5.")] = None,
    until_decided: Annotated[
        Optional[str], typer.Option(help="Go on until it is decided, for so long at most.", metavar="DURATION")
    ] = None,
    users: UsersOption = None,
    rate: RateOption = None,
    duration: DurationOption = None,
    warmup: WarmupOption = None,
    requests: RequestsOption = None,
    input_tokens: InputTokensOption = None,
    output_tokens: OutputTokensOption = None,
    workload: WorkloadOption = None,
    api: ApiOption = None,
    think_time: ThinkTimeOption = None,
    processes: ProcessesOption = 1,
    seed: SeedOption = 1,
    gate: GateOption = None,
    junit: JunitOption = None,
    markdown: MarkdownOption = None,
    output: OutputOption = None,
    runtime: RuntimeOption = None,
    launcher: LauncherOption = None,
    emulate: EmulateOption = False,
    gpu: GpuOption = None,
    catalogue: CatalogueOption = None,
    json: JsonOption = False,
) -> int:
    """Start two variants of an entry in turn, ask both the same, and say in one sentence which is slower.

    Example: harness ab qwen2.5-7b --b engine=vllm --users 8 --until-decided 30m
    """
    from harness.commands.ab import ab as judge
    from harness.commands.bench import BenchOptions

    options = BenchOptions(
        users=users or (None if rate else "8"),
        rate=rate,
        duration=duration,
        warmup=warmup,
        requests=requests,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        workload=workload,
        api=api,
        think_time=think_time,
        processes=processes,
        seed=seed,
        output=output,
    )
    result = judge(
        _target(model, runtime, launcher, emulate, None, gpu, catalogue),
        a or (),
        b or (),
        options,
        progress=terminal.say,
        other=other,
        repeats=repeat,
        until_decided=until_decided,
        gate=gate,
        junit=junit,
        markdown=markdown,
    )
    _show(json, result.as_json(), result.as_text())
    return result.exit_code


@app.command()
def compare(
    base: Annotated[str, typer.Argument(help="Repeats of one setting: a folder of them, or run folders with commas.")],
    new: Annotated[str, typer.Argument(help="Likewise.")],
    gate: GateOption = None,
    junit: JunitOption = None,
    markdown: MarkdownOption = None,
    json: JsonOption = False,
) -> int:
    """Two groups of repeats, and a regression gate: exit 1 when NEW is worse beyond the limits or it cannot be told.

    Example: harness compare reports/before reports/after --junit result.xml
    """
    from harness.commands.compare import compare as judge

    verdict = judge(base.split(","), new.split(","), gate=gate, junit=junit, markdown=markdown)
    _show(json, verdict.as_json(), verdict.as_text())
    return verdict.exit_code


BaselineName = Annotated[str, typer.Argument(metavar="NAME", help="Of the baseline.")]
BaselineRuns = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of repeats.")]
BaselineFolder = Annotated[
    Optional[Path], typer.Option("--folder", help="Where baselines are kept. Default: reports/baselines.")
]


@baseline_app.command("save")
def baseline_save(
    name: BaselineName, runs: BaselineRuns, folder: BaselineFolder = None, json: JsonOption = False
) -> int:
    """Keep repeats under a name.

    harness baseline save chat-l4 reports/before
    """
    from harness.commands import baseline

    kept = baseline.save(name, runs, folder)
    _show(json, kept.as_json(), kept.as_text())
    return 0


@baseline_app.command("promote")
def baseline_promote(
    name: BaselineName,
    runs: BaselineRuns,
    reason: Annotated[str, typer.Option(help="Why these take the place of those that are there.")],
    folder: BaselineFolder = None,
    json: JsonOption = False,
) -> int:
    """Put newer repeats in a baseline's place, and say why."""
    from harness.commands import baseline

    kept = baseline.promote(name, runs, reason, folder)
    _show(json, kept.as_json(), kept.as_text())
    return 0


@baseline_app.command("list")
def baseline_list(folder: BaselineFolder = None, json: JsonOption = False) -> int:
    """What is stored."""
    from harness.commands import baseline

    found = baseline.listed(folder)
    _show(json, found.as_json(), found.as_text())
    return 0


@baseline_app.command("show")
def baseline_show(name: BaselineName, folder: BaselineFolder = None, json: JsonOption = False) -> int:
    """What one is of, and how much its runs differ."""
    from harness.commands import baseline

    found = baseline.show(name, folder)
    _show(json, found.as_json(), found.as_text())
    return 0


@baseline_app.command("check")
def baseline_check(
    name: BaselineName,
    runs: BaselineRuns,
    allow: Annotated[Optional[str], typer.Option(help="What may differ, such as engine,image_digest.")] = None,
    gate: GateOption = None,
    junit: JunitOption = None,
    markdown: MarkdownOption = None,
    folder: BaselineFolder = None,
    json: JsonOption = False,
) -> int:
    """Compare runs with a baseline, and exit as `compare` does.

    harness baseline check chat-l4 reports/now --allow engine,image_digest
    """
    from harness.commands import baseline

    verdict = baseline.check(name, runs, folder, allow, gate, junit, markdown)
    _show(json, verdict.as_json(), verdict.as_text())
    return verdict.exit_code


@app.command()
def migrate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name of models.yaml, or a Hub id that it serves.")],
    to: Annotated[str, typer.Option(metavar="ENGINE", help="`vllm`, `sglang` or `llamacpp`.")],
    write: Annotated[Optional[str], typer.Option(metavar="NAME", help="Add the new entry under this name.")] = None,
    repo: Annotated[Optional[str], typer.Option(help="Other weights, where the engine needs them (GGUF).")] = None,
    file: Annotated[Optional[str], typer.Option(help="The one file of the repo that is served (GGUF).")] = None,
    catalogue: CatalogueOption = None,
    json: JsonOption = False,
) -> int:
    """An entry in another engine's terms: what each setting becomes, what has no counterpart, what changes by default.

    harness migrate qwen2.5-7b --to vllm --write qwen2.5-7b-vllm
    """
    from harness.commands import migrate as migration

    found = migration.migrate(model, to, write=write, repo=repo, file=file, catalogue=catalogue)
    _show(json, found.as_json(), found.as_text())
    return 0


@app.command()
def calibrate(
    users: Annotated[str, typer.Option(help="Streams at once, `64,512`.")] = "1,16,64,256,512",
    json: JsonOption = False,
) -> int:
    """Measure this machine's client alone: the error of TTFT and ITL that a load generator makes by itself; stored.

    Example: harness calibrate --users 64,512
    """
    from harness.commands.calibrate import calibrate as measure

    floor = measure(users, progress=terminal.say)
    _show(json, floor.as_json(), floor.as_text())
    return 0


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def emulate() -> int:
    """Serve the emulator of an engine on a port, alone: TGI's unless --engine says vllm, sglang or llamacpp.

    It takes the engine's own flags and environment variables too.

    Example: harness emulate --port 8080 --gpu L4 --model Qwen/Qwen2.5-0.5B-Instruct

    Another engine: harness emulate --engine vllm --port 8000 --model Qwen/Qwen2.5-0.5B-Instruct

    All options: python -m harness.emulator [--engine NAME] --help
    """
    raise UsageError("emulate must be the first argument")


@app.command()
def demo(
    output: OutputOption = None,
    json: JsonOption = False,
) -> int:
    """Run up, probe, bench and report on the embedded emulator: no GPU, no Docker, under two minutes.

    Example: harness demo
    """
    from harness.commands.demo import demo as show

    result = show(output, progress=terminal.say)
    _show(json, result.as_json(), result.as_text())
    return 0


def _targets(models: list[str] | None, **options: Any) -> list[Target]:
    """One target per named model; the catalogue's first entry when none is named."""
    return [Target(model=name, **options) for name in (models or [None])]  # type: ignore[list-item]


def _target(
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
