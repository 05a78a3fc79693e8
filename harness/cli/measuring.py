"""Commands that put load on a service and measure it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from harness import terminal
from harness.cli.app import app, show
from harness.cli.options import (
    PROFILE_HELP,
    ApiOption,
    ApiPriceOption,
    CatalogueOption,
    ConfigOption,
    DurationOption,
    EmulateOption,
    ForUsersOption,
    GpuOption,
    InputTokensOption,
    JsonOption,
    LauncherOption,
    ModelArg,
    ModelNameOption,
    OutputOption,
    OutputTokensOption,
    PeakOption,
    PriceOption,
    ProcessesOption,
    RateOption,
    RequestsOption,
    RuntimeOption,
    SeedOption,
    SessionsPerHourOption,
    SpareOption,
    ThinkTimeOption,
    TimeoutOption,
    TurnsOption,
    UnsupportedOption,
    UrlOption,
    UsersOption,
    WarmupOption,
    WorkloadOption,
    target_of,
)
from harness.errors import ConditionNotMet

if TYPE_CHECKING:
    from harness.commands.repeat import RepeatResult
    from harness.commands.rerun import RerunResult
    from harness.drive.bench_result import BenchResult


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
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue where an earlier probe of --output ended.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Write the limits into models.yaml.")] = False,
    output: OutputOption = None,
    runtime: RuntimeOption = None,
    launcher: LauncherOption = None,
    emulate: EmulateOption = False,
    url: UrlOption = None,
    gpu: GpuOption = None,
    catalogue: CatalogueOption = None,
    try_unsupported: UnsupportedOption = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> int:
    """Find the GPU's limits, and prove them under load.

    The longest history, the token budget and the batch size, with flags to set.

    \b
    Example: harness probe qwen2.5-7b --goal chats --write
    """
    from harness.commands.probe import ProbeOptions
    from harness.commands.probe import probe as search

    target = target_of(model, runtime, launcher, emulate, url, gpu, catalogue)
    target = replace(target, try_unsupported=try_unsupported)
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
    show(json, report.as_json(), report.as_text())
    return 0


ArrivalOption = Annotated[
    Optional[str],
    typer.Option(
        help="With --rate: poisson (the default), constant, gamma:SHAPE; ramp:TO_RATE:SECONDS or "
        "steps:SECONDS:RATE:..., which begin at the rate."
    ),
]
TraceOption = Annotated[
    Optional[Path],
    typer.Option(help="Replay lengths and arrival times of this file; docs/traces.md lists the forms.", metavar="FILE"),
]
DatasetOption = Annotated[
    Optional[str],
    typer.Option(
        help="Send what this file of the Hugging Face Hub holds, at its own times where it has them and neither "
        "--users nor --rate is given. A path that begins with ./ or / names a local file.",
        metavar="REPO[@REVISION][:FILE]",
    ),
]
DatasetRowsOption = Annotated[
    Optional[int], typer.Option(min=1, help="How many rows of --dataset are sent. Default: 10000.", metavar="N")
]
TraceSpeedOption = Annotated[
    Optional[float], typer.Option(help="Replay this many times as fast; --duration is that of the replay.")
]
TraceStartOption = Annotated[
    Optional[str], typer.Option(help="Start this far into the trace, such as 10m.", metavar="DURATION")
]
TraceLoopOption = Annotated[
    bool, typer.Option("--trace-loop", help="Start the trace again at its end, until --duration or --requests.")
]
TraceFormOption = Annotated[
    Optional[str], typer.Option(help="The file's form, where its first lines do not tell.", metavar="FORM")
]
TraceTimeUnitOption = Annotated[
    Optional[Literal["s", "ms", "us", "ns"]], typer.Option(help="Unit of its times, where the file does not tell.")
]
TraceBlockTokensOption = Annotated[
    Optional[int], typer.Option(min=1, help="Tokens of one block hash, where the file does not tell.")
]
SessionsOption = Annotated[
    Optional[int], typer.Option(min=1, help="Conversations of each level, at most; each is carried to its end.")
]
NoStreamOption = Annotated[bool, typer.Option("--no-stream", help="Ask for whole answers.")]
BenchSloOption = Annotated[
    Optional[str], typer.Option(help='Bounds, such as "ttft_p95=1s,itl_p95=60ms".', metavar="SLO")
]
RequireValidOption = Annotated[bool, typer.Option("--require-valid", help="Exit 1 when the run is not valid.")]
InStepOption = Annotated[
    bool,
    typer.Option(
        "--in-step",
        help="With --users: all begin at once and ask again without a pause, and stay in step. Default: starts are "
        "spread over an answer's time, and each user pauses for a random moment, 2 % of that on average.",
    ),
]
ReportOption = Annotated[bool, typer.Option("--report/--no-report", help="Write report.md and report.html.")]
ExplainOption = Annotated[
    bool, typer.Option("--explain", help="Say what would be sent and what that would cost; send nothing.")
]
WebUiOption = Annotated[bool, typer.Option("--web-ui", help="Show Locust's own page while it runs.")]
RepeatOption = Annotated[
    Optional[int],
    typer.Option(min=1, help="Run it N times with different seeds: one side of `compare`.", metavar="N"),
]
AaOption = Annotated[
    bool, typer.Option("--aa", help="With --repeat: store how much the runs differ, to judge single runs by.")
]


@app.command()
def bench(
    model: ModelArg = None,
    users: UsersOption = None,
    rate: RateOption = None,
    arrival: ArrivalOption = None,
    trace: TraceOption = None,
    dataset: DatasetOption = None,
    dataset_rows: DatasetRowsOption = None,
    trace_speed: TraceSpeedOption = None,
    trace_start: TraceStartOption = None,
    trace_loop: TraceLoopOption = False,
    trace_form: TraceFormOption = None,
    trace_time_unit: TraceTimeUnitOption = None,
    trace_block_tokens: TraceBlockTokensOption = None,
    duration: DurationOption = None,
    warmup: WarmupOption = None,
    requests: RequestsOption = None,
    sessions: SessionsOption = None,
    input_tokens: InputTokensOption = None,
    output_tokens: OutputTokensOption = None,
    workload: WorkloadOption = None,
    api: ApiOption = None,
    no_stream: NoStreamOption = False,
    slo: BenchSloOption = None,
    require_valid: RequireValidOption = False,
    processes: ProcessesOption = 1,
    seed: SeedOption = 1,
    timeout: TimeoutOption = "10m",
    think_time: ThinkTimeOption = None,
    in_step: InStepOption = False,
    model_name: ModelNameOption = None,
    output: OutputOption = None,
    report: ReportOption = True,
    explain: ExplainOption = False,
    web_ui: WebUiOption = False,
    repeat: RepeatOption = None,
    aa: AaOption = False,
    runtime: RuntimeOption = None,
    launcher: LauncherOption = None,
    emulate: EmulateOption = False,
    url: UrlOption = None,
    gpu: GpuOption = None,
    catalogue: CatalogueOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> int:
    """Load a service and measure how many users it serves.

    Within the SLO, level by level; records, summary and report are in the run's own folder.

    \b
    Example: harness bench qwen2.5-7b --users 1,4,16 --slo "ttft_p95=1s,itl_p95=60ms"
    A service that runs already: harness bench --url http://127.0.0.1:8080 --rate 2,4
    """
    from harness.commands.bench import bench as measure
    from harness.drive.bench_options import BenchOptions, plan_of
    from harness.drive.bench_run import explain_bench

    plan = plan_of(
        BenchOptions(
            users=users,
            rate=rate,
            arrival=arrival,
            trace=None if trace is None else str(trace),
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
    )
    target = target_of(model, runtime, launcher, emulate, url, gpu, catalogue, model_name)
    if explain:
        explanation = explain_bench(target, plan, progress=terminal.say)
        show(json, explanation.as_json(), explanation.as_text())
        return 0
    if repeat is not None or aa:
        from harness.commands.repeat import repeat as measure_again

        return _told(measure_again(target, plan, repeat or 1, progress=terminal.say, keep=aa), json)
    return _told(measure(target, plan, progress=terminal.say), json)


@app.command()
def rerun(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its manifest.json.", metavar="RUN")],
    allow: Annotated[
        Optional[str],
        typer.Option(help="What may have changed since, with commas, such as image_digest,flags.", metavar="KEY,..."),
    ] = None,
    url: UrlOption = None,
    catalogue: CatalogueOption = None,
    output: OutputOption = None,
    report: ReportOption = True,
    json: JsonOption = False,
) -> int:
    """Make a run again from its manifest.

    With the same seeds, questions, levels and settings; or says what is no longer available.

    \b
    Example: harness rerun reports/20260101T120000Z-qwen2.5-7b-L4-questions
    """
    from harness.commands.rerun import rerun as make_again

    result = make_again(run, terminal.say, allow=allow, url=url, catalogue=catalogue, output=output, report=report)
    return _told(result, json)


UnitOption = Annotated[
    Literal["users", "chats", "rate"],
    typer.Option(
        help="What is counted: users of a closed loop with --think-time between an answer and the next question, "
        "chats that are answered at once, or the rate of requests per second."
    ),
]
HistoryOption = Annotated[
    Optional[str],
    typer.Option(help="Prompt tokens, such as 2000 or 2000,8000: a search for each.", metavar="TOKENS,..."),
]
SloOption = Annotated[
    Optional[str], typer.Option(help='Bounds, such as "ttft_p95=1s,itl_p95=60ms". Default: the entry\'s.')
]
BudgetOption = Annotated[str, typer.Option(help="Time for all levels together.", metavar="DURATION")]
LevelOption = Annotated[
    str, typer.Option(help="Length of a level close to the limit; others are shorter.", metavar="DURATION")
]
MostOption = Annotated[Optional[float], typer.Option(help="The highest load that may be tried.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue in --output; no level that ended is repeated.")]
CapacityThinkTimeOption = Annotated[
    Optional[str],
    typer.Option(
        help="Pause between an answer and the user's next question. Default: as the workload has it.",
        metavar="PAUSE",
    ),
]
CapacityInputTokensOption = Annotated[
    Optional[str], typer.Option(help="Prompt length, as `bench` takes it.", metavar="LENGTH")
]
CapacityOutputTokensOption = Annotated[Optional[str], typer.Option(help="Answer length, likewise.", metavar="LENGTH")]
CapacityWorkloadOption = Annotated[
    Optional[str], typer.Option(help="What is asked, as `bench` takes it.", metavar="NAME")
]


@app.command()
def capacity(
    model: ModelArg = None,
    unit: UnitOption = "users",
    history: HistoryOption = None,
    slo: SloOption = None,
    budget: BudgetOption = "20m",
    level: LevelOption = "60s",
    start: Annotated[float, typer.Option(help="The first load.")] = 1.0,
    most: MostOption = None,
    resume: ResumeOption = False,
    think_time: CapacityThinkTimeOption = None,
    turns: TurnsOption = None,
    sessions_per_hour: SessionsPerHourOption = None,
    profile: Annotated[str, typer.Option(help=PROFILE_HELP)] = "flat",
    for_users: ForUsersOption = None,
    peak: PeakOption = 1.0,
    spare: SpareOption = 1,
    api_price: ApiPriceOption = None,
    price: PriceOption = None,
    input_tokens: CapacityInputTokensOption = None,
    output_tokens: CapacityOutputTokensOption = None,
    workload: CapacityWorkloadOption = None,
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
    """Search the highest load that holds the SLO.

    Says how sure that is, and how many people are behind it.

    \b
    Example: harness capacity qwen2.5-7b --slo "ttft_p95=1s" --think-time 30s --turns 6
    """
    from harness.commands.capacity import capacity as search
    from harness.drive.bench_options import BenchOptions, plan_of
    from harness.drive.capacity_plan import CapacityOptions
    from harness.drive.money_options import money_question

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
        asked=plan_of(asked),
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
        money=money_question(for_users, peak, spare, api_price, price),
    )
    target = target_of(model, runtime, launcher, emulate, url, gpu, catalogue, model_name)
    result = search(target, options, progress=terminal.say)
    show(json, result.as_json(), result.as_text())
    if result.unmet is not None:
        terminal.say(f"harness: {ConditionNotMet(result.unmet)}")
    return 0 if result.unmet is None else 1


@app.command()
def calibrate(
    users: Annotated[
        str, typer.Option(help="Concurrent streams, such as 64,512.", metavar="N,...")
    ] = "1,16,64,256,512",
    processes: ProcessesOption = 1,
    missing: Annotated[bool, typer.Option("--missing", help="Measure only what no stored one covers.")] = False,
    json: JsonOption = False,
) -> int:
    """Measure the load generator's own error on this machine.

    Of TTFT and ITL, against an engine with a known schedule; stored for later runs.

    \b
    Example: harness calibrate --users 64,512
    """
    from harness.commands.calibrate import calibrate as measure

    floor = measure(users, progress=terminal.say, processes=processes, missing=missing)
    show(json, floor.as_json(), floor.as_text())
    return 0


def _told(result: BenchResult | RepeatResult | RerunResult, json: bool) -> int:
    """Print what was measured, and say the condition that does not hold; the exit code."""
    show(json, result.as_json(), result.as_text())
    if result.unmet is not None:
        terminal.say(f"harness: {ConditionNotMet(result.unmet)}")
    elif result.warning is not None:
        terminal.say(f"harness: warning: {result.warning}")
    return result.exit_code
