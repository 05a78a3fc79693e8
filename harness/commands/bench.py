"""Load a service, one level after another, and say what it serves within the SLO: the whole flow on one screen."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

from harness import preflight, terminal
from harness.catalog.hub_dataset import fetch_dataset
from harness.catalog.slo import Slo, parse_slo
from harness.commands import calibrate as calibration
from harness.commands.report import finish
from harness.drive.explain import REHEARSED, Explanation, explain
from harness.drive.options import seconds
from harness.engines import engine_named
from harness.engines.base import Gauges
from harness.engines.failure import Failure
from harness.engines.framing import framed
from harness.engines.identify import default_api, extras_of
from harness.engines.vocabulary import vocabulary_of
from harness.errors import HarnessError, Interrupted, ServiceError, UsageError
from harness.load import runner
from harness.load.plan import LoadOutcome, LoadPlan
from harness.load.run_recorder import RunRecorder, begin_manifest
from harness.load.starts import JITTER
from harness.load.worker_pool import ClientFailed, WorkerPool
from harness.measure.arrivals import TRACE, parse_arrival
from harness.measure.client import Floor
from harness.measure.clock import Anchor
from harness.measure.run_folder import (
    Level,
    Manifest,
    RunFolder,
    run_name,
    write_atomically,
)
from harness.redaction import redact, secrets_of
from harness.report.run import run_document
from harness.report.to_text import to_text
from harness.serve.serving import Served, open_service, resolve_model
from harness.serve.target import Target
from harness.stack.readiness import StartFailed, tell_last_lines
from harness.stack.service import Service
from harness.stats.summary import Summary
from harness.workload.lengths import parse_lengths
from harness.workload.mix import SLOTS, Mix
from harness.workload.named import find
from harness.workload.traces.read import Trace, TraceFile, has_moments, read_dataset, read_trace
from harness.workload.traces.window import DATASET_ROWS, Window
from harness.workload.user_spec import UserSpec
from harness.workload.vocabulary import Vocabulary, assumed_vocabulary
from harness.workload.workload import Asked, Chat, Dataset, Drawn, dataset, replayed

DEFAULT_USERS = "1,4,16"
DEFAULT_DURATION = 60.0
_LAST_LINES = 1000
DEFAULT_ARRIVAL = "poisson"
_MAY_BE_ZERO = ("--warmup", "--think-time", "--trace-start")
DEFAULT_WORKLOAD = "questions"


# Levels of a run as they are asked for: when the next one is, the one before stands in the folder's manifest and
# journals.
AskedLevels = Callable[[RunFolder], Iterator[Level]]


@dataclass(frozen=True)
class BenchOptions:
    """The options of `harness bench`, as given; None where the default holds."""

    users: str | None = None
    rate: str | None = None
    arrival: str | None = None
    trace: Path | None = None
    dataset: str | None = None
    dataset_rows: int | None = None
    trace_form: str | None = None
    trace_time_unit: str | None = None
    trace_block_tokens: int | None = None
    trace_speed: float | None = None
    trace_start: str | None = None
    trace_loop: bool = False
    duration: str | None = None
    warmup: str | None = None
    requests: int | None = None
    sessions: int | None = None
    input_tokens: str | None = None
    output_tokens: str | None = None
    workload: str | None = None
    api: str | None = None
    stream: bool = True
    slo: str | None = None
    require_valid: bool = False
    processes: int = 1
    seed: int = 1
    timeout: str = "10m"
    think_time: str | None = None
    in_step: bool = False
    output: Path | None = None
    report: bool = True
    web_ui: bool = False


@dataclass(frozen=True)
class BenchResult:
    """A run that was recorded. unmet: the condition that was asked for and does not hold; exit_code: what follows.

    warning: what nobody asked about, and whoever reads the figures must know.
    """

    folder: RunFolder
    summary: Summary
    unmet: str | None
    exit_code: int

    @property
    def warning(self) -> str | None:
        return None if self.unmet or self.summary.valid else _invalid(self.summary)

    def as_json(self) -> dict[str, Any]:
        return {**self.summary.as_dict(), "path": str(self.folder.path)}

    def as_text(self) -> str:
        report = self.folder.html if self.folder.html.exists() else self.folder.summary
        return f"{to_text(run_document(self.summary))}\nreport: {report}"


def bench(
    target: Target, options: BenchOptions, progress: Callable[[str], None], asked: AskedLevels | None = None
) -> BenchResult:
    """Plan, check, hold the levels, summarise. Raises HarnessErrors; what was recorded until then stays on disk.

    asked: gives the levels instead of the options.
    """
    _require_a_use(options)
    slo = _slo(options)
    timeout = _duration(options.timeout, "--timeout") or 600.0
    plan_levels(options, replay=options.trace is not None)  # refuses what cannot be read before anything is fetched
    rows = _require_inputs(options, progress)
    levels = plan_levels(options, replay=rows is not None and rows.timed)
    # The load processes first: they get ready while the service is looked at.
    with WorkerPool(options.processes) as pool:
        levels, users = _who_asks(pool, options, levels, rows, progress)
        with open_service(target, say=progress) as served:
            recorder, outcome, death = _measure(
                target,
                options,
                rows or users,
                served,
                pool,
                progress,
                levels=levels,
                slo=slo,
                timeout=timeout,
                source=asked,
            )
        with _pointing_to(recorder.folder):
            return _conclude(recorder, outcome, options, slo, _floor(outcome, options, pool, progress), death)


def explain_bench(target: Target, options: BenchOptions, progress: Callable[[str], None]) -> Explanation:
    """What bench would do with the same options, without a service. Raises HarnessErrors."""
    _require_a_use(options)
    model = None if target.model is None else resolve_model(target)
    plan_levels(options, replay=options.trace is not None)
    rows = _require_inputs(options, progress)
    levels = plan_levels(options, replay=rows is not None and rows.timed)
    with WorkerPool(1) as pool:
        levels, users = _who_asks(pool, options, levels, rows, progress)
        limits = model.limits.known() if model is not None else {}
        workload = workload_of(options, rows or users, lambda system: assumed_vocabulary(), limits)
        count = len(rows.rows) if rows is not None and rows.timed else REHEARSED
        played = pool.rehearse(workload, None if rows is not None else str(_file(options)), count, options.seed)
    return explain(workload, played, levels, model)


def _who_asks(
    pool: WorkerPool,
    options: BenchOptions,
    levels: tuple[Level, ...],
    rows: Trace | None,
    progress: Callable[[str], None],
) -> tuple[tuple[Level, ...], tuple[UserSpec, ...]]:
    """The levels, and the users of the workload's file; none where the rows of a file are asked."""
    if rows is not None:
        return levels, ()
    file = pool.describe(str(_file(options)))
    levels = _levels_of_shape(file.shape, options, progress) or levels
    return levels, _users(file.users, options, levels)


