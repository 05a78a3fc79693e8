"""BenchPlan: the options of `bench` as values, after bench_options.py has parsed them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.catalog.slo import Slo
from harness.measure.arrivals import POISSON, TRACE, Arrival
from harness.measure.run_folder import Level
from harness.workload.lengths import Lengths, option_text
from harness.workload.named import find
from harness.workload.pauses import Pauses
from harness.workload.traces.window import DATASET_ROWS, Window

DEFAULT_WORKLOAD = "questions"
DEFAULT_USERS = (1, 4, 16)
DEFAULT_DURATION = 60.0  # seconds


@dataclass(frozen=True)
class AskedUsers:
    """What the users of a locustfile ask. workload: its name or path. input_tokens, output_tokens: in place of what
    its classes say.
    """

    workload: str = DEFAULT_WORKLOAD
    input_tokens: Lengths | None = None
    output_tokens: Lengths | None = None

    @property
    def file(self) -> Path:
        """Raises UsageError."""
        return find(self.workload)

    def as_options(self) -> dict[str, Any]:
        return {
            "workload": self.workload,
            "input_tokens": option_text(self.input_tokens),
            "output_tokens": option_text(self.output_tokens),
        }


@dataclass(frozen=True)
class AskedRows:
    """What the rows of a file ask. place: its path, or where it lies on the Hub. replay: at the rows' own moments; None
    leaves it to whether they have such, where nobody says users or a rate. form, time_unit, block_tokens: where the
    file does not tell. window: of a replay. rows: this many of a data set. output_tokens: in place of recorded answers.
    """

    place: str
    on_hub: bool = False
    replay: bool | None = None
    form: str | None = None
    time_unit: str | None = None
    block_tokens: int | None = None
    window: Window = field(default_factory=Window)
    rows: int | None = None
    output_tokens: Lengths | None = None

    @property
    def most(self) -> int:
        return self.rows or DATASET_ROWS

    def as_options(self) -> dict[str, Any]:
        return {
            "trace" if self.replay else "dataset": self.place,
            "trace_form": self.form,
            "trace_time_unit": self.time_unit,
            "trace_block_tokens": self.block_tokens,
            "trace_speed": self.window.speed if self.window.speed != 1 else None,
            "trace_start": _seconds(self.window.start or None),
            "trace_loop": self.window.loop or None,
            "dataset_rows": self.rows,
            "output_tokens": option_text(self.output_tokens),
        }


@dataclass(frozen=True)
class Loads:
    """How much is asked, level by level. users, rates: one level each, and only one of the two has any; without either
    the rows' moments say it, or a load shape, or DEFAULT_USERS. duration, warmup: seconds. requests, sessions: of each
    level, at most.
    """

    users: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()
    arrival: Arrival = POISSON
    duration: float | None = None
    warmup: float | None = None
    requests: int | None = None
    sessions: int | None = None

    @property
    def said(self) -> list[str]:
        """Names of the options that say how much is asked."""
        told = {"users": self.users, "rate": self.rates, "duration": self.duration,
                "requests": self.requests, "sessions": self.sessions}  # fmt: skip
        return [name for name, value in told.items() if value]

    def levels(self, *, replay: bool = False) -> tuple[Level, ...]:
        """replay: the rows of a file say when."""
        if replay:
            return (Level(0, arrival=TRACE, duration=self.duration, warmup=self.warmup or 0.0, requests=self.requests),)
        endless = self.duration is None and self.requests is None and self.sessions is None
        one = Level(
            0,
            duration=DEFAULT_DURATION if endless else self.duration,
            warmup=self.warmup,
            requests=self.requests,
            sessions=self.sessions,
        )
        if self.rates:
            paced = replace(one, arrival=self.arrival)
            return tuple(replace(paced, level=number, rate=rate) for number, rate in enumerate(self.rates))
        return tuple(
            replace(one, level=number, users=count) for number, count in enumerate(self.users or DEFAULT_USERS)
        )

    def of_shape(self, shape: tuple[tuple[int, float], ...]) -> tuple[Level, ...]:
        """Of a locustfile's load shape: users, each with the seconds that they last."""
        return tuple(
            Level(number, users=users, duration=seconds, warmup=self.warmup)
            for number, (users, seconds) in enumerate(shape)
        )

    def as_options(self) -> dict[str, Any]:
        return {
            "users": ",".join(map(str, self.users)) or None,
            "rate": ",".join(map(repr, self.rates)) or None,
            "arrival": str(self.arrival) if self.rates else None,
            "duration": _seconds(self.duration),
            "warmup": _seconds(self.warmup),
            "requests": self.requests,
            "sessions": self.sessions,
        }


@dataclass(frozen=True)
class BenchPlan:
    """What a run is to do. slo: asked for, None leaves it to the entry. timeout: seconds, of one request. think_time:
    between an answer and the user's next request. in_step: users begin at once and stay in step. output: the run's
    folder. report: for people too.
    """

    asked: AskedUsers | AskedRows = field(default_factory=AskedUsers)
    loads: Loads = field(default_factory=Loads)
    think_time: Pauses | None = None
    api: str | None = None
    stream: bool = True
    slo: Slo | None = None
    require_valid: bool = False
    processes: int = 1
    seed: int = 1
    timeout: float = 600.0
    in_step: bool = False
    output: Path | None = None
    report: bool = True
    web_ui: bool = False

    @property
    def workload_name(self) -> str:
        return self.asked.workload if isinstance(self.asked, AskedUsers) else "rows"

    def as_dict(self) -> dict[str, Any]:
        """The options that give this plan again (`bench_options.plan_from`), but for where its files go; what is as by
        default is left out.
        """
        told = {
            **self.asked.as_options(),
            **self.loads.as_options(),
            "think_time": None if self.think_time is None else str(self.think_time),
            "api": self.api,
            "stream": None if self.stream else False,
            "slo": None
            if self.slo is None
            else ",".join(f"{name}={_seconds(x)}" for name, x in self.slo.as_dict().items()),
            "require_valid": self.require_valid or None,
            "processes": self.processes,
            "seed": self.seed,
            "timeout": _seconds(self.timeout),
            "in_step": self.in_step or None,
        }
        return {name: value for name, value in told.items() if value is not None}


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.9f}".rstrip("0").rstrip(".") + "s"
