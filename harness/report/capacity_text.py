"""The answer of a capacity search as a few lines for the terminal."""

from __future__ import annotations

from harness.report.document import Table
from harness.report.money_words import money_lines
from harness.report.to_text import aligned
from harness.report.words import plural
from harness.stats.capacity_report import RATES, CapacityReport, HistoryCapacity, HistoryCost, unit_words
from harness.stats.outcome import Outcome
from harness.stats.people import Flow
from harness.units import format_count, format_duration, format_number, format_percent

CAME = (
    "Came: the rate of a level's arrivals, which chance makes more or fewer than were asked for. The limit, people and "
    "all figures are told for the rate that came."
)
LITTLE_OFF = 0.1  # of the answers at once: by more the count and the law should not differ in a level of one state
_WORDS = {"holds": "holds", "breaks": "breaks", "undecided": "not decided"}


def to_text(report: CapacityReport) -> str:
    """The interval, how it was come to, and who is behind it."""
    lines = [f"{report.model}: {report.unit}, SLO {report.slo}", ""]
    for each in report.histories:
        lines += [*aligned(level_table(each, report.unit)), ""]
    if chance_came(report):
        lines += [CAME, ""]
    for each in report.histories:
        name = "" if each.history is None else f"{format_count(each.history)} tokens of history: "
        lines.append(f"{name}{sentence(each, report.unit)}")
        lines += [f"Note: {note}" for note in each.answer.notes]
    flow = report.first.at_capacity
    if flow is not None:
        lines += [*people_lines(report, flow), *money_lines(report.money)]
    if (surface := surface_table(report)) is not None:
        lines += ["", *aligned(surface)]
        if any(row[1].startswith("~") for row in surface.rows):
            lines.append("~ interpolated between measured levels")
    if report.history_cost is not None:
        lines.append(history_line(report.history_cost, report.unit))
    return "\n".join(lines)


def history_line(cost: HistoryCost, unit: str) -> str:
    """What a longer history costs, between which lengths that was seen, and how sure it is."""
    seen = f"Between {format_count(cost.shortest)} and {format_count(cost.longest)} tokens"
    # Not by more tokens than the histories are apart: that would be a guess beyond them.
    step = next((each for each in (1000, 100, 10) if each <= cost.longest - cost.shortest), 1)
    low, high = ("no limit known" if end is None else format_number(end * step / 1000) for end in (cost.low, cost.high))
    lost = f"{format_number(cost.loads * step / 1000)} {unit_words(unit)}"
    line = (
        f"{seen}, each further {plural(step, 'token')} of history cost {lost}, by a line through the estimates; "
        f"their intervals allow {low} to {high}"
    )
    doubt = ", so that it is not sure that a longer history costs any" if cost.low is None or cost.low <= 0 else ""
    return f"{line}{doubt}."


def sentence(each: HistoryCapacity, unit: str) -> str:
    """`between 41 (holds) and 46 (breaks) users, best estimate 43`."""
    answer = each.answer
    sure = f"{format_percent(answer.confidence)} confidence"
    if answer.best is None:
        if answer.holds == 0:
            return f"No load was found that holds the SLO ({sure})."
        held = f"At least {_load(answer.holds)} {unit_words(unit)} hold the SLO ({sure})"
        return f"{held}; no load was found that breaks it."
    by = f", limited by {answer.limited_by}" if answer.limited_by else ""
    lower = f"{_load(answer.holds)} (holds)" if answer.holds else "0 (nothing is sure to hold)"
    words = f"{unit_words(unit)}, best estimate {_load(answer.best)} ({sure}){by}"
    if answer.breaks is None:
        return f"At least {lower} {words}; no load was found that surely breaks it."
    return f"Between {lower} and {_load(answer.breaks)} (breaks) {words}."


def level_line(outcome: Outcome, unit: str) -> str:
    """The outcome of a level, while the search runs."""
    load = load_of(outcome.load, unit)
    if outcome.came is not None:
        load = f"{load} asked for, {_load(outcome.came)} came"
    return f"{load}: {_share(outcome)}, {_word(outcome)}"


def chance_came(report: CapacityReport) -> bool:
    """Whether chance made the loads of levels other than they were asked for, as at a rate."""
    return any(outcome.came is not None for each in report.histories for outcome in each.search.told)


