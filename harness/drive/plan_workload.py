"""Makes a plan's workload: from the rows of a file, or from the users of a locustfile, which a load process runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from harness.catalog.hub_dataset import fetch_dataset
from harness.drive.bench_plan import AskedRows, AskedUsers, BenchPlan
from harness.engines.framing import framed
from harness.engines.identify import default_api
from harness.engines.vocabulary import vocabulary_of
from harness.errors import UsageError
from harness.load.worker_pool import WorkerPool
from harness.measure.run_folder import Level
from harness.serve.serving import RunningService
from harness.workload.mix import SLOTS
from harness.workload.traces.read import Trace, TraceFile, has_moments, read_dataset, read_trace
from harness.workload.user_spec import UserSpec
from harness.workload.user_spec import workload_of as workload_of_users
from harness.workload.vocabulary import Vocabulary
from harness.workload.workload import AnyWorkload, dataset, replayed

Say = Callable[[str], None]
RequestSource = Trace | Sequence[UserSpec]


def read_rows(plan: BenchPlan, progress: Say) -> Trace | None:
    """The rows of a trace or data set, None where users ask. A trace's rows have their own moments; those of a data set
    too, unless users or a rate are asked for. Raises UsageError.
    """
    rows = plan.asked
    if isinstance(rows, AskedUsers):
        return None
    file = _trace_file(rows, progress)
    replay = has_moments(file) if rows.replay is None else rows.replay
    changed_nothing = {
        "dataset-rows": replay and rows.rows is not None,
        "output-tokens": replay and rows.output_tokens is not None,
        "think-time": replay and plan.think_time is not None,
        "trace-speed": not replay and rows.window.speed != 1,
        "trace-start": not replay and rows.window.start > 0,
        "trace-loop": not replay and rows.window.loop,
    }
    for option, useless in changed_nothing.items():
        if useless:
            advice = "Leave it out, or give --users or --rate." if replay else "Leave it out."
            how = "replayed at its own moments" if replay else "not replayed at moments of its own"
            raise UsageError(f"--{option} changes nothing: {file.name} is {how}", advice=advice)
    found = read_trace(file, rows.window) if replay else read_dataset(file, rows.most)
    for line in found.lines():
        progress(line)
    return found


def _trace_file(rows: AskedRows, progress: Say) -> TraceFile:
    told: dict[str, Any] = {"form": rows.form, "time_unit": rows.time_unit, "block_tokens": rows.block_tokens}
    if not rows.on_hub:
        return TraceFile.of(Path(rows.place), **told)
    file = fetch_dataset(rows.place, progress)
    return TraceFile.of(file.path, name=file.name, source=file.as_dict(), **told)


def levels_and_users(
    pool: WorkerPool, plan: BenchPlan, rows: Trace | None, progress: Say
) -> tuple[tuple[Level, ...], tuple[UserSpec, ...]]:
    """The levels, and the users of the workload's file; none where the rows of a file are asked."""
    if isinstance(plan.asked, AskedRows):
        return plan.loads.levels(replay=rows is not None and rows.timed), ()
    file = pool.describe(str(plan.asked.file))
    levels = plan.loads.levels()
    if file.shape and plan.loads.said:
        said = plan.loads.said[0]
        progress(f"the load shape of {plan.asked.file} is left out: --{said} says how much is asked")
    elif file.shape:
        levels = plan.loads.of_shape(file.shape)
    return levels, _users(file.users, plan, plan.asked, levels)


def _users(
    found: Sequence[UserSpec], plan: BenchPlan, asked: AskedUsers, levels: Sequence[Level]
) -> tuple[UserSpec, ...]:
    """What the users of the workload's file ask, with the plan's own lengths and pauses. Raises UsageError."""
    if len(found) > SLOTS:
        raise UsageError(f"{len(found)} user classes, at most {SLOTS} can be told apart", where=str(asked.file))
    users = [
        replace(
            each,
            input_tokens=asked.input_tokens or each.input_tokens,
            output_tokens=asked.output_tokens or each.output_tokens,
        )
        for each in found
    ]
    converse = any(each.converses for each in users)
    if converse and plan.think_time is not None:
        users = [replace(each, think_time=plan.think_time) for each in users]
    if not converse and plan.think_time is not None and plan.loads.rates:
        raise UsageError("--think-time is for --users and for conversations: requests of --rate come when they are due")
    if converse and plan.loads.requests is not None:
        advice = "--sessions counts conversations."
        raise UsageError("--requests counts requests, and the workload holds conversations", advice=advice)
    if not converse and plan.loads.sessions is not None:
        advice = "--requests counts those."
        raise UsageError("--sessions counts conversations, and the workload asks single requests", advice=advice)
    for each in users:
        each.check()
        if each.tasks and any(level.arrival is not None for level in levels):
            found_task = f"{each.tasks[0]} does not yield: nothing can be sent for it when an arrival is due"
            raise UsageError(found_task, where=each.where, advice="Use --users, or make it yield what it asks.")
    return tuple(users)


def with_user_settings(plan: BenchPlan, asked: RequestSource, served: RunningService) -> BenchPlan:
    """The plan with the user classes' API and streaming where it has none; else with what the service does best."""
    specs = () if isinstance(asked, Trace) else asked
    api = plan.api or next((each.api for each in specs if each.api is not None), None) or default_api(served.info)
    return replace(plan, api=api, stream=plan.stream and all(each.stream for each in specs))


def make_workload(plan: BenchPlan, served: RunningService, asked: RequestSource) -> AnyWorkload:
    """The workload for this service, made of words that it counts as one token each."""
    plain = vocabulary_of(served.endpoint)

    @cache
    def words(system: bool) -> Vocabulary:
        return framed(plain, served.endpoint, plan.api or "", system=system)

    return workload_of(plan, asked, words, served.limits.known())


def workload_of(
    plan: BenchPlan, asked: RequestSource, words: Callable[[bool], Vocabulary], limits: Mapping[str, int | float]
) -> AnyWorkload:
    """What is asked: the rows of a file, or what the users of a locustfile say.

    words: of prompts, with a system message or without.
    """
    salt = f"{time.time_ns():x}"
    if isinstance(plan.asked, AskedRows):
        assert isinstance(asked, Trace)
        told: dict[str, Any] = {"seed": plan.seed, "salt": salt, "vocabulary": words(False)}
        if asked.timed:
            return replayed(asked, plan.asked.window, **told)
        return dataset(asked, rows=plan.asked.most, output_tokens=plan.asked.output_tokens, **told)
    assert not isinstance(asked, Trace)
    return workload_of_users(asked, plan.seed, salt, words, limits)
