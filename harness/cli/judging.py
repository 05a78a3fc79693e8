"""Commands about results that are there already: reports, comparisons, baselines, histories; and `ab`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from harness import terminal
from harness.cli.app import app, baseline_app, show
from harness.cli.options import (
    PROFILE_HELP,
    ApiOption,
    ApiPriceOption,
    CatalogueOption,
    DurationOption,
    EmulateOption,
    ForUsersOption,
    GateOption,
    GpuOption,
    InputTokensOption,
    JsonOption,
    JunitOption,
    LauncherOption,
    MarkdownOption,
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
    TurnsOption,
    UsersOption,
    WarmupOption,
    WorkloadOption,
    target_of,
)
from harness.errors import UsageError


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="Of runs, probes, capacity searches.")],
    format: Annotated[
        Optional[list[str]], typer.Option(help="html, markdown, json, csv; may be repeated. Default: html, markdown.")
    ] = None,
    output: Annotated[
        Optional[Path], typer.Option(help="A folder for the reports. Default: the run's own.", metavar="DIR")
    ] = None,
    charts: Annotated[
        Optional[Path], typer.Option(help="A folder for every chart as SVG and PNG.", metavar="DIR")
    ] = None,
    for_users: ForUsersOption = None,
    peak: PeakOption = 1.0,
    spare: SpareOption = 1,
    api_price: ApiPriceOption = None,
    price: PriceOption = None,
    turns: TurnsOption = None,
    sessions_per_hour: SessionsPerHourOption = None,
    profile: Annotated[Optional[str], typer.Option(help=PROFILE_HELP)] = None,
    json: JsonOption = False,
) -> int:
    """Make the report of a folder again, or of several side by side.

    Of runs, probes and capacity searches; also of a run that was killed.

    \b
    Example: harness report reports/2026-05-04T12-00-00Z-qwen2.5-7b-L4-chat
    Side by side: harness report reports/capacity-l4 reports/capacity-h100 --output reports/gpus
    """
    from harness.commands.report import report as make
    from harness.drive.money_options import money_question

    asked = money_question(for_users, peak, spare, api_price, price, turns, sessions_per_hour, profile)
    paths = make(runs, formats=format or None, output=output, charts=charts, asked=asked)
    show(json, [str(path) for path in paths], "\n".join(str(path) for path in paths))
    return 0


ModelOption = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name of models.yaml: side A, and B without OTHER.")
]
OtherOption = Annotated[Optional[str], typer.Argument(metavar="OTHER", help="Another entry, for side B.")]
AOption = Annotated[
    Optional[list[str]],
    typer.Option("--a", help="A setting of side A, over its entry's; repeatable.", metavar="KEY=VALUE"),
]
BOption = Annotated[
    Optional[list[str]],
    typer.Option("--b", help="Of side B, likewise: engine=vllm, limits.max_batch_size=16.", metavar="KEY=VALUE"),
]
RepeatOption = Annotated[Optional[int], typer.Option(min=2, help="Runs of each side. Default: 5.")]
UntilDecidedOption = Annotated[
    Optional[str], typer.Option(help="Run until it is decided, for this long at most.", metavar="DURATION")
]


@app.command()
def ab(
    model: ModelOption,
    other: OtherOption = None,
    a: AOption = None,
    b: BOption = None,
    repeat: RepeatOption = None,
    until_decided: UntilDecidedOption = None,
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
    """Compare two variants of an entry, started in turn.

    Both are asked the same; one sentence says which is slower.

    \b
    Example: harness ab qwen2.5-7b --b engine=vllm --users 8 --until-decided 30m
    """
    from harness.commands.ab import ab as judge
    from harness.drive.bench_options import BenchOptions, plan_of

    plan = plan_of(
        BenchOptions(
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
    )
    result = judge(
        target_of(model, runtime, launcher, emulate, None, gpu, catalogue),
        a or (),
        b or (),
        plan,
        progress=terminal.say,
        other=other,
        repeats=repeat,
        until_decided=until_decided,
        gate=gate,
        junit=junit,
        markdown=markdown,
    )
    show(json, result.as_json(), result.as_text())
    return result.exit_code


AllowOption = Annotated[Optional[str], typer.Option(help="What may differ, such as engine,gpu.", metavar="KEY,...")]
BaselineName = Annotated[str, typer.Argument(metavar="NAME", help="The baseline's name.")]
BaselineRuns = Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, or folders of repeats.")]
StoreOption = Annotated[
    Optional[str],
    typer.Option(
        help="Where baselines are kept: a folder, or git:BRANCH. Default: reports/baselines.", metavar="PLACE"
    ),
]
RecordsOption = Annotated[
    bool,
    typer.Option("--records", help="Store every request too, to report on the runs again. Default: the figures only."),
]


@app.command()
def compare(
    sides: Annotated[
        list[str],
        typer.Argument(
            metavar="BASE NEW",
            help="Each a folder of repeats, or run folders separated by commas. With --baseline only NEW.",
        ),
    ],
    baseline: Annotated[
        Optional[str], typer.Option(help="Compare with stored repeats, see `harness baseline`.", metavar="NAME")
    ] = None,
    allow: AllowOption = None,
    store: StoreOption = None,
    gate: GateOption = None,
    junit: JunitOption = None,
    markdown: MarkdownOption = None,
    html: Annotated[Optional[Path], typer.Option(help="Write an HTML page.", metavar="FILE")] = None,
    json: JsonOption = False,
) -> int:
    """Compare two runs, or groups of repeats: a gate for CI.

    Exit 1 when NEW is worse beyond the limits, or when that cannot be told.

    \b
    Example: harness compare reports/before reports/after --junit result.xml
    With stored repeats: harness compare --baseline chat-l4 reports/after --allow engine
    """
    from harness.commands import compare as judge

    groups = [side.split(",") for side in sides]
    for side, group in zip(sides, groups, strict=True):
        if not all(group):
            raise UsageError(f"no name between two commas, or none at all, in {side!r}", where="BASE NEW")
    if baseline is not None:
        new = [path for group in groups for path in group]
        verdict = judge.compare_with_baseline(baseline, new, store, gate, junit, markdown, allow, html)
    elif len(groups) == 2:
        verdict = judge.compare(groups[0], groups[1], gate, junit, markdown, allow, html)
    else:
        found = f"expected BASE and NEW, found {len(groups)} arguments"
        raise UsageError(found, advice="Repeats of one side go with commas: `harness compare a,b,c d,e,f`.")
    show(json, verdict.as_json(), verdict.as_text())
    return verdict.exit_code


@baseline_app.command("save")
def baseline_save(
    name: BaselineName,
    runs: BaselineRuns,
    records: RecordsOption = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> int:
    """Store repeats under a name.

    \b
    Example: harness baseline save chat-l4 reports/before
    """
    from harness.commands import baseline

    kept = baseline.save(name, runs, store, records=records)
    show(json, kept.as_json(), kept.as_text())
    return 0


@baseline_app.command("promote")
def baseline_promote(
    name: BaselineName,
    runs: BaselineRuns,
    reason: Annotated[str, typer.Option(help="Why they are replaced.", metavar="TEXT")],
    records: RecordsOption = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> int:
    """Replace a baseline's repeats by newer ones.

    \b
    Example: harness baseline promote chat-l4 reports/after --reason "vLLM 0.32"
    """
    from harness.commands import baseline

    kept = baseline.promote(name, runs, reason, store, records=records)
    show(json, kept.as_json(), kept.as_text())
    return 0


@baseline_app.command("list")
def baseline_list(store: StoreOption = None, json: JsonOption = False) -> int:
    """List the baselines.

    \b
    Example: harness baseline list
    """
    from harness.commands import baseline

    found = baseline.listed(store)
    show(json, found.as_json(), found.as_text())
    return 0


@baseline_app.command("show")
def baseline_show(name: BaselineName, store: StoreOption = None, json: JsonOption = False) -> int:
    """Show what a baseline is of, and how much its runs differ.

    \b
    Example: harness baseline show chat-l4
    """
    from harness.commands import baseline

    found = baseline.show(name, store)
    show(json, found.as_json(), found.as_text())
    return 0


@baseline_app.command("check")
def baseline_check(
    name: BaselineName,
    runs: BaselineRuns,
    allow: AllowOption = None,
    gate: GateOption = None,
    junit: JunitOption = None,
    markdown: MarkdownOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> int:
    """Compare runs with a baseline, as `compare --baseline` does.

    \b
    Example: harness baseline check chat-l4 reports/now --allow engine,image_digest
    """
    from harness.commands.compare import compare_with_baseline

    verdict = compare_with_baseline(name, runs, store, gate, junit, markdown, allow)
    show(json, verdict.as_json(), verdict.as_text())
    return verdict.exit_code


@app.command()
def history(
    name: Annotated[
        Optional[str],
        typer.Argument(metavar="NAME", help="A baseline's: show only what it is of. Default: everything."),
    ] = None,
    runs: Annotated[
        Optional[list[Path]],
        typer.Option(help="A folder with runs somewhere in it; repeatable. Default: reports.", metavar="FOLDER"),
    ] = None,
    format: Annotated[
        Optional[list[str]],
        typer.Option(
            help="html, markdown, csv, json, bencher, github-action-benchmark, openmetrics; repeatable."
            " Default: html, markdown."
        ),
    ] = None,
    output: Annotated[
        Optional[Path], typer.Option(help="A folder for them. Default: reports/history.", metavar="DIR")
    ] = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> int:
    """Show figures of many runs over time.

    The trend of each figure, where it changed for good, and what was new there.

    \b
    Example: harness history chat-l4
    For other tools: harness history --format csv,bencher,openmetrics
    """
    from harness.commands import history as over_time

    found = over_time.history(name, runs or [], terminal.say, formats=format, output=output, store=store)
    show(json, found.as_json(), found.as_text())
    return 0
