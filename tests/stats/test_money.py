"""Money and size by numbers that can be checked by hand."""

from __future__ import annotations

import math

import pytest

from harness.catalog.gpus import gpus
from harness.catalog.prices import prices
from harness.drive.money_options import day_of, money_question
from harness.errors import UsageError
from harness.measure.records import Records
from harness.report.money_words import money_lines
from harness.report.run import run_document
from harness.report.to_markdown import to_markdown
from harness.stats.money import (
    ApiPrice,
    Cost,
    MoneyQuestion,
    Price,
    break_even,
    fleet,
    money,
    per_million,
    price_of,
)
from harness.stats.summary import summarise
from tests.runs import closed_level, closed_loop, manifest

PRICE = Price(1.8, 2, "a shop, 2026-01")  # 3.6 USD an hour
COST = Cost(PRICE, 1500.0, 500.0, 0.5)


def test_cost_of_tokens_by_hand() -> None:
    """3.6 USD an hour over 1.8 million generated, 5.4 million prompt, or 7.2 million tokens of both."""
    found = COST.as_dict()
    assert found["per_million_output_tokens_at_capacity"] == pytest.approx(2.0)
    assert found["per_million_input_tokens_at_capacity"] == pytest.approx(3.6 / 5.4)
    assert found["per_million_blended_tokens_at_capacity"] == pytest.approx(0.5)
    assert found["per_million_blended_tokens"] == pytest.approx(1.0)  # half of the day's capacity is used
    assert (found["price_per_hour"], found["price_source"]) == (3.6, "a shop, 2026-01")
    assert COST.per_user_month(100) == pytest.approx(26.28)  # 3.6 * 730 / 100


def test_what_is_not_told_costs_nothing_known() -> None:
    """Without counts there is no price of a token."""
    assert per_million(3.6, math.nan) is None
    assert Cost(PRICE, math.nan, 500.0).as_dict()["per_million_blended_tokens"] is None
    assert break_even(Cost(PRICE, math.nan, 500.0), ApiPrice(1, 1)) is None


def test_gpus_for_users_with_a_spare_and_a_peak() -> None:
    """500 users at 1.5 times their number are 750; 41 to a deployment are 19, and one spare: 20 of two GPUs each."""
    found = fleet(MoneyQuestion(500, peak=1.5), 41.0, 2, PRICE)
    assert found is not None
    assert (found.needed, found.deployments, found.gpus) == (19, 20, 40)
    assert found.per_month == pytest.approx(40 * 1.8 * 730)
    assert found.per_user_month == pytest.approx(40 * 1.8 * 730 / 500)
    exact = fleet(MoneyQuestion(82, spare=0), 41.0, 1, None)
    assert exact is not None
    assert (exact.gpus, exact.per_month) == (2, None)
    assert fleet(MoneyQuestion(), 41.0, 1, PRICE) is None


@pytest.mark.parametrize(("api", "share", "ever"), [((0.5, 2.5), 0.5, True), ((0.1, 0.3), 3.6 / 1.08, False)])
def test_break_even_by_hand(api: tuple[float, float], share: float, ever: bool) -> None:
    """5.4 million prompt and 1.8 million generated tokens an hour cost 7.2 USD there, or 1.08."""
    found = break_even(COST, ApiPrice(*api))
    assert found is not None
    assert (found.utilisation, found.ever) == (pytest.approx(share), ever)
    assert found.output_per_month == pytest.approx(1.8e6 * 730 * share)


def test_users_that_no_load_holds_are_not_served() -> None:
    """Where nothing holds the SLO, or a rate was measured, no number of GPUs is made up."""
    asked = MoneyQuestion(500)
    assert money(asked, PRICE, 2, None, None).why_not == "no load was found that holds the SLO"
    assert money(asked, PRICE, 2, (1.0, 1.0), None).why_not == "the load was not measured in users"


def test_every_price_has_a_card_a_date_and_a_source() -> None:
    """The table says when and where each price was read; cards without one have none."""
    assert set(prices()) <= set(gpus())
    assert all(each.date and each.source and each.usd_per_hour > 0 for each in prices().values())
    assert gpus()["L40S"].price_per_hour == prices()["L40S"].usd_per_hour
    assert gpus()["A30"].price_per_hour is None


def test_the_price_that_is_given_wins() -> None:
    """Else the run's own holds; there may be none."""
    assert price_of(MoneyQuestion(price_per_gpu_hour=2.0), 0.8, "x", 2) == Price(2.0, 2, "as given")
    assert price_of(MoneyQuestion(), 0.8, "x", 2) == Price(0.8, 2, "x")
    assert price_of(MoneyQuestion(), None, None, 2) is None