def _measure(
    target: Target,
    options: BenchOptions,
    asked: Trace | Sequence[UserSpec],
    served: Served,
    pool: WorkerPool,
    progress: Callable[[str], None],
    *,
    levels: tuple[Level, ...],
    slo: Slo | None,
    timeout: float,
    source: AskedLevels | None,
) -> tuple[RunRecorder, LoadOutcome, Failure | None]:
    """Check the service, begin the run's folder, and hold the levels; with the engine's death where it died."""
    options = _as_the_users_say(options, asked, served)
    workload = make_workload(options, served, asked)
    for note in workload.notes() if isinstance(workload, Dataset) else ():
        progress(note)
    _check(served, options, workload, levels, progress)
    folder = RunFolder.create(options.output) if options.output else _default_folder(served, workload.name)
    if served.model and secrets_of(served.model.env):
        folder.path.chmod(0o700)
    if source is not None:
        levels = ()  # each stands in the manifest from when it begins
    manifest = _manifest(folder, served, options, workload, levels, slo, timeout)
    recorder = RunRecorder(folder, manifest, served.info, served.endpoint)
    write_atomically(folder.stack, redact(served.service.facts().stack).encode("utf-8", "backslashreplace"))
    progress(f"writing to {folder.path}")
    plan = LoadPlan(
        url=served.endpoint.url,
        api=options.api or default_api(served.info),
        model_name=served.endpoint.model_name or "",
        stream=options.stream,
        timeout=timeout,
        levels=levels,
        workload=workload.as_dict(),
        seed=options.seed,
        folder=str(folder.path),
        think_time=manifest.think_time,
        spread=not options.in_step,
        jitter=0.0 if options.in_step or workload.converses else JITTER,
        clock_monotonic=float(manifest.clock["monotonic"]),
        processes=options.processes,
        web_ui=options.web_ui,
        extras=extras_of(served.info).as_dict(),
        locustfile=None if isinstance(asked, Trace) else str(_file(options).absolute()),
    )
    with _pointing_to(folder):
        return recorder, *_load(plan, served, recorder, pool, progress, source)


