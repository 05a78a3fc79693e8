"""From a load to people: how many users are behind N concurrent chats, over a busy hour and over a day.

J. D. C. Little, "A Proof for the Queuing Formula L = lambda W", Operations Research 9 (1961) 383-387: of X requests per
second that each take R seconds X R are being answered at once; with a pause of Z seconds before the next one X (R + Z)
users are in a conversation (the interactive response time law; P. J. Denning and J. P. Buzen, "The Operational Analysis
of Queueing Network Models", ACM Computing Surveys 10 (1978) 225-261).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.measure.records import COMPLETED, MISSING, Floats, Ints, Records
from harness.stats.series import in_flight
from harness.stats.tokens import stamped
from harness.stats.window import Window

# Share of the busiest hour's load, hour by hour from midnight: how a day goes where nothing else is known.
PROFILES: Mapping[str, tuple[float, ...]] = {
    "flat": (1.0,) * 24,
    "office": (
        0.02, 0.01, 0.01, 0.01, 0.02, 0.05, 0.15, 0.4, 0.8, 1.0, 1.0, 0.95,
        0.7, 0.85, 0.95, 0.95, 0.85, 0.6, 0.3, 0.15, 0.1, 0.08, 0.05, 0.03,
    ),
    "evening": (
        0.3, 0.15, 0.08, 0.05, 0.05, 0.06, 0.1, 0.2, 0.3, 0.35, 0.4, 0.45,
        0.5, 0.5, 0.5, 0.55, 0.6, 0.7, 0.85, 0.95, 1.0, 1.0, 0.8, 0.5,
    ),
}  # fmt: skip


TOO_SHORT = "the levels were so short beside an answer that Little's law does not hold: give a longer --level"
MOST_APART = 2.0  # times: beyond it what ended in a level is no measure of what came
NO_HABITS = "how often one person asks was not told: give `harness capacity` --turns or --sessions-per-hour"


@dataclass(frozen=True)
class Flow:
    """What went through a level: its load (of an open loop the rate that came), requests per second answered, seconds
    that one took on average, answers at once as counted over time, tokens generated per second, and prompt tokens of
    what was answered (NaN: not told).
    """

    load: float
    requests_per_second: float
    answer_seconds: float
    at_once: float
    output_tokens_per_second: float
    input_tokens_per_second: float = math.nan

    @property
    def by_little(self) -> float:
        """Answers at once, by Little's law."""
        return self.requests_per_second * self.answer_seconds

    @property
    def adds_up(self) -> bool:
        """Whether Little's law and the count agree, to within a factor; one answer more or less is chance."""
        low, high = sorted((self.by_little, self.at_once))
        return high <= MOST_APART * low + 1

    def as_dict(self) -> dict[str, Any]:
        return {name: value if math.isfinite(value) else None for name, value in self.__dict__.items()}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Flow:
        """The reverse of as_dict. Raises TypeError and ValueError for what as_dict did not make."""
        return cls(**{name: math.nan if value is None else float(value) for name, value in entry.items()})


@dataclass(frozen=True)
class Habits:
    """What one person does. think: seconds between an answer and the next question. turns: questions of a session.
    sessions_per_hour: of one person, in the busy hour. None where nobody said; beside something that was said it counts
    as one. day: share of the busiest hour's load, per hour of a day.
    """

    think: float = 0.0
    turns: float | None = None
    sessions_per_hour: float | None = None
    day: Sequence[float] = PROFILES["flat"]

    @property
    def told(self) -> bool:
        """Whether anything says how one person asks; a day's profile alone does not."""
        return self.think > 0 or self.turns is not None or self.sessions_per_hour is not None

    @property
    def questions_per_hour(self) -> float:
        """Of one person, in the busy hour."""
        return (self.turns or 1.0) * (self.sessions_per_hour or 1.0)

    @property
    def utilisation(self) -> float:
        """Mean load of the day over that of its busiest hour."""
        return sum(self.day) / len(self.day) / max(self.day)


@dataclass(frozen=True)
class People:
    """per_load: people of the busy hour for each unit of load; both None where nothing says how one person asks.
    talking: in a conversation at once at that flow.
    """

    busy_hour: float | None
    per_load: float | None
    talking: float
    idle_share: float

    def as_dict(self) -> dict[str, float | None]:
        return dict(self.__dict__)


def people(flow: Flow, habits: Habits) -> People:
    """Who is behind a flow."""
    talking, idle = flow.requests_per_second * (flow.answer_seconds + habits.think), 1 - habits.utilisation
    if not habits.told:
        return People(None, None, talking, idle)
    hourly = flow.requests_per_second * 3600 / habits.questions_per_hour
    return People(hourly, hourly / flow.load, talking, idle)


def flow_of(load: float, records: Records, window: Window) -> Flow:
    """records: of one level, all of it."""
    done = records.having(COMPLETED)
    ended = done & window.holds(np.where(np.isnan(records.finished_at), -np.inf, records.finished_at))
    length = window.length or math.nan
    moments: Floats = np.linspace(window.start, window.end, 400)
    when, tokens = stamped(records)
    took = records.finished_at[ended] - records.scheduled_at[ended]
    return Flow(
        load=load,
        requests_per_second=float(np.count_nonzero(ended)) / length,
        answer_seconds=float(took.mean()) if len(took) else math.nan,
        at_once=float(in_flight(records, moments).mean()) if len(records) else 0.0,
        output_tokens_per_second=float(tokens[window.holds(when)].sum()) / length,
        input_tokens_per_second=_prompts(records.input_tokens[ended]) / length,
    )


def _prompts(tokens: Ints) -> float:
    """Sum of prompt tokens; NaN where the server tells none."""
    return float(np.maximum(tokens, 0).sum()) if (tokens != MISSING).any() else math.nan
