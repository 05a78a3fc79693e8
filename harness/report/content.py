"""What a report says, independent of how it is shown: sentences and tables, made of a Summary's figures.

Nothing is computed here; figures are only chosen, named and given their units.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from harness.measure.client import Floor
from harness.stats.conversations import ENDS, TtftOf
from harness.stats.evidence import Reason
from harness.stats.figure import Figure
from harness.stats.section import Section
from harness.stats.server import NOTHING_TOLD
from harness.stats.summary import Summary, workload_name
from harness.units import format_count, format_duration, format_number, format_percent

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """Rows of texts under named columns. numbers: the columns that are figures, to be set flush right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Notice:
    """Something to know before any figure. kind: `bad`, `care` or `note`."""

    kind: str
    text: str
    reasons: tuple[Reason, ...] = ()


def title(summary: Summary) -> str:
    """Whether it was emulated, what was served, on what, and what was asked."""
    manifest = summary.manifest
    card = f" on {manifest.gpus} x {manifest.gpu}" if manifest.gpus > 1 else f" on {manifest.gpu}"
    what = f"{manifest.model}{card if manifest.gpu else ''}, {workload_name(manifest)}"
    return f"Emulated run: {what}" if manifest.emulated else what


def verdict(summary: Summary) -> str:
    """One word, or two."""
    if not summary.complete:
        return "incomplete"
    return "valid" if summary.valid else "invalid"


def notices(summary: Summary) -> list[Notice]:
    """What stands at the top of every report, worst first."""
    found = []
    if not summary.complete:
        text = "Incomplete: the figures cover what was recorded before the run ended. Do not quote them."
        found.append(Notice("bad", text, summary.total.reasons))
    elif not summary.valid:
        found.append(Notice("bad", "Invalid: do not quote these figures. Why, and what to do:", summary.total.reasons))
    if summary.manifest.emulated:
        text = "Emulated: the engine was a simulation in real time. These figures show the harness, not a GPU."
        found.append(Notice("note", text))
    if summary.total.warnings:
        found.append(Notice("care", "To read with care:", summary.total.warnings))
    return found


def answer(summary: Summary) -> str:
    """The sentence that the run was made for."""
    capacity, slo = summary.capacity, summary.total.attainment.slo
    if not slo.bounds:
        return "No SLO was set, so no capacity is given. Set one with --slo or in models.yaml."
    if capacity.unit is None:
        holds, unjudged = summary.total.attainment.holds, _unjudged(summary.total)
        if holds is None and unjudged:
            return f"The SLO ({slo}) cannot be judged: {unjudged}."
        if holds is not None and summary.total.decision == "undecided":
            return f"Whether the SLO holds is not decided ({slo}): {shares(summary.total)}."
        words = {True: "The SLO held", False: "The SLO did not hold", None: "Nothing can be said of the SLO"}
        return f"{words[holds]}: {slo}."
    above = capacity.above
    if capacity.highest is None:
        assert above is not None
        if above.attainment.holds:
            return f"Nothing can be said of the SLO ({slo}) at {load(above)}: {why_not(above)}."
        return f"Not even {load(above)} held the SLO ({slo}): {why_not(above)}."
    held = capacity.highest
    text = f"{load(held)} held the SLO ({slo})"
    if held.decision == "undecided":
        text = f"Whether the SLO ({slo}) holds at {load(held)} is not decided: {shares(held)}"
    if held.attainment.judged:
        text += f"; {format_percent(held.attainment.fraction)} of the requests met all of it"
    if above is None:
        return f"{text}, the most that was tried."
    word = "cannot be judged" if above.attainment.holds else "did not"
    return f"{text}; {load(above)} {word}: {why_not(above)}."


def shares(section: Section) -> str:
    """`96.8 % within ttft_p95 (92.1 % to 99.0 %, 95.0 % needed)` of every bound that is not decided."""
    open_ones = [each for each in section.shares if each.decision == "undecided"]
    return ", ".join(
        f"{format_percent(each.share)} within {each.bound.name} ({format_percent(each.interval[0])} to "
        f"{format_percent(each.interval[1])}, {format_percent(each.needed)} needed)"
        for each in open_ones
    )


