"""CapacityReport: the result of a capacity search, for one history length or several; what its reports see."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.catalog.slo import Slo
from harness.stats.capacity_search import Answer, CapacitySearch
from harness.stats.money import NOTHING_ASKED, PEOPLE, Money, MoneyQuestion, Price, money
from harness.stats.outcome import Outcome
from harness.stats.people import NO_HABITS, TOO_SHORT, Flow, Habits, People, people
from harness.stats.surface import Figures, HistoryRow, Surface, row_of, surface_of

# Times the limit, or that part of it: how far away a level may be whose resource is told as that of the limit.
NEIGHBOURS = 1.5

Measured = tuple[Outcome, Figures]

# Units of a report that are no whole numbers, in words. At a rate a workload of conversations begins so many of these.
RATES = {"rate": "requests/s", "conversations": "conversations/s"}


def unit_words(unit: str) -> str:
    """`users`, `chats`, `requests/s`, `conversations/s`."""
    return RATES.get(unit, unit)


@dataclass(frozen=True)
class HistoryCapacity:
    """One history. history: prompt tokens; None: as the workload has them. flows, figures: of each level told."""

    history: int | None
    search: CapacitySearch
    flows: tuple[Flow, ...]
    figures: tuple[Figures, ...]

    @property
    def counted(self) -> list[tuple[Outcome, Flow, Figures]]:
        """The levels that the answer rests on."""
        told, without = zip(self.search.told, self.flows, self.figures, strict=True), self.search.left_out
        return [each for place, each in enumerate(told) if place not in without]

    @property
    def row(self) -> HistoryRow:
        """Of the surface."""
        return row_of(self.history, [(outcome, figures) for outcome, _, figures in self.counted])

    @property
    def answer(self) -> Answer:
        return self.search.answer()

    @property
    def at_capacity(self) -> Flow | None:
        """What went through the level nearest to the estimate, of those that neither drift nor are over-saturated; of a
        brief one, half of which is warm-up, only where there is none else. The longest of several at one load.
        """
        answer = self.answer
        load = answer.best if answer.best is not None else answer.holds
        fit = [
            (each.brief, abs(flow.load - load), -each.seconds, flow)
            for each, flow, _ in self.counted
            if not each.drifts and not each.saturated and flow.requests_per_second > 0
        ]
        return min(fit, key=lambda each: each[:3])[3] if fit and load else None

    @property
    def beside_the_limit(self) -> tuple[Measured, ...]:
        """The levels that tell what binds at the limit: of those at or below the estimate and of those above it the
        nearest one within NEIGHBOURS that tells. Where none does, the nearest of all. The nearest one comes first.
        """
        answer = self.answer
        limit = answer.best or answer.holds or answer.breaks
        levels: list[Measured] = [(outcome, figures) for outcome, _, figures in self.counted]
        if not limit or not levels:
            return ()

        def distance(each: Measured) -> tuple[float, bool]:
            return abs(math.log(each[0].offered / limit)), each[0].brief

        levels.sort(key=distance)
        near = [each for each in levels if distance(each)[0] <= math.log(NEIGHBOURS) + 1e-9]
        tell = [each for each in near if each[1].binds.resource is not None]
        sides = (next((each for each in tell if (each[0].offered > limit) is above), None) for above in (False, True))
        found = sorted((each for each in sides if each is not None), key=distance)
        return tuple(found) or (levels[0],)

    def as_dict(self) -> dict[str, Any]:
        """An entry of `surface`."""
        answer, flow = self.answer, self.at_capacity
        told = zip(self.search.told, self.flows, self.figures, strict=True)
        return {
            "history_tokens": self.history,
            "answer": answer.as_dict(),
            "narrow": answer.narrow,
            "limited_by": answer.limited_by,
            "notes": list(answer.notes),
            "at_capacity": flow.as_dict() if flow else None,
            "seconds": self.search.spent,
            "levels": [
                {**outcome.as_dict(), "flow": flow.as_dict(), "figures": each.as_dict()} for outcome, flow, each in told
            ],
        }


@dataclass(frozen=True)
class HistoryCost:
    """What each further 1,000 tokens of history cost, by a line of least squares through the estimates.

    loads: of the report's unit. low, high: what the line may cost with each estimate anywhere in its interval; None
    where an interval has no upper end. shortest, longest: the histories in tokens between which it was measured.
    """

    loads: float
    low: float | None
    high: float | None
    shortest: int
    longest: int


@dataclass(frozen=True)
class CapacityReport:
    """unit: `users`, `chats`, `rate` or `conversations`. price: None where it is not known. gpus: of the deployment
    measured.
    """

    model: str
    unit: str
    slo: Slo
    habits: Habits
    price: Price | None
    histories: tuple[HistoryCapacity, ...]
    gpus: int = 1
    asked: MoneyQuestion = NOTHING_ASKED

    @property
    def first(self) -> HistoryCapacity:
        """The first history: what the answer speaks of."""
        return self.histories[0]

    @property
    def surface(self) -> Surface:
        """What the service does at each history and load."""
        told = [each.answer for each in self.histories if each.search.told]
        knees = [each.best if each.best is not None else each.holds for each in told]
        return surface_of([each.row for each in self.histories], knees, whole=self.unit not in RATES)

    @property
    def people(self) -> People | None:
        """None where no level can speak for the capacity, or that one does not add up."""
        flow = self.first.at_capacity
        return people(flow, self.habits) if flow and flow.adds_up else None

    @property
    def no_people(self) -> str:
        """Why nobody knows how many people that serves."""
        flow = self.first.at_capacity
        return TOO_SHORT if flow and not flow.adds_up else NO_HABITS

    @property
    def people_range(self) -> tuple[float, float | None, float | None] | None:
        """People of the busy hour at what holds, at the estimate, and at what breaks; None where they are not known."""
        found, answer = self.people, self.first.answer
        if found is None or found.per_load is None:
            return None
        each = found.per_load
        best, breaks = answer.best, answer.breaks
        return (
            answer.holds * each,
            None if best is None else best * each,
            None if breaks is None else breaks * each,
        )

    @property
    def money(self) -> Money:
        """At the level nearest to the estimate; users are those of the busy hour at what is sure to hold."""
        flow, ends = self.first.at_capacity, self.people_range
        if flow is not None and not flow.adds_up:
            return money(self.asked, self.price, self.gpus, None, None, no_flow=TOO_SHORT)
        tokens = None if flow is None else (flow.input_tokens_per_second, flow.output_tokens_per_second)
        held = ends[0] if ends else None
        used = self.habits.utilisation
        return money(self.asked, self.price, self.gpus, tokens, held, used, PEOPLE, self.no_people)

    @property
    def history_cost(self) -> HistoryCost | None:
        """None with fewer than two histories whose limit was estimated."""
        known = [(each.history, each.answer) for each in self.histories]
        points = [(history, found) for history, found in known if history is not None and found.best is not None]
        if len({history for history, _ in points}) < 2:
            return None
        histories = np.array([history for history, _ in points], dtype=np.float64)
        # The slope of least squares is a weighted sum of the loads; its weights depend on the histories alone.
        middle = (histories - histories.mean()) / 1000
        weights = -middle / (middle**2).sum()
        ends = np.array([(found.holds, found.best, found.breaks or np.inf) for _, found in points]).T
        ends[:, weights == 0] = 0.0  # the middle one of three: its interval says nothing, with an upper end or without
        low = weights @ np.where(weights > 0, ends[0], ends[2])
        high = weights @ np.where(weights > 0, ends[2], ends[0])
        return HistoryCost(
            float(weights @ ends[1]),
            None if np.isinf(low) else float(low),
            None if np.isinf(high) else float(high),
            int(histories.min()),
            int(histories.max()),
        )

    def as_dict(self) -> dict[str, Any]:
        """The document of capacity.json."""
        first, found, flow = self.first.as_dict(), self.people, self.first.at_capacity
        ends, cost = self.people_range, self.history_cost
        users = None
        if found is not None and flow is not None:
            users = {
                **found.as_dict(),
                "busy_hour_range": None if ends is None else list(ends),
                "think_time": self.habits.think,
                "turns": self.habits.turns,
                "sessions_per_hour": self.habits.sessions_per_hour,
                "little": {"answers_at_once": flow.at_once, "by_law": flow.by_little},
            }
        return {
            "model": self.model,
            "unit": self.unit,
            "slo": self.slo.as_dict(),
            "answer": first["answer"],
            "narrow": first["narrow"],
            "limited_by": first["limited_by"],
            "notes": first["notes"],
            "levels": first["levels"],
            "users": users,
            "cost": self.money.as_dict(),
            "per_thousand_history_tokens": cost.loads if cost else None,
            "per_thousand_history_tokens_range": [cost.low, cost.high] if cost else None,
            "surface": [each.as_dict() for each in self.histories],
            "cells": self.surface.as_list(),
        }
