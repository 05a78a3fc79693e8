"""One run of `bench`: check the service, run the levels, record them, summarise."""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

from harness import preflight, terminal
from harness.catalog.slo import Slo
from harness.drive import calibration
from harness.drive.bench_plan import AskedUsers, BenchPlan
from harness.drive.bench_result import BenchResult, conclude
from harness.drive.explain import REHEARSED, Explanation, explain
from harness.drive.plan_workload import (
    RequestSource,
    levels_and_users,
    make_workload,
    read_rows,
    with_user_settings,
    workload_of,
)
from harness.drive.reports import finish
from harness.engines import engine_named
from harness.engines.failure import Failure
from harness.engines.gauges import Gauges
from harness.engines.identify import default_api, extras_of
from harness.errors import HarnessError, Interrupted
from harness.load import runner
from harness.load.plan import LoadOutcome, LoadPlan
from harness.load.run_recorder import RunRecorder, begin_manifest
from harness.load.starts import JITTER
from harness.load.worker_pool import ClientFailed, WorkerPool
from harness.measure.client import Floor
from harness.measure.clock import Anchor
from harness.measure.run_folder import Level, Manifest, RunFolder, run_name
from harness.redaction import redact, secrets_of
from harness.serve.serving import RunningService, open_service, resolve_model
from harness.serve.target import Target
from harness.stack.readiness import StartFailed, tell_last_lines
from harness.stack.service import Service
from harness.workload.traces.read import Trace
from harness.workload.vocabulary import assumed_vocabulary
from harness.workload.workload import AnyWorkload, Chat, Dataset, DrawnWorkload

_LAST_LINES = 1000

# Levels of a run as they are asked for: when the next one is, the one before is in the recorder's manifest and
# its folder's journals.
AskedLevels = Callable[[RunRecorder], Iterator[Level]]


@dataclass(frozen=True)
class PlannedRun:
    """A run still to be made. name: for the terminal. levels: in place of the plan's. check: is given the manifest
    before the first request, and raises HarnessErrors to call the run off.
    """

    target: Target
    plan: BenchPlan
    name: str | None = None
    levels: AskedLevels | None = None
    check: Callable[[Manifest], None] | None = None


def bench(turn: PlannedRun, progress: Callable[[str], None]) -> BenchResult:
    """Check, run the levels, summarise. Raises HarnessErrors; what was recorded until then stays on disk."""
    plan = turn.plan
    rows = _inputs(plan, progress)
    # The load processes first: they get ready while the service is looked at.
    with WorkerPool(plan.processes) as pool:
        levels, users = levels_and_users(pool, plan, rows, progress)
        with open_service(turn.target, say=progress) as served:
            recorder, outcome, death = _measure(turn, rows or users, served, pool, progress, levels)
        with _pointing_to(recorder.folder):
            return conclude(recorder, outcome, plan, _floor(outcome, plan, pool, progress), death)


def explain_bench(target: Target, plan: BenchPlan, progress: Callable[[str], None]) -> Explanation:
    """What bench would do by the same plan, without a service. Raises HarnessErrors."""
    model = None if target.model is None else resolve_model(target)
    rows = _inputs(plan, progress)
    with WorkerPool(1) as pool:
        levels, users = levels_and_users(pool, plan, rows, progress)
        limits = model.limits.known() if model is not None else {}
        workload = workload_of(plan, rows or users, lambda system: assumed_vocabulary(), limits)
        count = len(rows.rows) if rows is not None and rows.timed else REHEARSED
        file = str(plan.asked.file) if isinstance(plan.asked, AskedUsers) else None
        played = pool.rehearse(workload, file, count, plan.seed)
    return explain(workload, played, levels, model)


def _inputs(plan: BenchPlan, progress: Callable[[str], None]) -> Trace | None:
    """The rows of a trace or data set, if one is asked. What can be refused before anything starts is refused here."""
    if plan.output is not None:
        RunFolder.create(plan.output)
    return read_rows(plan, progress)


def _measure(
    turn: PlannedRun,
    asked: RequestSource,
    served: RunningService,
    pool: WorkerPool,
    progress: Callable[[str], None],
    levels: tuple[Level, ...],
) -> tuple[RunRecorder, LoadOutcome, Failure | None]:
    """Check the service, begin the run's folder, and run the levels; with the engine's death where it died."""
    plan = with_user_settings(turn.plan, asked, served)
    workload = make_workload(plan, served, asked)
    for note in workload.notes() if isinstance(workload, Dataset) else ():
        progress(note)
    _check(served, plan, workload, levels, progress)
    folder = RunFolder.create(plan.output) if plan.output else _default_folder(served, workload.name)
    if served.model and secrets_of(served.model.env):
        folder.path.chmod(0o700)
    if turn.levels is not None:
        levels = ()  # each is in the manifest from when it begins
    manifest = _manifest(folder, served, turn.target, plan, workload, levels)
    if turn.check is not None:
        with _unused(folder, plan):
            turn.check(manifest)
    recorder = RunRecorder(folder, manifest, served.info, served.endpoint, redact(served.service.facts().stack))
    progress(f"writing to {folder.path}")
    load = LoadPlan(
        url=served.endpoint.url,
        api=plan.api or default_api(served.info),
        model_name=served.endpoint.model_name or "",
        stream=plan.stream,
        timeout=plan.timeout,
        workload=workload.as_dict(),
        seed=plan.seed,
        folder=str(folder.path),
        think_time=manifest.think_time,
        spread=not plan.in_step,
        jitter=0.0 if plan.in_step or workload.converses else JITTER,
        clock_monotonic=float(manifest.clock["monotonic"]),
        processes=plan.processes,
        web_ui=plan.web_ui,
        extras=extras_of(served.info).as_dict(),
        locustfile=str(plan.asked.file.absolute()) if isinstance(plan.asked, AskedUsers) else None,
    )
    with _pointing_to(folder):
        return recorder, *_load(
            load, served, recorder, pool, progress, turn.levels(recorder) if turn.levels else levels
        )