def _floor(
    outcome: LoadOutcome, options: BenchOptions, pool: WorkerPool, progress: Callable[[str], None]
) -> Floor | None:
    """The client's own error at this load: as stored, else measured now, when the load went to its end."""
    if outcome.interrupted or outcome.lost_processes or not outcome.streams:
        return calibration.find(outcome.streams, options.processes)
    try:
        return calibration.floor_for(outcome.streams, options.processes, pool, progress)
    except HarnessError as error:
        progress(f"the client could not be calibrated: {error}")
        return None


@contextmanager
def _pointing_to(folder: RunFolder) -> Iterator[None]:
    """Ctrl-C at a moment at which the level cannot be ended in order leaves its records for another command."""
    try:
        yield
    except KeyboardInterrupt as told:
        advice = f"`harness report {folder.path}` makes the report of what was recorded."
        raise Interrupted(where=str(folder.path), advice=advice) from told


def _load(
    plan: LoadPlan,
    served: Served,
    recorder: RunRecorder,
    pool: WorkerPool,
    progress: Callable[[str], None],
    asked: AskedLevels | None,
) -> tuple[LoadOutcome, Failure | None]:
    """Hold the levels, with the engine's own metrics read beside them."""

    def gone() -> str | None:
        state = served.service.state()
        return None if state.running else f"exit code {state.exit_code}"

    try:
        with recorder:
            outcome = runner.run(
                plan,
                on_level=recorder.note,
                progress=progress,
                gone=gone,
                pool=pool,
                show=terminal.rewrite,
                engine=lambda: _busy(recorder.latest),
                asked=None if asked is None else asked(recorder.folder),
            )
    except ClientFailed as failure:
        finish(recorder.keep(lost_processes=pool.lost))
        where, advice = str(recorder.folder.path), "The report there holds what was recorded until then."
        raise ClientFailed(failure.found, where=where, advice=advice) from failure
    gone_at_last = bool(outcome.levels) and outcome.levels[-1].ended_by == "service_gone"
    recorder.close(interrupted=outcome.interrupted, gone=gone_at_last)
    return outcome, _last_words(served.service, progress) if gone_at_last else None


def _last_words(service: Service, progress: Callable[[str], None]) -> Failure | None:
    """Why the engine ended, as far as its own log says: one that we started takes its log along."""
    state = service.state()
    lines = [] if state.running else list(deque(service.log_lines(), maxlen=_LAST_LINES))
    if not lines:
        return None
    engine = engine_named(service.facts().engine)
    failure = engine.explain(lines, state.exit_code, memory_limit_hit=state.memory_limit_hit, serving=True)
    tell_last_lines(failure, service.name, progress)
    progress(str(StartFailed(failure, service.name)))
    return failure


def _busy(latest: Gauges) -> str:
    """What the engine last said of its batch and its queue, for the live line."""
    told = ((latest.running, "running"), (latest.waiting, "queued"))
    return "".join(f", {value:.0f} {word}" for value, word in told if value is not None)


