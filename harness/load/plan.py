"""What a load is to be: values that one process can hand to another as JSON, and what comes back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class LevelPlan:
    """One load held for a while.

    Exactly one of users (closed loop) and arrival (open loop) is set. arrival: `poisson`, `constant` or `gamma:SHAPE`
    with a rate in requests per second, or `trace`, whose moments the workload holds. duration: seconds; requests: how
    many at most; the first reached ends the level. warmup: seconds at the level's start that the metrics leave out.
    think_time: seconds between an answer and the same user's next request.
    """

    index: int
    users: int | None = None
    arrival: str | None = None
    rate: float | None = None
    duration: float | None = None
    requests: int | None = None
    warmup: float = 0.0
    think_time: float = 0.0


@dataclass(frozen=True)
class LoadPlan:
    """Everything a load process needs to know; no secret (the API key travels in HARNESS_API_KEY).

    url: the service. api: a name of engines.APIS. workload: what workload.from_dict makes Requests of, for a trace with
    their moments. timeout: seconds for one request. folder: the run's folder, where each process keeps its journal.
    clock_monotonic: the moment that 0 stands for in the records.
    """

    url: str
    api: str
    model_name: str
    stream: bool
    timeout: float
    levels: tuple[LevelPlan, ...]
    workload: dict[str, Any]
    seed: int
    folder: str
    processes: int = 1
    web_ui: bool = False
    clock_monotonic: float = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LoadPlan:
        fields = json.loads(text)
        fields["levels"] = tuple(LevelPlan(**level) for level in fields["levels"])
        return cls(**fields)

    def write(self, path: Path) -> None:
        path.write_text(self.to_json(), encoding="utf-8")


@dataclass(frozen=True)
class LevelOutcome:
    """How one level went. started_at, ended_at: seconds since the run's start.

    ended_by: `duration`, `requests`, `trace`, `saturated` (the queue grew for ever), `stalled` (no token to
    anyone while requests waited), `interrupted`, `service gone`, or `client failed`.
    """

    index: int
    started_at: float
    ended_at: float
    ended_by: str


@dataclass(frozen=True)
class ClientFacts:
    """What the load processes noticed of themselves.

    cpu_fraction_max: the busiest process's CPU seconds per second. loop_lag_p99: lateness of the event loop in seconds.
    late_reads: events whose bytes were read more than one gap after the kernel had them. lost_processes: how many died.
    """

    processes: int = 1
    cpu_fraction_max: float | None = None
    loop_lag_p99: float | None = None
    late_reads: int = 0
    lost_processes: int = 0


@dataclass(frozen=True)
class LoadOutcome:
    levels: tuple[LevelOutcome, ...]
    client: ClientFacts = field(default_factory=ClientFacts)
    interrupted: bool = False