@contextmanager
def _unused(folder: RunFolder, plan: BenchPlan) -> Iterator[None]:
    """A folder that was made for a run that shall not be goes again."""
    try:
        yield
    except HarnessError:
        if plan.output is None:
            folder.path.rmdir()
        raise


def _floor(outcome: LoadOutcome, plan: BenchPlan, pool: WorkerPool, progress: Callable[[str], None]) -> Floor | None:
    """The client's own error at this load: as stored, else measured now, when the load went to its end."""
    if outcome.interrupted or outcome.lost_processes or not outcome.streams:
        return calibration.find(outcome.streams, plan.processes)
    try:
        return calibration.floor_for(outcome.streams, plan.processes, pool, progress)
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
    served: RunningService,
    recorder: RunRecorder,
    pool: WorkerPool,
    progress: Callable[[str], None],
    levels: Iterable[Level],
) -> tuple[LoadOutcome, Failure | None]:
    """Hold the levels, with the engine's own metrics read beside them."""

    def gone() -> str | None:
        state = served.service.state()
        return None if state.running else f"exit code {state.exit_code}"

    try:
        with recorder:
            outcome = runner.run(
                plan,
                levels,
                on_level=recorder.note,
                progress=progress,
                gone=gone,
                pool=pool,
                show=terminal.rewrite,
                engine=lambda: _busy(recorder.latest),
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


def _check(
    served: RunningService,
    plan: BenchPlan,
    workload: AnyWorkload,
    levels: tuple[Level, ...],
    progress: Callable[[str], None],
) -> None:
    """May we measure at all? Warnings are said, what would measure nothing ends the command."""
    first = workload.base if isinstance(workload, Chat) else workload
    lengths = (first.input_lengths, first.output_lengths) if isinstance(first, DrawnWorkload) else (None, None)
    intent = preflight.Intent(
        api=plan.api or default_api(served.info),
        longest_input=lengths[0].longest if lengths[0] else None,
        shortest_input=lengths[0].at(1e-6) if lengths[0] else None,
        longest_output=lengths[1].longest if lengths[1] else None,
        concurrency=max((level.users or 0 for level in levels), default=0) or None,
    )
    preflight.require(served.endpoint, served.info, intent, progress)


def _default_folder(served: RunningService, workload: str) -> RunFolder:
    model = served.model.name if served.model else (served.info.model_id or "service").rpartition("/")[2]
    gpu = served.model.gpu if served.model else None
    name = run_name(datetime.now(timezone.utc), model, gpu, workload)
    return RunFolder.create_beside(Path("reports") / name)


def _manifest(
    folder: RunFolder,
    served: RunningService,
    target: Target,
    plan: BenchPlan,
    workload: AnyWorkload,
    levels: tuple[Level, ...],
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
        api=plan.api or default_api(served.info),
        stream=plan.stream,
        seed=plan.seed,
        timeout=plan.timeout,
        requests=plan.loads.requests,
    )
    version = served.info.version or facts.engine_version
    return replace(
        plain,
        model=served.entry or (model.name if model else plain.model),
        revision=(model.revision if model else None) or facts.environment.get("REVISION"),
        engine=f"{served.info.engine} {version}" if version else served.info.engine,
        runtime=facts.runtime,
        image=facts.image,
        image_digest=facts.image_digest,
        flags={**facts.environment, **({"args": shlex.join(facts.args)} if facts.args else {})},
        limits=served.limits.known(),
        gpu=model.gpu if model else None,
        gpus=model.gpus if model else 1,
        slo=(plan.slo or (model.slo if model else Slo())).as_dict(),
        slo_asked=plan.slo is not None,
        think_time=0.0 if plan.think_time is None else plan.think_time.mean,
        processes=plan.processes,
        plan=plan.as_dict(),
        target=target.as_dict(),
        locustfile=locustfile_of(plan),
        price_per_gpu_hour=model.price_per_gpu_hour if model else None,
        price_source=model.price_source if model else None,
    )


def locustfile_of(plan: BenchPlan) -> dict[str, str] | None:
    """Path and sha256 of the file whose users ask; None where rows do."""
    if not isinstance(plan.asked, AskedUsers):
        return None
    file = plan.asked.file.absolute()
    return {"path": str(file), "sha256": sha256(file.read_bytes()).hexdigest()}
