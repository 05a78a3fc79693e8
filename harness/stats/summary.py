"""Summary: the one object that reports see, made from records, manifest and the client's samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from harness.catalog.slo import Slo, slo_from_mapping
from harness.errors import UsageError
from harness.input_files import brief
from harness.measure.client import ClientFacts, Floor
from harness.measure.offered import changes, expected_arrivals
from harness.measure.records import COMPLETED, DROPPED, FAILED, IN_FLIGHT, MISSING, PIECE, Floats, Records
from harness.measure.run_folder import Level, Manifest
from harness.measure.server import ServerSamples
from harness.stats.absence import as_asked, main_cause, whole
from harness.stats.capacity import Capacity, find_capacity
from harness.stats.conversations import conversations
from harness.stats.decision import bound_shares
from harness.stats.evidence import Evidence, Reason
from harness.stats.figure import Figure, figure
from harness.stats.level_stats import ClientFigures, Counts, LevelStats, Throughput
from harness.stats.messages import error_messages
from harness.stats.metrics import METRICS, Values
from harness.stats.money import AS_ASKED, NOTHING_ASKED, PEOPLE, Cost, Money, MoneyQuestion, Price, money, price_of
from harness.stats.people import Habits
from harness.stats.readings import readings
from harness.stats.series import Cdf, curve, timeline
from harness.stats.server import ServerFigures, server_figures
from harness.stats.slo import attain
from harness.stats.telemetry import telemetry
from harness.stats.time_parts import time_parts
from harness.stats.tokens import one_each, stamped, tokens_per_event
from harness.stats.validity import reasons, run_reasons, warnings
from harness.stats.window import Window, steady_window

SCHEMA = 1


@dataclass(frozen=True)
class Summary:
    """A run: who was measured and how (manifest), the levels that began, and all of them together."""

    manifest: Manifest
    total: LevelStats
    levels: tuple[LevelStats, ...]
    floor: Floor | None
    asked: MoneyQuestion = NOTHING_ASKED

    @property
    def price(self) -> Price | None:
        """Of the GPUs that served."""
        manifest = self.manifest
        return price_of(self.asked, manifest.price_per_gpu_hour, manifest.price_source, manifest.gpus)

    def cost(self, level: LevelStats) -> Cost | None:
        """Of the tokens of one level; None where no price is known."""
        flow = level.throughput
        return None if self.price is None else Cost(self.price, flow.input_tokens, flow.output_tokens)

    @cached_property
    def money(self) -> Money:
        """At the highest level that held the SLO."""
        held, habits = self.capacity.highest, self.asked.habits(Habits())
        flow = None if held is None else (held.throughput.input_tokens, held.throughput.output_tokens)
        users: float | None = None if held is None else held.users
        who = AS_ASKED
        if habits.told and held is not None:  # how often one person asks says how many are behind these requests
            users, who = held.throughput.requests * 3600 / habits.questions_per_hour, PEOPLE
        why = "the load was not measured in users: give --turns or --sessions-per-hour"
        return money(self.asked, self.price, self.manifest.gpus, flow, users, habits.utilisation, who, why)

    @property
    def complete(self) -> bool:
        return self.manifest.complete

    @property
    def valid(self) -> bool:
        return self.total.valid

    @cached_property
    def capacity(self) -> Capacity:
        return find_capacity(self.levels)

    @property
    def holds_on_lowest(self) -> bool | None:
        """Whether the SLO holds on the level with the least load; None without an SLO or without levels."""
        lowest = min(self.levels, key=lambda level: level.load or 0.0, default=None)
        return lowest.attainment.holds if lowest else None

    def as_dict(self) -> dict[str, Any]:
        """The document of summary.json."""
        answers = {"capacity": self.capacity.as_dict(), "cost": self.money.as_dict()}
        return {
            **self._document(self.total),
            **answers,
            "levels": self._levels(),
            "readings": [each.as_dict() for each in readings(self.levels)],
        }

    def _levels(self) -> list[dict[str, Any]]:
        return [{"level": each.level, **self._document(each), "ended_by": each.ended_by} for each in self.levels]

    def _document(self, stats: LevelStats) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "run_id": self.manifest.run_id,
            "emulated": self.manifest.emulated,
            "complete": stats.complete,
            "model": self.manifest.model,
            "engine": self.manifest.engine,
            "workload": workload_name(self.manifest),
            **stats.as_dict(),
        }


def workload_name(manifest: Manifest) -> str:
    return str(manifest.workload.get("name", "unnamed"))


def summarise(
    records: Records,
    manifest: Manifest,
    facts: ClientFacts | None = None,
    server: ServerSamples | None = None,
    asked: MoneyQuestion = NOTHING_ASKED,
) -> Summary:
    """What a run amounts to. The order of the records does not matter; levels without a record are left out. server:
    what was read beside the load. asked: what is to be known of money and size.
    """
    told = server or ServerSamples()
    known = facts or ClientFacts()
    ordered = as_asked(records, manifest).sorted()
    levels = [
        level for level in manifest.levels if level.started_at is not None or np.any(ordered.level == level.level)
    ]
    slo = _slo(manifest)
    # One after another, as each part holds all that was computed of its records.
    alone, sorted_parts = len(levels) == 1, _SortedParts()
    stats = tuple(
        _judged(_part(level, ordered), manifest, slo, known, told, None if alone else sorted_parts) for level in levels
    )
    total = stats[0] if alone else _measure(_together(levels, ordered), manifest, slo, known, told, sorted_parts)
    total = replace(
        total,
        level=None,
        complete=manifest.complete,
        reasons=run_reasons(manifest, stats),
        warnings=_run_warnings(stats),
    )
    return Summary(manifest, total, stats, known.floor, asked)


def _slo(manifest: Manifest) -> Slo:
    try:
        return slo_from_mapping(dict(manifest.slo))
    except ValueError as error:
        where = f"manifest.json of {manifest.run_id}"
        raise UsageError(f"not as expected: slo: {brief(error)}", where=where) from error


@dataclass(frozen=True)
class _Part:
    """Records of one level, or of all."""

    levels: tuple[Level, ...]
    records: Records
    inside: Records
    windows: tuple[Window, ...]

    @property
    def window(self) -> tuple[float, float]:
        return (self.windows[0].start, self.windows[-1].end) if self.windows else (0.0, 0.0)

    @property
    def span(self) -> tuple[float, float]:
        """The level with its warm-up, until its last answer: what an engine does in it concerns all of it."""
        if not self.windows:
            return (0.0, 0.0)
        last = self.levels[-1].ended_at or self.windows[-1].end
        return self.windows[0].began, max(last, self.windows[-1].end)

    @property
    def seconds(self) -> float:
        return sum(window.length for window in self.windows)

    def stamped(self, moments: np.ndarray) -> np.ndarray:
        """Which moments lie in a window."""
        return np.logical_or.reduce([window.holds(moments) for window in self.windows]) if self.windows else moments < 0


def _part(level: Level, records: Records) -> _Part:
    own = records.select(records.level == level.level)
    window = steady_window(level, own)
    return _Part((level,), own, own.select(window.holds(own.scheduled_at)), (window,))


def _together(levels: Sequence[Level], records: Records) -> _Part:
    windows, own, inside = [], np.zeros(len(records), dtype=bool), np.zeros(len(records), dtype=bool)
    for level in levels:
        of_level = records.level == level.level
        windows.append(steady_window(level, records.select(of_level)))
        own |= of_level
        inside |= of_level & windows[-1].holds(records.scheduled_at)
    return _Part(tuple(levels), records.select(own), records.select(inside), tuple(windows))


class _SortedParts:
    """Samples of pooled metrics of each level in order, so that those of all levels are merged, not sorted again."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Floats]] = {}

    def sort(self, name: str, values: Values, *, of_all: bool) -> Floats:
        """The samples, ascending. of_all: they are those of all levels together, which no longer need their own."""
        if not of_all:
            self._parts.setdefault(name, []).append(values.ordered)
            return values.ordered
        parts = self._parts.pop(name, [])
        if sum(map(len, parts)) == len(values.samples) > 0:
            merged = np.concatenate(parts)
            merged.sort(kind="stable")  # Timsort, which merges what is in order
            values.keep_ordered(merged)
        return values.ordered


