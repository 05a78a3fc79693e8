"""The options of `bench` as people write them, parsed here once into a BenchPlan."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.catalog.slo import Slo, parse_slo
from harness.drive.bench_plan import DEFAULT_WORKLOAD, AskedRows, AskedUsers, BenchPlan, Loads
from harness.drive.options import seconds
from harness.errors import UsageError
from harness.input_files import as_type
from harness.measure.arrivals import POISSON, parse_arrival
from harness.workload.lengths import parse_lengths
from harness.workload.pauses import Pauses, parse_pauses
from harness.workload.traces.window import Window

_MAY_BE_ZERO = ("--warmup", "--think-time", "--trace-start")
_LOCAL = ("/", "./", "../", "~")  # how a path begins where an address on the Hub could be
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class BenchOptions:
    """The options of `harness bench`, as given; None where the default holds."""

    users: str | None = None
    rate: str | None = None
    arrival: str | None = None
    trace: str | None = None
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


def plan_of(options: BenchOptions) -> BenchPlan:
    """What the options mean. Raises UsageError for what contradicts itself, would change nothing, or cannot be read."""
    _require_a_use(options)
    return BenchPlan(
        asked=_asked(options),
        loads=_loads(options),
        think_time=_pause(options.think_time),
        api=options.api,
        stream=options.stream,
        slo=slo_of(options.slo),
        require_valid=options.require_valid,
        processes=options.processes,
        seed=options.seed,
        timeout=seconds(options.timeout, "--timeout"),
        in_step=options.in_step,
        output=options.output,
        report=options.report,
        web_ui=options.web_ui,
    )


def plan_from(document: Mapping[str, Any], where: object) -> BenchPlan:
    """The reverse of BenchPlan.as_dict, such as of `plan` in a manifest. Raises UsageError."""
    return plan_of(as_type(BenchOptions, document, where))


def slo_of(text: str | None) -> Slo | None:
    """The bounds of --slo, None without it. Raises UsageError."""
    if text is None:
        return None
    try:
        return parse_slo(text)
    except ValueError as error:
        raise UsageError(f"{error}, found {text!r}", where="--slo") from error


def _asked(options: BenchOptions) -> AskedUsers | AskedRows:
    inputs = None if options.input_tokens is None else parse_lengths(options.input_tokens, "input_tokens")
    outputs = None if options.output_tokens is None else parse_lengths(options.output_tokens, "output_tokens")
    if options.trace is None and options.dataset is None:
        return AskedUsers(options.workload or DEFAULT_WORKLOAD, inputs, outputs)
    place = options.trace or options.dataset or ""
    local = options.trace is not None or place.startswith(_LOCAL)
    loads_said = options.users is not None or options.rate is not None
    return AskedRows(
        place=os.path.expanduser(place) if options.trace is None else place,
        on_hub=not local,
        replay=True if options.trace is not None else False if loads_said else None,
        form=options.trace_form,
        time_unit=options.trace_time_unit,
        block_tokens=options.trace_block_tokens,
        window=Window(
            start=_duration(options.trace_start, "--trace-start") or 0.0,
            speed=options.trace_speed or 1.0,
            duration=_duration(options.duration, "--duration"),
            requests=options.requests,
            loop=options.trace_loop,
        ),
        rows=options.dataset_rows,
        output_tokens=outputs,
    )


def _loads(options: BenchOptions) -> Loads:
    duration, warmup = _duration(options.duration, "--duration"), _duration(options.warmup, "--warmup")
    found = Loads(
        users=() if options.users is None else _numbers(options.users, "--users", int),
        rates=() if options.rate is None else _numbers(options.rate, "--rate", float),
        arrival=POISSON if options.arrival is None else parse_arrival(options.arrival),
        duration=duration,
        warmup=warmup,
        requests=options.requests,
        sessions=options.sessions,
    )
    lasts = found.levels()[0].duration
    if options.trace is None and warmup is not None and lasts is not None and warmup >= lasts:
        raise UsageError(f"--warmup {options.warmup} leaves nothing of --duration {options.duration or '60s'}")
    return found


def _pause(text: str | None) -> Pauses | None:
    if text is None:
        return None
    _duration(text, "--think-time")
    return parse_pauses(text)


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
    loads_said = options.users is not None or options.rate is not None
    if options.trace_loop and not loads_said and options.duration is None and options.requests is None:
        raise UsageError("--trace-loop goes on for ever", advice="Give --duration or --requests.")


def _numbers(text: str, option: str, kind: Callable[[str], Number]) -> tuple[Number, ...]:
    try:
        values = tuple(kind(part) for part in str(text).split(","))
    except ValueError:
        values = ()
    if not values or not all(0 < value < 1e6 for value in values):
        raise UsageError(f"expected positive numbers such as 4 or 1,4,16, found {text!r}", where=option)
    return values


def _duration(text: str | None, option: str) -> float | None:
    return None if text is None else seconds(text, option, zero=option in _MAY_BE_ZERO)