def why_not(section: Section) -> str:
    """Which bounds broke, or why the level does not stand."""
    broken = [each for each in section.attainment.bounds if each.holds is False]
    measured = [f"{each.bound.name} was {format_duration(each.found)}" for each in broken if each.found < float("inf")]
    lost = [each.bound.name for each in broken if each.found == float("inf")]
    if lost:
        measured.append(f"too many requests failed for {' and '.join(lost)} to hold")
    if measured:
        return ", ".join(measured)
    return "; ".join(reason.found for reason in section.reasons) or _unjudged(section)


def _unjudged(section: Section) -> str:
    """Which bounds cannot be judged, and why; empty where all can."""
    causes: dict[str, list[str]] = {}
    for each in section.attainment.bounds:
        if each.cause is not None:
            causes.setdefault(each.cause.text, []).append(each.bound.name)
    return "; ".join(f"{text} ({', '.join(names)})" for text, names in causes.items())


def remarks(summary: Summary) -> list[str]:
    """What whoever reads only the terminal must know of how answers came and were counted."""
    return [f"{each.found}. {each.advice}" for each in summary.total.warnings if each.rule in _SAID]


_SAID = ("not_told", "invisible", "cut_after_end", "uncounted", "unjudged")


def load(section: Section) -> str:
    """`4 users`, `2.5 requests/s`, `the trace`."""
    if section.users is not None:
        return "1 user" if section.users == 1 else f"{format_count(section.users)} users"
    if section.offered_rate is not None:
        what = "requests" if section.conversations is None else "conversations"
        return f"{format_number(section.offered_rate)} {what}/s"
    return "all levels"


def level_table(summary: Summary) -> Table:
    """One row per level: what was asked, what came of it."""
    columns = (
        "Load", "Requests", "Failed", "TTFT p50", "TTFT p95", "ITL p50", "ITL p95", "End-to-end p95",
        "Output tokens/s", "Requests/s", "Within SLO", "SLO", "Verdict",
    )  # fmt: skip
    rows = tuple(_level_row(section) for section in summary.levels)
    return Table(columns, rows, frozenset(range(1, 11)))


def _level_row(section: Section) -> tuple[str, ...]:
    figures = section.figures
    return (
        load(section),
        format_count(section.requests.sent + section.requests.dropped),
        format_count(section.requests.failed + section.requests.dropped),
        value(figures["ttft"], "p50"),
        with_interval(figures["ttft"], "p95"),
        value(figures["itl"], "p50"),
        with_interval(figures["itl"], "p95"),
        with_interval(figures["e2e"], "p95"),
        rate(section, section.throughput.output_tokens),
        format_number(section.throughput.requests),
        _within_slo(section),
        _slo_word(section),
        "valid" if section.valid else "invalid: " + ", ".join(dict.fromkeys(each.rule for each in section.reasons)),
    )


def rate(section: Section, tokens: float) -> str:
    """Tokens per second; `not told` where the server told no counts."""
    return "not told" if math.isnan(tokens) and section.seconds else format_number(tokens)


def _within_slo(section: Section) -> str:
    if not section.attainment.bounds:
        return NOTHING
    return format_percent(section.attainment.fraction) if section.attainment.judged else "cannot be judged"


def _slo_word(section: Section) -> str:
    if section.attainment.holds is None:
        return "cannot be judged" if _unjudged(section) else NOTHING
    return {"holds": "holds", "breaks": "broken", "undecided": "not decided"}[section.decision]


def value(figure: Figure, statistic: str) -> str:
    """A duration; where there is none, why, in a word."""
    return figure.absent.word if figure.absent is not None else format_duration(figure.value(statistic))


