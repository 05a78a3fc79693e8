"""LoadPlan: what a load process is to send, as JSON between processes; and LoadOutcome: how the load went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.measure.run_folder import Level


@dataclass(frozen=True)
class LoadPlan:
    """What all levels of a load share, for the processes in which users ask; no secret (the API key travels in
    HARNESS_API_KEY).

    url: the service. api: a name of engines.APIS. workload: what `workload.from_dict` makes Requests of, for a trace
    with their moments. timeout: seconds for one request.
    think_time: seconds between an answer and the same user's next request. spread, jitter: of a closed loop, see
    load/starts.py; jitter is the mean pause as a share of the answer's time, where there is no think time. folder: the
    run's folder, where each process keeps its journal. clock_monotonic: the moment of the records' 0.
    run_id: part of the requests' ids; None: the folder's name. extras: fields of engines.api.Extras. locustfile: whose
    users ask; None: the plain one's. users: names of their classes in the order of a mix, where these are there
    already. grace: seconds for which open answers are awaited at the end; None: as long as each may last.
    """

    url: str
    api: str
    model_name: str
    stream: bool
    timeout: float
    workload: dict[str, Any]
    seed: int
    folder: str
    clock_monotonic: float
    processes: int = 1
    think_time: float = 0.0
    spread: bool = False
    jitter: float = 0.0
    web_ui: bool = False
    run_id: str | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    locustfile: str | None = None
    users: tuple[str, ...] = ()
    grace: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> LoadPlan:
        """The plan that said this of itself with `as_dict`, after it has been JSON."""
        return cls(**{**fields, "users": tuple(fields["users"])})


@dataclass(frozen=True)
class LoadOutcome:
    """How a load went: the levels with their moments and endings, the processes that died, and whether Ctrl-C came.

    streams: the most answers that were open at once, as far as a look a second tells.
    """

    levels: tuple[Level, ...]
    lost_processes: tuple[str, ...] = ()
    interrupted: bool = False
    streams: int = 0
