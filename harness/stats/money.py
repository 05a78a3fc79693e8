"""Costs and sizes: the price of tokens and users, how many GPUs N users need, and when an API is cheaper.

Every formula here can be checked by hand from four numbers: the price of an hour, the tokens per second, the users that
one deployment holds, and the share of its capacity that is really used. A deployment is what was measured: one service
on its GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.stats.people import Habits

HOURS_PER_MONTH = 730.0  # 365 days of 24 hours over 12


@dataclass(frozen=True)
class Price:
    """Of one GPU for an hour, in USD. source: whose, and of when; None where an entry gives it without. gpus: of one
    deployment.
    """

    per_gpu_hour: float
    gpus: int
    source: str | None = None

    @property
    def per_hour(self) -> float:
        """Of a whole deployment."""
        return self.per_gpu_hour * self.gpus


@dataclass(frozen=True)
class ApiPrice:
    """What somebody else's API asks for a million tokens, in USD."""

    input: float
    output: float


@dataclass(frozen=True)
class MoneyQuestion:
    """What is asked beyond the cost of tokens. for_users: that must be served; peak: by how much their busiest moment
    exceeds what `for_users` counts. spare: deployments beyond those needed, so that one may fail. price: in place of
    the run's own, of one GPU. turns, sessions_per_hour, day: of one person, as in Habits, in place of what the load was
    told; None leaves that.
    """

    for_users: float | None = None
    peak: float = 1.0
    spare: int = 1
    api: ApiPrice | None = None
    price_per_gpu_hour: float | None = None
    turns: float | None = None
    sessions_per_hour: float | None = None
    day: Sequence[float] | None = None

    def habits(self, told: Habits) -> Habits:
        """What one person does: as asked now, else as it was told before."""
        return Habits(
            told.think,
            told.turns if self.turns is None else self.turns,
            told.sessions_per_hour if self.sessions_per_hour is None else self.sessions_per_hour,
            told.day if self.day is None else self.day,
        )


NOTHING_ASKED = MoneyQuestion()


def price_of(asked: MoneyQuestion, per_gpu_hour: float | None, source: str | None, gpus: int) -> Price | None:
    """The price that was asked with, else the run's own; None where there is neither."""
    if asked.price_per_gpu_hour is not None:
        return Price(asked.price_per_gpu_hour, gpus, "as given")
    return None if per_gpu_hour is None else Price(per_gpu_hour, gpus, source)


def per_million(price_per_hour: float, tokens_per_second: float) -> float | None:
    """USD per million tokens: price_per_hour / (tokens_per_second * 3600 / 10^6); None where no tokens are told."""
    return price_per_hour / (tokens_per_second * 3600 / 1e6) if tokens_per_second > 0 else None


@dataclass(frozen=True)
class Cost:
    """Of one deployment at the most load that holds its SLO. utilisation: the share of that which is really used, by
    how a day goes; tokens per second: NaN where they are not told.

    Each cost per million is all of the money over one kind of tokens, or over both together (blended): they are three
    views of one sum, and are not added.
    """

    price: Price
    input_per_second: float
    output_per_second: float
    utilisation: float = 1.0

    @property
    def blended_per_second(self) -> float:
        return self.input_per_second + self.output_per_second

    def million(self, tokens_per_second: float, *, full: bool = False) -> float | None:
        """USD per million of these tokens as the day goes. full: at capacity all day."""
        return per_million(self.price.per_hour, tokens_per_second * (1.0 if full else self.utilisation))

    def per_user_month(self, users: float) -> float | None:
        """price of a month / users of one deployment."""
        return self.price.per_hour * HOURS_PER_MONTH / users if users > 0 else None

    def as_dict(self) -> dict[str, Any]:
        kinds = {"input": self.input_per_second, "output": self.output_per_second, "blended": self.blended_per_second}
        return {
            "price_per_hour": self.price.per_hour,
            "price_per_gpu_hour": self.price.per_gpu_hour,
            "gpus": self.price.gpus,
            "price_source": self.price.source,
            "utilisation": self.utilisation,
            **{f"per_million_{kind}_tokens_at_capacity": self.million(rate, full=True) for kind, rate in kinds.items()},
            **{f"per_million_{kind}_tokens": self.million(rate) for kind, rate in kinds.items()},
        }