def _judged(
    part: _Part,
    manifest: Manifest,
    slo: Slo,
    facts: ClientFacts,
    server: ServerSamples,
    parts: _SortedParts | None,
) -> LevelStats:
    stats = _measure(part, manifest, slo, facts, server, parts)
    evidence = Evidence(
        manifest=manifest,
        level=part.levels[0],
        window=part.windows[0],
        records=part.records,
        inside=part.inside,
        figures=stats.figures,
        attainment=stats.attainment,
        facts=facts,
        samples=tuple(sample for sample in facts.samples if part.windows[0].start <= sample.at <= part.windows[0].end),
        server=stats.server,
        telemetry=stats.telemetry,
        conversations=stats.conversations,
    )
    return replace(stats, reasons=reasons(evidence), warnings=warnings(evidence))


def _measure(
    part: _Part,
    manifest: Manifest,
    slo: Slo,
    facts: ClientFacts,
    server: ServerSamples,
    parts: _SortedParts | None,
) -> LevelStats:
    completed = part.inside.select(part.inside.having(COMPLETED))
    figures, curves = _figures(completed, parts, of_all=len(part.levels) > 1)
    throughput = _throughput(part)
    return LevelStats(
        level=part.levels[0].level if len(part.levels) == 1 else None,
        offered_rate=_same([_offered(level, part) for level in part.levels]),
        users=_same([level.users for level in part.levels]),
        duration=sum(window.end - window.began for window in part.windows),
        window=part.window,
        window_rule=part.windows[0].rule if len(part.windows) == 1 else "the levels' windows together",
        seconds=part.seconds,
        complete=manifest.complete or all(level.in_order for level in part.levels),
        ended_by=part.levels[0].ended_by if len(part.levels) == 1 else None,
        requests=_count(part.records),
        due=len(part.inside),
        errors=dict(sorted(Counter(kind for kind in part.records.error_kind if kind).items())),
        messages=error_messages(part.records),
        figures=figures,
        curves=curves,
        timeline=timeline(part.records, part.levels[0].level) if len(part.levels) == 1 else (),
        throughput=throughput,
        attainment=attain(part.inside, slo),
        shares=bound_shares(part.inside, slo) if len(part.levels) == 1 else (),
        glued_events=int(part.inside.glued_events.sum()),
        events=int(part.inside.event_counts.sum()),
        tokens_per_event=tokens_per_event(completed.select(~whole(completed))),
        divided=int(np.count_nonzero((completed.count_told == "per_answer") & (completed.event_counts > 1))),
        client=_client(part, manifest, facts),
        server=_server(part, server),
        telemetry=telemetry(server, part.windows, throughput.output_tokens * part.seconds, part.span),
        time_parts=time_parts(part.records, server, *part.span) if len(part.levels) == 1 else None,
        spread=_same([level.spread for level in part.levels]),
        jitter=_same([level.jitter for level in part.levels]),
        conversations=conversations(part.records, part.inside, [level.level for level in part.levels], facts.sessions),
    )