def metric_table(section: Section) -> Table:
    """Every metric of one level with quantiles and intervals."""
    columns = ("Metric", "Samples", "Left out", "Mean", "p50", "p90", "p95", "p99", "Max")
    rows = []
    for figure in section.figures.values():
        quantiles = [
            with_interval(figure, name) if name in figure.ci95 else value(figure, name) for name in figure.quantiles
        ]
        counts = (format_count(figure.n), format_count(figure.left_out))
        rows.append((figure.metric.label, *counts, value(figure, "mean"), *quantiles, value(figure, "max")))
    return Table(columns, tuple(rows), frozenset(range(1, 9)))


def with_interval(figure: Figure, statistic: str) -> str:
    """`812 ms (790–840)`: the quantile and its 95 % interval, `≥` where the data gives it no upper end."""
    if figure.n == 0:
        return NOTHING if figure.absent is None else figure.absent.word
    found, (low, high) = figure.value(statistic), figure.ci95[statistic]
    if math.isinf(high):
        return f"{format_duration(found)} ({_short(low, found)} or more)"
    return f"{format_duration(found)} ({_short(low, found)}–{_short(high, found)})"


def request_table(summary: Summary) -> Table:
    """What became of every request that was due."""
    columns = ("Load", "Due", "Completed", "Failed", "Dropped", "In flight at end", "Errors")
    sections = [*summary.levels, *([summary.total] if len(summary.levels) > 1 else [])]
    rows = tuple(_request_row(section) for section in sections)
    return Table(columns, rows, frozenset(range(1, 6)))


def message_table(summary: Summary) -> Table | None:
    """What the service itself said of its errors; None where it said nothing."""
    messages = summary.total.messages
    if not messages:
        return None
    rows = tuple(
        (each.kind, "" if each.http_status is None else str(each.http_status), format_count(each.count), each.message)
        for each in messages
    )
    return Table(("Error", "HTTP", "Requests", "What the service said"), rows, frozenset((1, 2)))


def _request_row(section: Section) -> tuple[str, ...]:
    counts = section.requests
    kinds = ", ".join(f"{kind}: {format_count(count)}" for kind, count in section.errors.items())
    numbers = (counts.sent + counts.dropped, counts.completed, counts.failed, counts.dropped, counts.in_flight_at_end)
    return (load(section), *(format_count(number) for number in numbers), kinds or "none")


def conversation_table(summary: Summary) -> Table | None:
    """How the conversations of each level ended; None where requests stood alone."""
    levels = [(load(each), each.conversations) for each in summary.levels if each.conversations is not None]
    if not levels:
        return None
    columns = ("Load", "Conversations", "Carried to their end", "History no longer fitted", "Failed", "Cut by the end")
    rows = tuple(
        (name, format_count(told.begun), *(format_count(told.ended[end]) for end in ENDS)) for name, told in levels
    )
    return Table(columns, rows, frozenset(range(1, 6)))


def growth_tables(summary: Summary) -> list[Table]:
    """TTFT by turn, and by the length of the history, of each level that has conversations."""
    levels = [(load(each), each.conversations) for each in summary.levels if each.conversations is not None]
    tables = []
    for what, of in (("Turn", "by_turn"), ("History, tokens", "by_history")):
        rows = tuple(
            (name, _span_of(each), format_count(each.n), format_duration(each.p50), format_duration(each.p95))
            for name, told in levels
            for each in getattr(told, of)
        )
        tables += (
            [Table(("Load", what, "Requests", "TTFT p50", "TTFT p95"), rows, frozenset(range(1, 5)))] if rows else []
        )
    return tables


def _span_of(each: TtftOf) -> str:
    return format_count(each.low) if each.low == each.high else f"{format_count(each.low)}–{format_count(each.high)}"


