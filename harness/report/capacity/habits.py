"""Who is behind the load, and what it costs, as far as it was told."""

from __future__ import annotations

from harness.report.capacity.subject import SearchReport
from harness.report.capacity_text import history_words, load_of
from harness.report.document import Bullets, Facts, Section
from harness.report.money_words import money_lines, price_words, usd
from harness.units import format_count, format_duration, format_number


def section(searched: SearchReport) -> Section | None:
    """None where no level can speak for the capacity."""
    report = searched.report
    flow, found, ends = report.first.at_capacity, report.people, report.people_range
    if flow is None:
        return None
    pairs = [
        *([("History", history_words(report))] if len(report.histories) > 1 else []),
        ("At", load_of(flow.load, report.unit)),
        (
            "Answered",
            f"{format_number(flow.requests_per_second)} requests/s, {format_duration(flow.answer_seconds)} each",
        ),
        ("Generated", f"{format_number(flow.output_tokens_per_second)} tokens/s"),
    ]
    if found is None or ends is None:
        pairs.append(("People in the busy hour", f"not known: {report.no_people}"))
    else:
        low, best, high = (None if end is None else format_count(round(end)) for end in ends)
        about = f"{best or low} ({low} to {high})" if high is not None else f"{best or low} ({low} or more)"
        pairs.append(("People in the busy hour", about))
        pairs.append(("Of them talking at once", format_number(found.talking)))
    why = "no price is told: give --price" if flow.adds_up else report.no_people
    lines = tuple(money_lines(report.money)) or (f"Cost: not known, as {why}.",)
    return Section("People, GPUs and cost", (Facts(tuple(pairs)), Bullets(lines)))


def card(searched: SearchReport) -> list[tuple[str, str]]:
    """What one million generated tokens cost, and the GPUs for the users that were asked for."""
    money = searched.report.money
    if money.cost is None:
        return [("Cost", "no price known" if searched.report.people else "not known")]
    cost = money.cost
    pairs = [
        ("Price", price_words(cost.price)),
        ("Per million generated tokens", usd(cost.million(cost.output_per_second, full=True))),
        ("The same as the day goes", usd(cost.million(cost.output_per_second))),
    ]
    if money.fleet is not None:
        pairs.append((f"GPUs for {format_count(money.fleet.users)} users", format_count(money.fleet.gpus)))
        pairs.append(("Of these a month", usd(money.fleet.per_month)))
    return pairs