def _figures(
    completed: Records, parts: _SortedParts | None, *, of_all: bool
) -> tuple[dict[str, Figure], dict[str, Cdf]]:
    figures, curves = {}, {}
    for metric in METRICS:
        if metric.name == "itl_per_token" and one_each(completed):
            continue
        values = metric.of(completed)
        if metric.optional and len(values.samples) == 0:
            continue  # most servers do not tell
        ordered = (
            values.ordered if parts is None or not metric.pooled else parts.sort(metric.name, values, of_all=of_all)
        )
        main = None if len(ordered) else main_cause(completed, metric.name)
        figures[metric.name] = figure(metric, values, ordered, main[0] if main else None)
        curves[metric.name] = curve(ordered)
    return figures, curves


def _count(records: Records) -> Counts:
    sent = ~np.isnan(records.sent_at)
    return Counts(
        sent=int(np.count_nonzero(sent)),
        completed=int(np.count_nonzero(records.having(COMPLETED))),
        failed=int(np.count_nonzero(records.having(FAILED))),
        dropped=int(np.count_nonzero(records.having(DROPPED))),
        in_flight_at_end=int(np.count_nonzero(records.having(IN_FLIGHT))),
    )


def _throughput(part: _Part) -> Throughput:
    if part.seconds == 0:
        return Throughput(math.nan, math.nan, math.nan)
    records = part.records
    done = records.having(COMPLETED) & part.stamped(records.finished_at)
    answered = np.flatnonzero(records.event_counts > 0)
    began = answered[part.stamped(records.token_at[records.offsets[:-1][answered]])]
    prompts = records.input_tokens[began]
    told = not len(prompts) or bool((prompts != MISSING).any())
    return Throughput(
        requests=float(np.count_nonzero(done)) / part.seconds,
        input_tokens=float(np.maximum(prompts, 0).sum()) / part.seconds if told else math.nan,
        output_tokens=_generated(part) / part.seconds,
    )