def _conclude(
    recorder: RunRecorder,
    outcome: LoadOutcome,
    options: BenchOptions,
    slo: Slo | None,
    floor: Floor | None,
    death: Failure | None,
) -> BenchResult:
    """Records, summary, reports; then what the exit code says. death: why the engine ended, where its log says so."""
    run, folder = recorder.keep(floor, outcome.lost_processes), recorder.folder
    summary = finish(run, with_reports=options.report)
    if outcome.interrupted:
        return BenchResult(folder, summary, "interrupted: the report holds what was recorded", 130)
    if summary.total.requests.completed == 0 and not _service_away(outcome, summary):
        raise ServiceError(f"no request was completed: {_why_none(summary)}", where=str(folder.path))
    if summary.total.requests.completed == 0:
        stalled = any(level.ended_by == "stalled" for level in outcome.levels)
        silent = f"nobody got a token for {runner.STALLED_AFTER:.0f} s" if stalled else "the service is away or died"
        away = any(level.ended_by == "service_gone" for level in outcome.levels) or set(summary.total.errors) == {
            "refused"
        }
        why = death.found if death else silent if stalled or away else _why_none(summary)
        advice = death.advice if death else "Its own log says why, as far as it knows."
        raise ServiceError(f"no request was completed: {why}", where=str(folder.path), advice=advice)
    unmet = _unmet(summary, options, slo)
    return BenchResult(folder, summary, unmet, 1 if unmet else 0)


def _why_none(summary: Summary) -> str:
    """The errors by kind, with the service's own words."""
    total = summary.total
    if not total.errors:
        return f"none of {total.requests.sent} was answered in time" if total.requests.sent else "none was due"
    kinds = ", ".join(f"{count} {kind}" for kind, count in total.errors.items())
    said = max(total.messages, key=lambda each: each.count, default=None)
    if said is None:
        return f"{kinds} of {total.requests.sent + total.requests.dropped}"
    status = f"HTTP {said.http_status}: " if said.http_status else ""
    return f"{kinds} of {total.requests.sent + total.requests.dropped}; the service says: {status}{said.message}"


def _service_away(outcome: LoadOutcome, summary: Summary) -> bool:
    if any(level.ended_by in ("service_gone", "stalled") for level in outcome.levels):
        return True
    return bool(summary.total.errors) and set(summary.total.errors) <= {"refused", "stream_broken", "timeout"}


def _unmet(summary: Summary, options: BenchOptions, slo: Slo | None) -> str | None:
    """The condition that was asked for and does not hold."""
    if (options.require_valid or slo is not None) and not summary.valid:
        return _invalid(summary)
    if slo is not None and not summary.holds_on_lowest:
        return f"the SLO does not hold on the lowest level ({slo})"
    return None


def _invalid(summary: Summary) -> str:
    rules = ", ".join(dict.fromkeys(reason.rule for reason in summary.total.reasons)) or "see the report"
    return f"the run is not valid ({rules})"


def plan_levels(options: BenchOptions, *, replay: bool = False) -> tuple[Level, ...]:
    """The levels that the options ask for. replay: the rows of a file say when. Raises UsageError for what contradicts
    itself or cannot be read.
    """
    duration, warmup = _duration(options.duration, "--duration"), _duration(options.warmup, "--warmup")
    _duration(options.think_time, "--think-time")
    if replay:
        return (Level(0, arrival=TRACE, duration=duration, warmup=warmup or 0.0, requests=options.requests),)
    if duration is None and options.requests is None and options.sessions is None:
        duration = DEFAULT_DURATION
    if warmup is not None and duration is not None and warmup >= duration:
        raise UsageError(f"--warmup {options.warmup} leaves nothing of --duration {options.duration or '60s'}")
    one = Level(0, duration=duration, warmup=warmup, requests=options.requests, sessions=options.sessions)
    if options.rate is not None:
        rates = _numbers(options.rate, "--rate", float)
        arrival = parse_arrival(options.arrival or DEFAULT_ARRIVAL)
        return tuple(
            dataclasses.replace(one, level=number, rate=rate, arrival=arrival) for number, rate in enumerate(rates)
        )
    users = _numbers(options.users or DEFAULT_USERS, "--users", int)
    return tuple(dataclasses.replace(one, level=number, users=count) for number, count in enumerate(users))


