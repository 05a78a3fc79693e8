"""How the figures were made, one statement each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.measure.client import Floor
from harness.report.document import Bullets, Section
from harness.report.words import load
from harness.stats.level_stats import LevelStats
from harness.stats.summary import Summary
from harness.units import format_count, format_duration, format_number, format_percent


def section(summary: Summary) -> Section | None:
    """What the definitions of docs/metrics.md come to in this run."""
    return Section("Method", (Bullets(tuple(_statements(summary))),), detail=True)


def _statements(summary: Summary) -> list[str]:
    total = summary.total
    return [
        "TTFT and end-to-end latency count from the moment a request was due, service TTFT from when it was sent. In a "
        "closed loop the two are the same.",
        f"ITL is every single gap between token events, pooled over requests; {_tokens_per_event(total)} "
        "TPOT is (last token − first token) / (tokens after the first event), per request.",
        *_counting(total),
        *_out_of_step(summary.levels),
        *_moved(summary),
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


def _tokens_per_event(level: LevelStats) -> str:
    held = level.tokens_per_event
    if math.isnan(held) and level.events:
        return "how many tokens an event holds is not told."
    if math.isnan(held) or held == 1.0:
        return "an event with several tokens is one gap."
    return f"an event held {format_number(held)} tokens on average and is one gap."


def _counting(level: LevelStats) -> list[str]:
    """Where the server told the tokens of an answer but not of its events."""
    if not level.divided:
        return []
    answers = f"{format_count(level.divided)} of {format_count(level.figures['e2e'].n)} answers"
    return [
        f"Of {answers} the server told the tokens of the whole, not of each event: the first event is given its share "
        "of the text, the others the rest in equal parts."
    ]


def _out_of_step(levels: Sequence[LevelStats]) -> list[str]:
    """How users of a closed loop were kept from asking all together."""
    spread = [f"{load(each)} {format_duration(each.spread)}" for each in levels if each.spread is not None]
    jitter = next((each.jitter for each in levels if each.jitter is not None), None)
    said = [f"Users began spread over the time of an answer ({', '.join(spread)})."] if spread else []
    if jitter is not None:
        share = format_percent(jitter)
        said.append(f"Before it asked again a user paused at random, {share} of its answer's time on average.")
    return [" ".join(said)] if said else []


def _moved(summary: Summary) -> list[str]:
    """Turns of a trace that could not be sent at their own moments, level by level."""
    names = {each.level: load(each) for each in summary.levels}
    return [
        f"Turns of the trace that waited for the answer before ({names[each.level]}): "
        f"{format_count(each.moved_turns)}, sent {format_duration(each.moved_mean)} later than recorded on average, "
        f"{format_duration(each.moved_max)} at most, with the pauses that the trace tells. "
        "Their latencies count from then."
        for each in summary.manifest.levels
        if each.level in names and each.moved_turns and each.moved_mean is not None and each.moved_max is not None
    ]


def _windows(levels: Sequence[LevelStats]) -> list[str]:
    """Where the metrics were taken: the spans, and the rule once where it is the same for all."""
    spans = [f"{load(each)}: {_span(each)}" if len(levels) > 1 else _span(each) for each in levels]
    rules = dict.fromkeys(each.window_rule for each in levels)
    if len(rules) == 1:
        return [f"Metrics cover the requests due in a window: {'; '.join(spans)}. {_sentence(next(iter(rules)))}"]
    return [
        f"Metrics cover the requests due in a window. {span}. {_sentence(each.window_rule)}"
        for span, each in zip(spans, levels, strict=True)
    ]


def _span(level: LevelStats) -> str:
    start, end = level.window
    due = f"{format_count(level.due)} request{'' if level.due == 1 else 's'}"
    return f"{format_number(start)} s to {format_number(end)} s of the run, {due}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _left_out(level: LevelStats) -> str:
    gaps = [f"{each.metric.label} {format_count(each.left_out)}" for each in level.figures.values() if each.left_out]
    return (
        f"of these, without a defined value and left out: {', '.join(gaps)}." if gaps else "all of them have a value."
    )


def _glued(level: LevelStats) -> str:
    share = format_percent(level.glued_events / level.events) if level.events else "0 %"
    count = format_count(level.glued_events)
    return f"{count} of {format_count(level.events)} token events ({share}) arrived together with an earlier one."


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