def _generated(part: _Part) -> float:
    """Tokens whose moment lies in a window; NaN where they are not told."""
    moments, tokens = stamped(part.records)
    pieces = range(0, len(moments), PIECE)
    return float(
        sum(tokens[start : start + PIECE][part.stamped(moments[start : start + PIECE])].sum() for start in pieces)
    )


def _server(part: _Part, samples: ServerSamples) -> ServerFigures:
    return server_figures(samples, *part.span) if part.windows else ServerFigures()


def _client(part: _Part, manifest: Manifest, facts: ClientFacts) -> ClientFigures:
    end = max(
        (level.ended_at or window.end for level, window in zip(part.levels, part.windows, strict=True)), default=0
    )
    begin = part.windows[0].began if part.windows else 0
    samples = [sample for sample in facts.samples if begin <= sample.at <= end + 1]
    sent = part.inside.select(~np.isnan(part.inside.sent_at))
    lag = sent.sent_at - sent.scheduled_at
    return ClientFigures(
        processes=manifest.processes,
        cpu_fraction_max=max((sample.cpu_fraction for sample in samples), default=None),
        loop_lag_max=max((sample.loop_lag_max for sample in samples), default=None),
        schedule_lag_p99=float(np.quantile(lag, 0.99)) if len(lag) else None,
        floor=facts.floor,
    )


def _offered(level: Level, part: _Part) -> float | None:
    """The rate asked for; where it changes, its mean in the window; of a trace, that of its requests in the window."""
    if level.rate is not None and changes(level) and len(part.levels) == 1 and part.seconds:
        began = part.windows[0].began
        return expected_arrivals(level, part.window[0] - began, part.window[1] - began) / part.seconds
    if level.users is not None or level.rate is not None:
        return level.rate
    return len(part.inside) / part.seconds if part.seconds and len(part.levels) == 1 else None


def _same(values: Sequence[Any]) -> Any:
    return values[0] if len(set(values)) == 1 else None


def _run_warnings(levels: Sequence[LevelStats]) -> tuple[Reason, ...]:
    """Each warning once, from the first level that it came up on."""
    first: dict[str, Reason] = {}
    for level in levels:
        for reason in level.warnings:
            first.setdefault(reason.rule, reason)
    return tuple(first.values())