def engine_table(summary: Summary) -> Table | None:
    """What the engine said of itself, per level; None where it told nothing."""
    levels = [each for each in summary.levels if each.server != NOTHING_TOLD]
    if not levels:
        return None
    columns = (
        "Load",
        "Running at most",
        "Waiting at most",
        "KV cache used at most",
        "Chats put back",
        "Prompt tokens from cache",
    )
    rows = tuple(_engine_row(each) for each in levels)
    return Table(columns, rows, frozenset(range(1, 6)))


def _engine_row(section: Section) -> tuple[str, ...]:
    told = section.server
    counts = (told.running, told.waiting)
    shares = (told.kv_used, told.cache_share)
    kv_used, cache = (NOTHING if share is None else format_percent(share) for share in shares)
    running, waiting = (NOTHING if count is None else format_count(count) for count in counts)
    back = NOTHING if told.preempted is None else format_count(told.preempted)
    return (load(section), running, waiting, kv_used, back, cache)


def reason_table(reasons: Sequence[Reason], summary: Summary) -> Table:
    """One row per reason, with the load that it is about where there are several."""
    loads = {section.level: load(section) for section in summary.levels}
    columns = ("Found", "Limit", "What to do", "Rule")
    rows = []
    for reason in reasons:
        where = "" if reason.level is None else f"{loads[reason.level]}: "
        rows.append((where + reason.found, reason.limit, reason.advice, reason.rule))
    return Table(columns, tuple(rows))


def method(summary: Summary) -> list[str]:
    """How the figures were made, one statement each."""
    total = summary.total
    return [
        "TTFT and end-to-end latency count from the moment a request was due, service TTFT from when it was sent. In a "
        "closed loop the two are the same.",
        f"ITL is every single gap between token events, pooled over requests; {_tokens_per_event(total)} "
        "TPOT is (last token − first token) / (tokens after the first event), per request.",
        *_counting(total),
        *_out_of_step(summary.levels),
        "Quantiles are interpolated linearly between order statistics (type 7 of Hyndman and Fan). Intervals in "
        "brackets hold the true quantile with 95 % confidence; they are taken between blocks of consecutive requests, "
        "as requests close in time are not independent.",
        *_windows(summary.levels),
        f"Metrics cover completed requests; {_left_out(total)} Failed and dropped requests meet no SLO and count among "
        "those due.",
        "A request meets a bound on ITL when that quantile of its own gaps does; the bound itself is held against the "
        "gaps of all requests together, so that the two shares differ.",
        _glued(total),
        _client(summary),
    ]


def _tokens_per_event(section: Section) -> str:
    held = section.tokens_per_event
    if math.isnan(held) and section.events:
        return "how many tokens an event holds is not told."
    if math.isnan(held) or held == 1.0:
        return "an event with several tokens is one gap."
    return f"an event held {format_number(held)} tokens on average and is one gap."


def _counting(section: Section) -> list[str]:
    """Where the server told the tokens of an answer but not of its events."""
    if not section.divided:
        return []
    answers = f"{format_count(section.divided)} of {format_count(section.figures['e2e'].n)} answers"
    return [
        f"Of {answers} the server told the tokens of the whole, not of each event: the first event is given its share "
        "of the text, the others the rest in equal parts."
    ]


def _out_of_step(levels: Sequence[Section]) -> list[str]:
    """How users of a closed loop were kept from asking all together."""
    spread = [f"{load(each)} {format_duration(each.spread)}" for each in levels if each.spread is not None]
    jitter = next((each.jitter for each in levels if each.jitter is not None), None)
    said = [f"Users began spread over the time of an answer ({', '.join(spread)})."] if spread else []
    if jitter is not None:
        share = format_percent(jitter)
        said.append(f"Before it asked again a user paused at random, {share} of its answer's time on average.")
    return [" ".join(said)] if said else []


def _windows(levels: Sequence[Section]) -> list[str]:
    """Where the metrics were taken: the spans, and the rule once where it is the same for all."""
    spans = [f"{load(each)}: {_span(each)}" if len(levels) > 1 else _span(each) for each in levels]
    rules = dict.fromkeys(each.window_rule for each in levels)
    if len(rules) == 1:
        return [f"Metrics cover the requests due in a window: {'; '.join(spans)}. {_sentence(next(iter(rules)))}"]
    return [
        f"Metrics cover the requests due in a window. {span}. {_sentence(each.window_rule)}"
        for span, each in zip(spans, levels, strict=True)
    ]