def _require_a_use(options: BenchOptions) -> None:
    """Options that exclude each other, and one that would change nothing, are a misunderstanding. Raises UsageError."""
    for first, second in (("users", "rate"), ("users", "trace"), ("rate", "trace"), ("trace", "dataset")):
        if getattr(options, first) is not None and getattr(options, second) is not None:
            raise UsageError(f"--{first} and --{second} exclude each other", advice="Give one of them.")
    if options.in_step and (options.rate is not None or options.trace is not None):
        raise UsageError("--in-step is for --users: the requests of --rate and --trace come when they are due")
    if options.arrival is not None and options.rate is None:
        raise UsageError("--arrival says how the requests of --rate come, and there is no --rate")
    if options.think_time is not None and ((options.rate is not None and options.dataset) or options.trace is not None):
        raise UsageError("--think-time is for --users: the requests of --rate and --trace come when they are due")
    for source, others in (
        ("trace", ("input_tokens", "output_tokens", "workload", "sessions")),
        ("dataset", ("input_tokens", "workload", "sessions")),
    ):
        for name in others:
            if getattr(options, source) is not None and getattr(options, name) is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')} and --{source} exclude each other: the {source} says what is asked",
                    advice="Give one of them.",
                )
    _require_rows(options)


def _require_rows(options: BenchOptions) -> None:
    """Options that say how a trace or data set is read want one. Raises UsageError."""
    if options.trace is None and options.dataset is None:
        for name in ("form", "time_unit", "block_tokens", "speed", "start", "loop"):
            if getattr(options, f"trace_{name}") not in (None, False):
                option = f"--trace-{name.replace('_', '-')}"
                raise UsageError(f"{option} says how --trace or --dataset is read, and there is neither")
    if options.dataset is None and options.dataset_rows is not None:
        raise UsageError("--dataset-rows says how much of --dataset is asked, and there is no --dataset")
    if options.trace_speed is not None and not 1e-6 <= options.trace_speed <= 1e6:
        raise UsageError(
            f"expected a number above zero, such as 20, found {options.trace_speed:g}", where="--trace-speed"
        )
    if options.trace_loop and options.duration is None and options.requests is None:
        raise UsageError("--trace-loop goes on for ever", advice="Give --duration or --requests.")
    _duration(options.trace_start, "--trace-start")


def _numbers(text: str, option: str, kind: Callable[[str], Any]) -> list[Any]:
    try:
        values = [kind(part) for part in str(text).split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < value < 1e6 for value in values):
        raise UsageError(f"expected positive numbers such as 4 or 1,4,16, found {text!r}", where=option)
    return values


def _duration(text: str | None, option: str) -> float | None:
    return None if text is None else seconds(text, option, zero=option in _MAY_BE_ZERO)


def _slo(options: BenchOptions) -> Slo | None:
    """The bounds of --slo, None without it."""
    if options.slo is None:
        return None
    try:
        return parse_slo(options.slo)
    except ValueError as error:
        raise UsageError(f"{error}, found {options.slo!r}", where="--slo") from error


def _require_inputs(options: BenchOptions, progress: Callable[[str], None]) -> Trace | None:
    """The rows of a trace or data set, if one is asked. What can be refused before anything starts is refused here."""
    if options.output is not None:
        RunFolder.create(options.output)
    rows = _read_rows(options, progress)
    if options.output_tokens is not None:
        parse_lengths(options.output_tokens, "output_tokens")
    if options.input_tokens is not None:
        parse_lengths(options.input_tokens, "input_tokens")
    return rows


def _read_rows(options: BenchOptions, progress: Callable[[str], None]) -> Trace | None:
    """A trace's rows have their own moments; those of a data set too, unless users or a rate are asked for."""
    file = _trace_file(options, progress)
    if file is None:
        return None
    replay = options.users is None and options.rate is None and (options.trace is not None or has_moments(file))
    for name in (
        ("trace_speed", "trace_start", "trace_loop") if not replay else ("dataset_rows", "output_tokens", "think_time")
    ):
        if getattr(options, name):
            advice = "Leave it out, or give --users or --rate." if replay else "Leave it out."
            how = "replayed at its own moments" if replay else "not replayed at moments of its own"
            raise UsageError(f"--{name.replace('_', '-')} changes nothing: {file.name} is {how}", advice=advice)
    rows = read_trace(file, _window(options)) if replay else read_dataset(file, options.dataset_rows or DATASET_ROWS)
    for line in rows.lines():
        progress(line)
    return rows