@pytest.mark.parametrize(
    ("given", "where"),
    [({"for_users": 0.0}, "--for-users"), ({"peak": math.inf}, "--peak"), ({"api_price": "1"}, "--api-price"),
     ({"api_price": "a,b"}, "--api-price"), ({"price": -1.0}, "--price"), ({"turns": 0.0}, "--turns"),
     ({"sessions_per_hour": math.nan}, "--sessions-per-hour"), ({"profile": "nowhere"}, "--profile")],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused(given: dict[str, object], where: str) -> None:
    """Each in one line that names the option."""
    with pytest.raises(UsageError, match=where):
        money_question(**given)  # type: ignore[arg-type]


def test_a_report_says_what_the_run_cost() -> None:
    """Each level's tokens have a price, and the highest that held the SLO answers for users, GPUs and the API."""
    levels = [closed_level(n, users, 100.0 * n, 100.0, warmup=0.0) for n, users in enumerate((1, 4))]
    records = Records.from_list([each for level in levels for each in closed_loop(level)])
    plain = manifest(levels, price_per_gpu_hour=0.8, price_source="a shop, 2026-01", gpus=1, slo={"ttft_p95": 1.0})
    asked = MoneyQuestion(10, api=ApiPrice(0.15, 0.6))
    summary = summarise(records, plain, asked=asked)
    held = summary.capacity.highest
    assert held is not None
    assert held.users == 4
    document = summary.as_dict()["cost"]
    assert document["per_million_output_tokens"] == pytest.approx(0.8 / (held.throughput.output_tokens * 3600 / 1e6))
    assert (document["fleet"]["gpus"], document["per_user_month"]) == (4, pytest.approx(0.8 * 730 / 4))
    text = to_markdown(run_document(summary))
    assert "10 users need 4 GPUs: 4 deployments, 1 of them spare, each of which holds 4" in text
    assert "0.80 USD for a GPU and hour, a shop, 2026-01" in text
    assert len(money_lines(summary.money)) == 4


def test_people_and_a_day_can_be_told_of_a_run_that_is_done() -> None:
    """4 users ask R requests a second; at 6 questions an hour each R * 600 people are behind them, and on a day that is
    as busy for half of its hours a token costs twice as much.
    """
    level = closed_level(0, 4, 0.0, 100.0, warmup=0.0)
    plain = manifest([level], price_per_gpu_hour=0.8, gpus=1, slo={"ttft_p95": 1.0})
    records = Records.from_list(closed_loop(level))
    half_a_day = (1.0,) * 12 + (0.0,) * 12
    asked = MoneyQuestion(10_000, turns=3.0, sessions_per_hour=2.0, day=half_a_day)
    found, usual = summarise(records, plain, asked=asked), summarise(records, plain)
    rate = found.levels[0].throughput.requests
    assert found.money.users == pytest.approx(rate * 3600 / 6)
    assert found.money.per_user_month == pytest.approx(0.8 * 730 / (rate * 600))
    fleet_of = found.money.fleet
    assert fleet_of is not None
    assert fleet_of.needed == math.ceil(10_000 / (rate * 600))
    dear, cheap = (each.as_dict()["cost"]["per_million_output_tokens"] for each in (found, usual))
    assert dear == pytest.approx(2 * cheap)
    assert "people of the busy hour." in money_lines(found.money)[1]
    assert "--sessions-per-hour" in money_lines(usual.money)[1]  # users at once are not people
    assert usual.money.users == 4


@pytest.mark.parametrize(
    ("asked", "flow", "held", "words"),
    [
        (MoneyQuestion(for_users=9), None, None, "no load was found"),
        (MoneyQuestion(for_users=9), (1.0, 1.0), None, "not measured in users"),
        (MoneyQuestion(for_users=9), (1.0, 1.0), 0.0, "no load is sure to hold"),
        (MoneyQuestion(api=ApiPrice(0.1, 0.2)), (math.nan, math.nan), 4.0, "does not tell the tokens"),
    ],
)
def test_what_has_no_answer_is_told_with_its_reason(
    asked: MoneyQuestion, flow: tuple[float, float] | None, held: float | None, words: str
) -> None:
    """Never left out in silence."""
    found = money(asked, Price(1.0, 1), 1, flow, held)
    assert (found.fleet, found.break_even) == (None, None)
    assert words in money_lines(found)[-1]


def test_a_day_by_name_or_file() -> None:
    """A flat day has no idle hour."""
    assert set(day_of("flat")) == {1.0}
    with pytest.raises(UsageError):
        day_of("nowhere")
