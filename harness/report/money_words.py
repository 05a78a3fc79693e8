"""Costs and sizes in words, for every report that has them."""

from __future__ import annotations

from harness.stats.money import PEOPLE, BreakEven, Cost, Fleet, Money, Price
from harness.units import format_count, format_number, format_percent

MORE_PEOPLE = (
    "People who pause between their questions are more: `harness report` counts them with --turns and "
    "--sessions-per-hour."
)


def money_lines(money: Money) -> list[str]:
    """A sentence each: tokens, users, GPUs for those that were asked for, and an API beside it."""
    lines = []
    if money.cost is not None:
        lines.append(f"Cost: {_tokens(money.cost)}; {price_words(money.cost.price)}.")
    if money.per_user_month is not None:
        users = format_count(round(money.users or 0))
        more = "" if money.who == PEOPLE else f" {MORE_PEOPLE}"
        lines.append(f"{usd(money.per_user_month)} per user and month, with {users} {money.who}.{more}")
    if money.fleet is not None:
        lines.append(_fleet(money.fleet))
    if money.break_even is not None:
        lines.append(_break_even(money.break_even))
    if money.why_not is not None:
        lines.append(f"What was asked of GPUs and cost has no answer: {money.why_not}.")
    return lines


def usd(value: float | None) -> str:
    return "not told" if value is None else f"{format_number(value)} USD"


def price_words(price: Price) -> str:
    """Where the money comes from."""
    many = f"{price.gpus} GPUs at " if price.gpus > 1 else ""
    source = "" if price.source is None else f", {price.source}"
    return f"{many}{price.per_gpu_hour:.2f} USD for a GPU and hour{source}"


def _tokens(cost: Cost) -> str:
    at = "at capacity all day"
    kinds = (("generated", cost.output_per_second), ("prompt", cost.input_per_second), ("any", cost.blended_per_second))
    full = ", ".join(
        f"{usd(cost.million(rate, full=True))} per million {kind} tokens" for kind, rate in kinds if rate > 0
    )
    if cost.utilisation == 1.0:
        return f"{full} {at}" if full else "per token not known, as no tokens are told"
    real, idle = usd(cost.million(cost.output_per_second)), format_percent(1 - cost.utilisation)
    return f"{full} {at}; {real} per million generated tokens as the day goes ({idle} idle)"


def _fleet(fleet: Fleet) -> str:
    peak = "" if fleet.peak == 1.0 else f" with a peak of {fleet.peak:g} times as many"
    spare = "" if not fleet.spare else f", {fleet.spare} of them spare"
    cost = "no price known" if fleet.per_month is None else f"{usd(fleet.per_month)} a month"
    each = "" if fleet.per_user_month is None else f", {usd(fleet.per_user_month)} per user"
    return (
        f"{format_count(fleet.users)} users{peak} need {fleet.gpus} GPUs: {fleet.deployments} deployments{spare}, each "
        f"of which holds {format_number(fleet.held)} users; {cost}{each}."
    )


def _break_even(found: BreakEven) -> str:
    api = f"the API ({found.api.input:g} and {found.api.output:g} USD per million prompt and generated tokens)"
    if not found.ever:
        there = f"which would cost {usd(found.api_per_hour)} an hour there"
        return f"{api[:1].upper()}{api[1:]} is cheaper even at full load, {there}."
    return (
        f"Own GPUs are cheaper than {api} from {format_percent(found.utilisation)} of their capacity on: "
        f"{format_count(round(found.output_per_month / 1e6))} million generated tokens a month."
    )