def _trace_file(options: BenchOptions, progress: Callable[[str], None]) -> TraceFile | None:
    told: dict[str, Any] = {
        "form": options.trace_form,
        "time_unit": options.trace_time_unit,
        "block_tokens": options.trace_block_tokens,
    }
    if options.trace is not None:
        return TraceFile.of(options.trace, **told)
    if options.dataset is None:
        return None
    if options.dataset.startswith(("/", "./", "../", "~")):
        return TraceFile.of(Path(options.dataset).expanduser(), **told)
    file = fetch_dataset(options.dataset, progress)
    return TraceFile.of(file.path, name=file.name, source=file.as_dict(), **told)


def _window(options: BenchOptions) -> Window:
    return Window(
        start=_duration(options.trace_start, "--trace-start") or 0.0,
        speed=options.trace_speed or 1.0,
        duration=_duration(options.duration, "--duration"),
        requests=options.requests,
        loop=options.trace_loop,
    )


def _file(options: BenchOptions) -> Path:
    return find(options.workload or DEFAULT_WORKLOAD)


def _levels_of_shape(
    shape: tuple[tuple[int, float], ...], options: BenchOptions, progress: Callable[[str], None]
) -> tuple[Level, ...]:
    """The levels that a locustfile's load shape asks for, where no option says otherwise; none without a shape."""
    given = [name for name in ("users", "rate", "duration", "requests", "sessions") if getattr(options, name)]
    if shape and given:
        progress(f"the load shape of {_file(options)} is left out: --{given[0]} says how much is asked")
    if not shape or given:
        return ()
    warmup = _duration(options.warmup, "--warmup")
    steps = enumerate(shape)
    return tuple(Level(number, users=users, duration=seconds, warmup=warmup) for number, (users, seconds) in steps)


def _users(found: Sequence[UserSpec], options: BenchOptions, levels: tuple[Level, ...]) -> tuple[UserSpec, ...]:
    """What the users of the workload's file ask, with the options' own lengths and pauses. Raises UsageError."""
    if len(found) > SLOTS:
        raise UsageError(f"{len(found)} user classes, at most {SLOTS} can be told apart", where=str(_file(options)))
    users = [
        dataclasses.replace(
            each,
            input_tokens=options.input_tokens or each.input_tokens,
            output_tokens=options.output_tokens or each.output_tokens,
        )
        for each in found
    ]
    converse = any(each.converses for each in users)
    if converse and options.think_time is not None:
        users = [dataclasses.replace(each, think_time=options.think_time) for each in users]
    if not converse and options.think_time is not None and options.rate is not None:
        raise UsageError("--think-time is for --users and for conversations: requests of --rate come when they are due")
    if converse and options.requests is not None:
        advice = "--sessions counts conversations."
        raise UsageError("--requests counts requests, and the workload holds conversations", advice=advice)
    if not converse and options.sessions is not None:
        advice = "--requests counts those."
        raise UsageError("--sessions counts conversations, and the workload asks single requests", advice=advice)
    for each in users:
        each.check()
        if each.tasks and any(level.arrival is not None for level in levels):
            found_task = f"{each.tasks[0]} does not yield: nothing can be sent for it when an arrival is due"
            raise UsageError(found_task, where=each.where, advice="Use --users, or make it yield what it asks.")
    return tuple(users)


def _as_the_users_say(options: BenchOptions, asked: Trace | Sequence[UserSpec], served: Served) -> BenchOptions:
    """The options with what is left to the user classes, and else to the service."""
    specs = () if isinstance(asked, Trace) else asked
    api = options.api or next((each.api for each in specs if each.api is not None), None) or default_api(served.info)
    return dataclasses.replace(options, api=api, stream=options.stream and all(each.stream for each in specs))