def _span(section: Section) -> str:
    start, end = section.window
    due = f"{format_count(section.due)} request{'' if section.due == 1 else 's'}"
    return f"{format_number(start)} s to {format_number(end)} s of the run, {due}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _left_out(section: Section) -> str:
    gaps = [f"{each.metric.label} {format_count(each.left_out)}" for each in section.figures.values() if each.left_out]
    return (
        f"of these, without a defined value and left out: {', '.join(gaps)}." if gaps else "all of them have a value."
    )


def _glued(section: Section) -> str:
    share = format_percent(section.glued_events / section.events) if section.events else "0 %"
    count = format_count(section.glued_events)
    return f"{count} of {format_count(section.events)} token events ({share}) arrived together with an earlier one."


def _client(summary: Summary) -> str:
    client = summary.total.client
    parts = [f"{client.processes} load process{'es' if client.processes != 1 else ''}"]
    if client.cpu_fraction_max is not None:
        parts.append(f"at most {format_percent(client.cpu_fraction_max)} of a core each")
    if client.loop_lag_max is not None:
        parts.append(f"event loop at most {format_duration(client.loop_lag_max)} late")
    if client.schedule_lag_p99 is not None:
        parts.append(f"schedule lag p99 {format_duration(client.schedule_lag_p99)}")
    return f"Client: {', '.join(parts)}; {_floor(client.floor)}."


def _floor(floor: Floor | None) -> str:
    if floor is None:
        return "its own error on this machine is not calibrated"
    return (
        f"its own error on this machine (p99, measured against a null engine with up to {format_count(floor.streams)} "
        f"streams) is {format_duration(floor.ttft)} for TTFT and {format_duration(floor.itl)} for ITL"
    )


def facts(summary: Summary) -> list[tuple[str, str]]:
    """What was run where, as names and values; nothing that is not known."""
    manifest = summary.manifest
    pairs = [
        ("Run", manifest.run_id),
        ("Command", shlex.join(manifest.command)),
        ("Start, end (UTC)", f"{manifest.start} – {manifest.end or 'none'}"),
        ("Model", f"{manifest.model}{f' @ {manifest.revision}' if manifest.revision else ''}"),
        ("Engine", manifest.engine + (", emulated" if manifest.emulated else "")),
        ("Runtime", manifest.runtime or ""),
        ("Service", manifest.url or ""),
        ("Image", " ".join(part for part in (manifest.image, manifest.image_digest) if part)),
        ("GPU", f"{manifest.gpus} x {manifest.gpu}" if manifest.gpu else ""),
        ("Driver", manifest.driver or ""),
        ("Engine settings", ", ".join(f"{name}={value}" for name, value in manifest.flags.items())),
        ("Effective limits", ", ".join(f"{name} {format_count(value)}" for name, value in manifest.limits.items())),
        ("Host", ", ".join(f"{name}: {value}" for name, value in manifest.host.items())),
        ("API", f"{manifest.api}, {'streamed' if manifest.stream else 'not streamed'}"),
        ("Workload", ", ".join(f"{name}: {value}" for name, value in manifest.workload.items())),
        ("Data", ", ".join(f"{name}: {value}" for name, value in (manifest.dataset or {}).items())),
        ("Seeds", ", ".join(f"{name}: {value}" for name, value in manifest.seeds.items())),
        ("harness", manifest.harness_version),
    ]
    return [(name, value) for name, value in pairs if value]


def _short(value: float, beside: float) -> str:
    """A duration without its unit where the figure beside it has the same."""
    text, other = format_duration(value), format_duration(beside)
    number, _, unit = text.partition(" ")
    return number if unit == other.partition(" ")[2] else text