def level_table(each: HistoryCapacity, unit: str) -> Table:
    """A row for each level, in the order measured; with the rate that came where chance says when requests come."""
    chance = any(outcome.came is not None for outcome in each.search.told)
    name = unit_words(unit).capitalize()
    loads = (f"{name} asked for", "Came") if chance else (name,)
    columns = (*loads, "Within the bound", "95 % interval", "Needed", "Decision", "Seconds", "From")
    rows = []
    for outcome in each.search.told:
        nearest = outcome.attainment
        known = nearest is not None
        low, high = nearest.interval if nearest else (0.0, 1.0)
        rows.append(
            (
                _load(outcome.load),
                *((_load(outcome.offered),) if chance else ()),
                format_percent(nearest.share) if nearest else "–",
                f"{format_percent(_shown(low))} to {format_percent(high)}" if known else "–",
                f"{format_percent(nearest.needed)} ({nearest.bound.name})" if nearest else "–",
                _word(outcome),
                format_number(outcome.seconds),
                outcome.approach,
            )
        )
    return Table(columns, tuple(rows), frozenset({*range(len(loads) + 2), len(columns) - 2}))


def surface_table(report: CapacityReport) -> Table | None:
    """A row for each history and load; what lies between measured cells is marked."""
    surface = report.surface
    columns = ("History", unit_words(report.unit).capitalize(), "TTFT p95", "ITL p95", "Waiting", "Tokens/s", "Binds")
    rows = []
    for history in surface.histories:
        for load in surface.loads:
            cell = surface.at(history, load)
            if cell.figures is None:
                continue
            mark = "" if cell.measured else "~"
            found = cell.figures
            rows.append(
                (
                    "as asked" if history is None else format_count(history),
                    f"{mark}{_load(load)}",
                    f"{mark}{format_duration(found.ttft_p95)}",
                    f"{mark}{format_duration(found.itl_p95)}",
                    f"{mark}{format_number(found.waiting)}",
                    f"{mark}{format_number(found.output_tokens_per_second)}",
                    found.binds.resource or "–",
                )
            )
    return Table(columns, tuple(rows), frozenset(range(1, 6))) if rows else None


def people_lines(report: CapacityReport, flow: Flow) -> list[str]:
    """Who is behind the load."""
    found, ends, habits = report.people, report.people_range, report.habits
    at_once = f"{format_number(flow.by_little)} answers at once by Little's law, {format_number(flow.at_once)} counted"
    where = f"With {history_words(report)} of history, at" if len(report.histories) > 1 else "At"
    lines = [
        f"{where} {load_of(flow.load, report.unit)} {format_number(flow.requests_per_second)} requests/s were "
        f"answered in {format_duration(flow.answer_seconds)} on average: {at_once}."
    ]
    if not flow.adds_up:
        return [*lines, f"How many people that serves, and at what cost, is not known: {report.no_people}."]
    if abs(flow.by_little - flow.at_once) > LITTLE_OFF * max(flow.at_once, 1.0):
        lines.append("Note: the two differ, as where a level is short beside an answer; a longer --level tells more.")
    if found is None or ends is None:
        return [*lines, f"How many people that serves is not known: {report.no_people}."]
    low, best, high = ends
    about = best if best is not None else low
    upper = "" if high is None else f" ({format_count(round(low))} to {format_count(round(high))})"
    turns, sessions = _many(habits.turns or 1, "turn"), _many(habits.sessions_per_hour or 1, "session")
    lines.append(
        f"With {format_duration(habits.think)} think time, {turns} a session and {sessions} an hour: about "
        f"{format_count(round(about))} people in the busy hour{upper}, {format_number(found.talking)} of them in a "
        "conversation at once."
    )
    return lines


def history_words(report: CapacityReport) -> str:
    """Of which history people and cost are told: the first."""
    return "as asked" if report.first.history is None else plural(report.first.history, "token")


def _many(number: float, word: str) -> str:
    return f"{number:g} {word}{'' if number == 1 else 's'}"


def _share(outcome: Outcome) -> str:
    nearest = outcome.attainment
    if nearest is None:
        return "no figure"
    return f"{format_percent(nearest.share)} within {nearest.bound.name} ({format_percent(nearest.needed)} needed)"


def _word(outcome: Outcome) -> str:
    extra = [name for name, has in (("over-saturated", outcome.saturated), ("drifts", outcome.drifts)) if has]
    if outcome.outage:
        extra.append(f"the service was away for {format_duration(outcome.outage)}")
    if outcome.main_failure is not None:
        extra.append(f"{format_percent(outcome.failed)} of the requests failed (mostly {outcome.main_failure})")
    return ", ".join([_WORDS[outcome.decision], *extra])


def _shown(share: float) -> float:
    """0 where it is next to nothing."""
    return 0.0 if share < 1e-4 else share


def load_of(load: float, unit: str) -> str:
    """`41 users`, `1 chat`, `2.35 requests/s`."""
    words = unit_words(unit)
    return f"{_load(load)} {words.removesuffix('s') if load == 1 and unit not in RATES else words}"


def _load(load: float) -> str:
    return format_count(load) if load == int(load) else f"{load:.3g}"