def make_workload(options: BenchOptions, served: Served, asked: Trace | Sequence[UserSpec]) -> Asked:
    """What is asked of this service, in words that it counts as one token each."""
    plain = vocabulary_of(served.endpoint)

    @cache
    def words(system: bool) -> Vocabulary:
        return framed(plain, served.endpoint, options.api or "", system=system)

    return workload_of(options, asked, words, served.limits.known())


def workload_of(
    options: BenchOptions,
    asked: Trace | Sequence[UserSpec],
    words: Callable[[bool], Vocabulary],
    limits: Mapping[str, int | float],
) -> Asked:
    """What is asked: the rows of a file, or what the users of a locustfile say.

    words: of prompts, with a system message or without.
    """
    salt = f"{time.time_ns():x}"
    if isinstance(asked, Trace) and asked.timed:
        return replayed(asked, _window(options), seed=options.seed, salt=salt, vocabulary=words(False))
    if isinstance(asked, Trace):
        return dataset(
            asked,
            seed=options.seed,
            rows=options.dataset_rows or DATASET_ROWS,
            output_tokens=options.output_tokens,
            salt=salt,
            vocabulary=words(False),
        )
    parts = [
        spec.workload(
            seed=options.seed + slot,
            salt=f"{salt}-{slot}" if slot else salt,
            vocabulary=words(spec.has_system_prompt),
            limits=limits,
        )
        for slot, spec in enumerate(asked)
    ]
    return parts[0] if len(parts) == 1 else Mix(tuple(parts), tuple(spec.weight for spec in asked))


def _check(
    served: Served,
    options: BenchOptions,
    workload: Asked,
    levels: tuple[Level, ...],
    progress: Callable[[str], None],
) -> None:
    """May we measure at all? Warnings are said, what would measure nothing ends the command."""
    first = workload.base if isinstance(workload, Chat) else workload
    lengths = (first.input_lengths, first.output_lengths) if isinstance(first, Drawn) else (None, None)
    intent = preflight.Intent(
        api=options.api or default_api(served.info),
        longest_input=lengths[0].longest if lengths[0] else None,
        shortest_input=lengths[0].at(1e-6) if lengths[0] else None,
        longest_output=lengths[1].longest if lengths[1] else None,
        concurrency=max((level.users or 0 for level in levels), default=0) or None,
    )
    preflight.require(served.endpoint, served.info, intent, progress)


def _default_folder(served: Served, workload: str) -> RunFolder:
    model = served.model.name if served.model else (served.info.model_id or "service").rpartition("/")[2]
    gpu = served.model.gpu if served.model else None
    name = run_name(datetime.now(timezone.utc), model, gpu, workload)
    return RunFolder.create_beside(Path("reports") / name)


def _manifest(
    folder: RunFolder,
    served: Served,
    options: BenchOptions,
    workload: Asked,
    levels: tuple[Level, ...],
    slo: Slo | None,
    timeout: float,
) -> Manifest:
    facts, model = served.service.facts(), served.model
    plain = begin_manifest(
        folder,
        Anchor.now(),
        served.info,
        served.endpoint,
        workload,
        levels,
        program="harness",
        api=options.api or default_api(served.info),
        stream=options.stream,
        seed=options.seed,
        timeout=timeout,
        requests=options.requests,
    )
    version = served.info.version or facts.engine_version
    return dataclasses.replace(
        plain,
        model=model.name if model else plain.model,
        revision=(model.revision if model else None) or facts.environment.get("REVISION"),
        engine=f"{served.info.engine} {version}" if version else served.info.engine,
        runtime=facts.runtime,
        image=facts.image,
        image_digest=facts.image_digest,
        flags={**facts.environment, **({"args": shlex.join(facts.args)} if facts.args else {})},
        limits=served.limits.known(),
        gpu=model.gpu if model else None,
        gpus=model.gpus if model else 1,
        slo=(slo or (model.slo if model else Slo())).as_dict(),
        slo_asked=slo is not None,
        think_time=_duration(options.think_time, "--think-time") or 0.0,
        processes=options.processes,
        price_per_gpu_hour=model.price_per_gpu_hour if model else None,
    )
