"""The limits that each goal would give: the requested one's as found, the others' by the same rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from harness.probe.evidence import gather
from harness.probe.flash_limits import COSTLY, flash_curve
from harness.probe.recommend import recommend
from harness.probe.recommendation import DEFAULT_PREFILL, LOW_PREFILL, Recommendation, first_prefill
from harness.probe.setting import Goal, Outcome, Prior, Setting, effective_prefill
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
        if goal == state.asked.goal:
            source: Literal["measured", "estimated"] = "measured" if proved else "estimated"
            figures[goal] = GoalFigures(found.history, budget, _at_once(found.setting), source)
        else:
            figures[goal] = _estimate(state, goal)
    return figures


def _estimate(state: SearchState, goal: Goal) -> GoalFigures:
    """By the rules for that goal, from what was seen. Where it would have another prefill budget than was started, the
    cache is what the starts tell of T(P), and never above what such a start is likely to find.
    """
    evidence, prior = state.evidence, state.prior
    if prior.prefill_share is None:
        prior = replace(prior, prefill_share=COSTLY)
    started = evidence.started
    if started is not None and started.kind == "flash" and started.chunking:
        evidence = gather([*evidence.outcomes, _as_if_started(state, prior, goal)])
        started = evidence.started
    other = recommend(evidence, replace(state.asked, goal=goal), prior, state.fast_rows)
    setting = other.setting
    budget = setting.max_batch_total_tokens
    if started is not None and started.kind == "flash":
        budget = started.budget if evidence.tokens.smallest_failed is None else other.capacity
        if not started.chunking:
            budget = int(flash_curve(evidence, prior).at(setting.max_batch_prefill_tokens or LOW_PREFILL))
    return GoalFigures(other.history, budget, _at_once(setting), "estimated")


def _at_once(setting: Setting) -> int | None:
    """Chats that run beside each other; those that wait beyond a batch do not count."""
    return setting.most_at_once if setting.max_concurrent_requests else None


def _as_if_started(state: SearchState, prior: Prior, goal: Goal) -> Outcome:
    """The last start with the prefill budget of another goal, of which nothing was asked."""
    last = state.evidence.last_up
    assert last is not None
    assert last.started is not None
    told, ran = last.started.budget or 0, effective_prefill(last) or DEFAULT_PREFILL
    own = (effective_prefill(each) for each in state.evidence.outcomes if each.setting.max_batch_prefill_tokens is None)
    wanted = first_prefill(goal) or next((each for each in own if each), max(ran, DEFAULT_PREFILL))
    curve = flash_curve(state.evidence, prior)
    more = curve.at(wanted) - curve.at(ran)
    if more > 0 and state.prior.prefill_share is None and len(curve.points) < 2:
        more = 0.0
    budget = int(told + more) // last.started.block_size * last.started.block_size
    setting = replace(last.setting, max_batch_prefill_tokens=wanted)
    return Outcome(setting, replace(last.started, budget=max(1, budget), prefill_tokens=wanted), True)


def sentence(figures: dict[str, GoalFigures], goal: str) -> str:
    """One line for all goals, the one in force first."""
    order = [goal, *(name for name in figures if name != goal)]
    parts = []
    for name in order:
        each = figures[name]
        of = f" of a budget of {each.max_batch_total_tokens:,}" if each.max_batch_total_tokens else ""
        chats = f", {each.chats:,} chat{'' if each.chats == 1 else 's'}" if each.chats else ""
        about = "about " if each.source == "estimated" else ""
        parts.append(f"{name} {about}{each.max_input_tokens:,}{of}{chats}")
    return "History by goal: " + "; ".join(parts) + "."
