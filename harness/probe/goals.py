"""What each goal would give on this engine: the one that was asked for as found, the others by the same rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from harness.probe.flash_limits import flash_curve
from harness.probe.recommend import recommend
from harness.probe.recommendation import LOW_PREFILL, Recommendation
from harness.probe.setting import Goal
from harness.probe.state import SearchState


@dataclass(frozen=True)
class GoalFigures:
    """Tokens; chats at once. source: `measured` of limits that survived their proof."""

    max_input_tokens: int
    max_batch_total_tokens: int | None
    chats: int | None
    source: Literal["measured", "estimated"]

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


def goals_of(state: SearchState, found: Recommendation, budget: int | None, *, proved: bool) -> dict[str, GoalFigures]:
    """By goal. budget: with the limits that were found."""
    figures: dict[str, GoalFigures] = {}
    for goal in get_args(Goal):
        if goal == state.wish.goal:
            chats = found.setting.max_concurrent_requests
            figures[goal] = GoalFigures(found.history, budget, chats, "measured" if proved else "estimated")
        else:
            figures[goal] = _estimate(state, goal)
    return figures


def _estimate(state: SearchState, goal: Goal) -> GoalFigures:
    other = recommend(state.evidence, replace(state.wish, goal=goal), state.prior, state.fast_rows)
    started, setting = state.evidence.started, other.setting
    budget = setting.max_batch_total_tokens
    if started is not None and started.kind == "flash":
        budget = other.capacity
        if not started.chunking:
            budget = int(flash_curve(state.evidence, state.prior).at(setting.max_batch_prefill_tokens or LOW_PREFILL))
    return GoalFigures(other.history, budget, setting.max_concurrent_requests, "estimated")


def sentence(figures: dict[str, GoalFigures], goal: str) -> str:
    """One line for all goals, the one in force first."""
    order = [goal, *(name for name in figures if name != goal)]
    parts = []
    for name in order:
        each = figures[name]
        of = f" of a budget of {each.max_batch_total_tokens:,}" if each.max_batch_total_tokens else ""
        chats = f", {each.chats:,} chats" if each.chats else ""
        about = "about " if each.source == "estimated" else ""
        parts.append(f"{name} {about}{each.max_input_tokens:,}{of}{chats}")
    return "History by goal: " + "; ".join(parts) + "."
