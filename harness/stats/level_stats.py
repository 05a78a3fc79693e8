"""LevelStats: all figures of one level, or of a whole run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.measure.client import Floor
from harness.stats.conversations import Conversations
from harness.stats.decision import BoundShare, Decision, decide
from harness.stats.evidence import Reason
from harness.stats.figure import Figure, or_none
from harness.stats.messages import ErrorMessage, messages_as_dict
from harness.stats.series import Cdf, TimePoint
from harness.stats.server import NOTHING_TOLD, ServerFigures
from harness.stats.slo import Attainment
from harness.stats.telemetry import NOTHING_READ, Telemetry
from harness.stats.time_parts import TimeParts


@dataclass(frozen=True)
class Counts:
    """Requests of the whole level. sent = completed + failed + in_flight_at_end."""

    sent: int
    completed: int
    failed: int
    dropped: int
    in_flight_at_end: int

    def as_dict(self) -> dict[str, int]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class Throughput:
    """Per second of the window: requests completed, prompt tokens of requests whose first token came, and tokens
    generated in it, of all requests, whatever became of them. NaN: the server told no counts.
    """

    requests: float
    input_tokens: float
    output_tokens: float

    def as_dict(self) -> dict[str, float | None]:
        return {
            "requests_per_second": or_none(self.requests),
            "input_tokens_per_second": or_none(self.input_tokens),
            "output_tokens_per_second": or_none(self.output_tokens),
        }


@dataclass(frozen=True)
class ClientFigures:
    """The load generator itself. Seconds; None where it is not known."""

    processes: int
    cpu_fraction_max: float | None
    loop_lag_max: float | None
    schedule_lag_p99: float | None
    floor: Floor | None

    def as_dict(self) -> dict[str, Any]:
        floor = {"ttft": self.floor.ttft, "itl": self.floor.itl} if self.floor else {"ttft": None, "itl": None}
        return {
            "processes": self.processes,
            "cpu_fraction_max": self.cpu_fraction_max,
            "loop_lag_max": self.loop_lag_max,
            "schedule_lag_p99": self.schedule_lag_p99,
            "floor": floor,
        }


@dataclass(frozen=True)
class LevelStats:
    """The figures of one level, or of the whole run. level: None for the run.

    duration: seconds in which requests were due. window: run-relative; metrics cover the requests due in it, of a run
    those due in any level's window. seconds: total length of the windows. due: requests due in the window.
    glued_events, events: token events of the requests in the window. tokens_per_event: of the completed ones; NaN where
    the server tells no counts. divided: completed requests whose count is known for the answer alone. spread,
    jitter: as in Level.
    """

    level: int | None
    offered_rate: float | None
    users: int | None
    duration: float
    window: tuple[float, float]
    window_rule: str
    seconds: float
    complete: bool
    ended_by: str | None
    requests: Counts
    due: int
    errors: Mapping[str, int]
    messages: tuple[ErrorMessage, ...]
    figures: Mapping[str, Figure]
    curves: Mapping[str, Cdf]
    timeline: tuple[TimePoint, ...]
    throughput: Throughput
    attainment: Attainment
    glued_events: int
    events: int
    tokens_per_event: float
    divided: int
    client: ClientFigures
    server: ServerFigures = NOTHING_TOLD
    telemetry: Telemetry = NOTHING_READ
    time_parts: TimeParts | None = None
    conversations: Conversations | None = None
    spread: float | None = None
    jitter: float | None = None
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[Reason, ...] = ()
    shares: tuple[BoundShare, ...] = ()

    @property
    def decision(self) -> Decision:
        """Whether the SLO holds beyond chance: undecided where the interval of a share contains the one that is needed.
        Bounds on `max` and `mean` count as they were found.
        """
        if self.attainment.holds is None or not self.shares:
            return {True: "holds", False: "breaks", None: "undecided"}[self.attainment.holds]  # type: ignore[return-value]
        shown = {each.bound for each in self.shares}
        if any(each.holds is False and each.bound not in shown for each in self.attainment.bounds):
            return "breaks"
        return decide(self.shares)

    @property
    def valid(self) -> bool:
        return not self.reasons

    @property
    def goodput(self) -> float:
        """Requests per second that met all bounds; NaN for an empty window, and where they cannot be judged."""
        return self.attainment.met / self.seconds if self.seconds and self.attainment.judged else math.nan

    @property
    def load(self) -> float | None:
        """Users or offered requests per second."""
        return self.users if self.users is not None else self.offered_rate

    def as_dict(self) -> dict[str, Any]:
        return {
            "offered_rate": self.offered_rate,
            "users": self.users,
            "duration": self.duration,
            "window": list(self.window),
            "window_rule": self.window_rule,
            "requests": self.requests.as_dict(),
            "errors": dict(self.errors),
            "error_messages": messages_as_dict(self.messages),
            "metrics": {name: each.as_dict() for name, each in self.figures.items()},
            "throughput": self.throughput.as_dict(),
            "goodput": {
                "slo": self.attainment.slo.as_dict(),
                "requests_per_second": or_none(self.goodput),
                "fraction": or_none(self.attainment.fraction),
            },
            "slo": {
                "holds": self.attainment.holds,
                "bounds": [each.as_dict() for each in self.attainment.bounds],
                "unjudged": self.attainment.unjudged,
                "decision": self.decision,
                "shares": [each.as_dict() for each in self.shares],
            },
            "glued_events": {"count": self.glued_events, "of": self.events},
            "tokens_per_event": or_none(self.tokens_per_event),
            "client": self.client.as_dict(),
            "server": self.server.as_dict(),
            "telemetry": self.telemetry.as_dict(),
            "time_parts": None if self.time_parts is None else self.time_parts.as_dict(),
            **({} if self.conversations is None else {"conversations": self.conversations.as_dict()}),
            "validity": {
                "verdict": "valid" if self.valid else "invalid",
                "reasons": [reason.as_dict() for reason in self.reasons],
                "warnings": [reason.as_dict() for reason in self.warnings],
            },
        }