@dataclass(frozen=True)
class Fleet:
    """Deployments for this many users. needed: ceil(users * peak / users that one holds); spare: beyond, so that with
    one of them gone the others still hold all (N+1).
    """

    users: float
    peak: float
    held: float
    needed: int
    spare: int
    gpus_each: int
    price: Price | None

    @property
    def deployments(self) -> int:
        return self.needed + self.spare

    @property
    def gpus(self) -> int:
        return self.deployments * self.gpus_each

    @property
    def per_month(self) -> float | None:
        """gpus * price of one for an hour * 730 hours."""
        return None if self.price is None else self.gpus * self.price.per_gpu_hour * HOURS_PER_MONTH

    @property
    def per_user_month(self) -> float | None:
        return None if self.per_month is None else self.per_month / self.users

    def as_dict(self) -> dict[str, Any]:
        return {
            "users": self.users,
            "peak": self.peak,
            "users_per_deployment": self.held,
            "deployments": self.deployments,
            "of_these_spare": self.spare,
            "gpus": self.gpus,
            "per_month": self.per_month,
            "per_user_month": self.per_user_month,
        }


def fleet(asked: MoneyQuestion, held: float, gpus_each: int, price: Price | None) -> Fleet | None:
    """held: users that one deployment is sure to hold. None where nobody asks, or where it holds none."""
    if asked.for_users is None or not held > 0:
        return None
    needed = math.ceil(asked.for_users * asked.peak / held - 1e-9)
    return Fleet(asked.for_users, asked.peak, held, max(1, needed), asked.spare, gpus_each, price)


@dataclass(frozen=True)
class BreakEven:
    """Against an API's prices. api_per_hour: what a deployment's traffic at capacity would cost there. utilisation:
    from this share of its capacity on, the deployment is the cheaper one: price_per_hour / api_per_hour; above 1 it
    never is. output_per_month: generated tokens of a month at that share.
    """

    api: ApiPrice
    api_per_hour: float
    utilisation: float
    output_per_month: float

    @property
    def ever(self) -> bool:
        return self.utilisation <= 1.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "api": {"per_million_input_tokens": self.api.input, "per_million_output_tokens": self.api.output},
            "api_cost_per_hour_at_capacity": self.api_per_hour,
            "utilisation": self.utilisation,
            "output_tokens_per_month": self.output_per_month,
            "ever": self.ever,
        }


def break_even(cost: Cost, api: ApiPrice) -> BreakEven | None:
    """api_per_hour = (input * its price + output * its price) * 3600 / 10^6; None where tokens are not told."""
    hourly = (cost.input_per_second * api.input + cost.output_per_second * api.output) * 3600 / 1e6
    if not hourly > 0:
        return None
    share = cost.price.per_hour / hourly
    return BreakEven(api, hourly, share, cost.output_per_second * 3600 * HOURS_PER_MONTH * share)


AS_ASKED = "users at once, as this load had them"
PEOPLE = "people of the busy hour"


@dataclass(frozen=True)
class Money:
    """All of it for one deployment; what is not known or was not asked is None. users: that it is sure to hold; who
    these are, in words.

    why_not: why what was asked has no answer.
    """

    cost: Cost | None = None
    users: float | None = None
    who: str = AS_ASKED
    fleet: Fleet | None = None
    break_even: BreakEven | None = None
    why_not: str | None = None

    @property
    def per_user_month(self) -> float | None:
        return None if self.cost is None or self.users is None else self.cost.per_user_month(self.users)

    def as_dict(self) -> dict[str, Any] | None:
        """The `cost` of capacity.json and summary.json; None where there is nothing to say."""
        told = {
            **({} if self.cost is None else {**self.cost.as_dict(), "per_user_month": self.per_user_month}),
            **({} if self.fleet is None else {"fleet": self.fleet.as_dict()}),
            **({} if self.break_even is None else {"break_even": self.break_even.as_dict()}),
        }
        return told or None


def money(
    asked: MoneyQuestion,
    price: Price | None,
    gpus_each: int,
    flow: tuple[float, float] | None,
    held: float | None,
    utilisation: float = 1.0,
    who: str = AS_ASKED,
    no_users: str = "the load was not measured in users",
    no_flow: str = "no load was found that holds the SLO",
) -> Money:
    """flow: prompt and generated tokens per second at the most load that holds the SLO, None where none does. held:
    users of that, None where it is not known; who: these are; no_users, no_flow: why they are not known.
    """
    cost = Cost(price, *flow, utilisation) if price is not None and flow is not None else None
    against = break_even(cost, asked.api) if cost is not None and asked.api is not None else None
    why = None
    if flow is None and (asked.for_users is not None or asked.api is not None):
        why = no_flow
    elif asked.for_users is not None and not held:
        why = no_users if held is None else "no load is sure to hold the SLO"
    elif asked.api is not None and price is None:
        why = "no price known"
    elif asked.api is not None and against is None:
        why = "the server does not tell the tokens of prompts and answers"
    return Money(
        cost=cost,
        users=held,
        who=who,
        fleet=fleet(asked, held or 0.0, gpus_each, price),
        break_even=against,
        why_not=why,
    )
