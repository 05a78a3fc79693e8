"""RULES: reasons for which a run is invalid; each a function of one level's evidence, with what to do next.

Any reason takes the level's verdict away. One that speaks of the server (errors, a queue that grows) does not spoil the
lower levels of a sweep: to go beyond what the server holds is what a sweep is for. Warnings leave the verdict alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from harness.measure.arrivals import POISSON
from harness.measure.client import ClientSample
from harness.measure.offered import arrived, changes, expected_arrivals
from harness.measure.records import COMPLETED, DROPPED, FAILED, IN_FLIGHT, MISSING, Floats, Records
from harness.measure.run_folder import Manifest
from harness.stats.absence import Cause, whole
from harness.stats.answers import cut_after_end, invisible, mostly, not_streamed, not_told, one_piece, uncounted
from harness.stats.evidence import Evidence, Reason
from harness.stats.level_stats import LevelStats
from harness.stats.machine import busy_machine, gpu_slowed, why_late
from harness.stats.metrics import BY_NAME, ttft
from harness.stats.quantile import quantile
from harness.stats.slo import QUANTILES
from harness.stats.steadiness import backlog_growth, enough_for, growth_limit, longest_silence, rank_sum, stall_limit
from harness.stats.trend import RATIO, trends
from harness.units import format_count, format_duration, format_number, format_percent

CPU_MOST = 0.9  # of a core: beyond, an event loop has no reserve left for a burst
LOOP_LAG_MOST = 0.1  # seconds
SAMPLES_BEYOND = 0.05  # share of a client's samples that may lie beyond a limit: one in twenty is a hiccup
# A wrong value moves a quantile by at most its share in rank: a quarter of what lies beyond p99 leaves that a p99.
LATE_MOST = 0.0025
LAG_LEAST, LAG_SHARE = 0.010, 0.05  # schedule lag at p99: 10 ms, or this share of the median TTFT
DROPPED_MOST, ERRORS_MOST, OPEN_MOST = 0.01, 0.01, 0.01
RATE_OFF, RATE_SIGMAS = 0.05, 4.0
WARMUP_RATIO, WARMUP_SIGMAS, WARMUP_LEAST = 1.25, 4.0, 8
LENGTH_OFF, LENGTH_TOKENS = 0.10, 32.0
GLUED_MOST = 0.10
FROM_CACHE_MOST = 0.02  # of the prompt tokens; what begins every prompt, such as a template, comes to less
CUT_MOST = 0.25  # of the conversations of a level
REQUESTS_LEAST = 10  # behind a metric of gaps: those of one request are alike


Rule = Callable[[Evidence], Iterator[Reason]]


def incomplete(evidence: Evidence) -> Iterator[Reason]:
    """The level was cut off: what is missing may differ from what is there. One that had ended in order before is not
    touched by the outcome of the run.
    """
    if not evidence.manifest.complete and not evidence.level.in_order and evidence.level.ended_by != "service_gone":
        yield _incomplete(evidence.manifest)


def _incomplete(manifest: Manifest) -> Reason:
    found = "the run was interrupted" if manifest.interrupted else "the run has no end: it was killed or still runs"
    if any(level.ended_by == "service_gone" for level in manifest.levels):
        found = "the service went away before the plan was done"
    return Reason("incomplete", found, "a run that was carried out to its end", "Run it again.")


def nothing_measured(evidence: Evidence) -> Iterator[Reason]:
    """No request completed in the window."""
    if evidence.figures["e2e"].n == 0:
        advice = "See the errors; lengthen --duration or shorten --warmup if requests only need longer than the window."
        yield Reason("nothing_measured", "0 completed requests in the window", "at least 1", advice)


def client_cpu(evidence: Evidence) -> Iterator[Reason]:
    """A load process that has no CPU left reads and sends late."""
    busy = [sample.cpu_fraction for sample in evidence.samples]
    if _too_often(busy, CPU_MOST):
        found = f"a load process used up to {format_percent(max(busy))} of a core"
        advice = "Raise --processes, or move the client to a machine of its own."
        yield Reason("client_cpu", found, f"{format_percent(CPU_MOST)} of a core", advice, "client")


def client_loop_lag(evidence: Evidence) -> Iterator[Reason]:
    """An event loop that is late cannot send at the planned moment."""
    lags = [sample.loop_lag_max for sample in evidence.samples]
    if _too_often(lags, LOOP_LAG_MOST):
        found = f"the client's event loop was up to {format_duration(max(lags))} late"
        otherwise = "Raise --processes, or stop what else uses this machine's cores."
        advice = why_late(evidence, CPU_MOST, otherwise)
        yield Reason("client_loop_lag", found, format_duration(LOOP_LAG_MOST), advice, "client")


def late_events(evidence: Evidence) -> Iterator[Reason]:
    """Token events whose moment was noted too late blur TTFT and ITL."""
    otherwise = "Raise --processes or lower the load: the client could not read as fast as the server wrote."
    advice = why_late(evidence, CPU_MOST, otherwise)
    names = ("late_events", "events", "late_answers", "answers")
    late, events, late_first, answers = (sum(getattr(each, name) for each in evidence.samples) for name in names)
    if events and late / events > LATE_MOST:
        found = f"{format_percent(late / events)} of the token events were read late"
        yield Reason("late_events", found, format_percent(LATE_MOST), advice, "client")
    elif late_first > 1 and late_first / answers > LATE_MOST:
        found = f"{format_percent(late_first / answers)} of the first tokens were read late"
        yield Reason("late_events", found, format_percent(LATE_MOST), advice, "client")


def schedule_lag(evidence: Evidence) -> Iterator[Reason]:
    """Requests that leave late were not the load that was asked for."""
    if not evidence.open_loop or evidence.figures["schedule_lag"].n == 0:
        return
    lag = evidence.figures["schedule_lag"].quantiles["p99"]
    wait = evidence.figures["ttft"].quantiles["p50"]
    limit = max(LAG_LEAST, 0.0 if math.isnan(wait) else LAG_SHARE * wait)
    if lag > limit:
        otherwise = "Raise --processes, or lower the rate to what this client can send on time."
        advice = why_late(evidence, CPU_MOST, otherwise)
        found = f"p99 of the schedule lag is {format_duration(lag)}"
        yield Reason("schedule_lag", found, format_duration(limit), advice, "client")


def lost_process(evidence: Evidence) -> Iterator[Reason]:
    """A load process that died took its share of the load with it."""
    if evidence.facts.lost_processes:
        found = f"lost: {', '.join(evidence.facts.lost_processes)}"
        advice = "See the client's log; run it again."
        yield Reason("lost_process", found, "every load process lives to the end", advice, "client")


def dropped(evidence: Evidence) -> Iterator[Reason]:
    """Requests that were due and could not be sent."""
    count = int(np.count_nonzero(evidence.inside.having(DROPPED)))
    if count > DROPPED_MOST * len(evidence.inside):
        found = f"{format_count(count)} of {format_count(len(evidence.inside))} requests due were dropped"
        advice = "Raise the limit of open files (ulimit -n) or --processes, or lower the rate."
        yield Reason("dropped", found, format_percent(DROPPED_MOST), advice, "client")


def sent_rate(evidence: Evidence) -> Iterator[Reason]:
    """The rate that was really sent against the one asked for, with room for the arrival process's own spread."""
    rate, length = evidence.level.rate, evidence.window.length
    if rate is None or length == 0:
        return
    sent = int(np.count_nonzero(arrived(evidence.inside) & ~np.isnan(evidence.inside.sent_at)))
    began = evidence.window.began
    expected = expected_arrivals(evidence.level, evidence.window.start - began, evidence.window.end - began)
    variance = expected / (evidence.level.arrival or POISSON).regularity
    room = max(RATE_OFF * expected, RATE_SIGMAS * math.sqrt(variance), 2.0)
    if abs(sent - expected) > room:
        found = f"{format_number(sent / length)} requests per second sent"
        limit = f"{format_number(expected / length)} asked, within {format_percent(room / expected)}"
        advice = "See whether the level ended early or requests were dropped; then raise --processes or lower the rate."
        yield Reason("sent_rate", found, limit, advice, "client")


def oversaturated(evidence: Evidence) -> Iterator[Reason]:
    """Beyond capacity an open loop's queue grows for as long as the load lasts: no figure is the server's own then."""
    if evidence.level.ended_by == "oversaturated":
        yield _oversaturated("the level was ended early because the queue kept growing", 0.0)
        return
    if not evidence.open_loop or len(evidence.inside) < 20:
        return
    growth = backlog_growth(evidence.records, evidence.window)
    limit = growth_limit(len(evidence.inside), changes(evidence.level))
    if growth > limit:
        yield _oversaturated(
            f"in the window's second half at least {format_count(round(growth))} more requests waited for their first "
            "token than at its begin",
            limit,
        )


def stalled(evidence: Evidence) -> Iterator[Reason]:
    """Requests wait and nobody gets a token."""
    if not evidence.manifest.stream or mostly(whole(evidence.records)):
        return  # an answer that comes whole is silent until its end
    wait = evidence.figures["ttft"].quantiles["p50"]
    limit = stall_limit(wait)
    longest = longest_silence(evidence.records, evidence.level.ended_at)
    if evidence.level.ended_by == "stalled" or longest > limit:
        found = f"no token to anyone for {format_duration(longest)} while requests were waiting"
        advice = "Look at the engine's log; TGI can stop for good with /health still answering 200. Restart it."
        yield Reason("stalled", found, format_duration(limit), advice, "server")


def service_gone(evidence: Evidence) -> Iterator[Reason]:
    """The service went away during the level."""
    if evidence.level.ended_by == "service_gone":
        advice = "Look at the engine's log for the cause, such as running out of memory."
        yield Reason("service_gone", "the service went away", "it answers to the end", advice, "server")


def errors(evidence: Evidence) -> Iterator[Reason]:
    """Failures take load off the server and make the rest look faster."""
    failed = evidence.inside.having(FAILED) & ~no_longer_fitted(evidence.inside)
    count, sent = int(np.count_nonzero(failed)), int(np.count_nonzero(~np.isnan(evidence.inside.sent_at)))
    if count > ERRORS_MOST * sent:
        kinds = sorted({str(kind) for kind in evidence.inside.error_kind[failed]})
        told = [f"{kind} {_statuses(evidence.inside.select(failed))}" if kind == "http" else kind for kind in kinds]
        # The window may be shorter than the level, of which more were sent.
        where = " due in the window" if sent < int(np.count_nonzero(~np.isnan(evidence.records.sent_at))) else ""
        found = f"{format_count(count)} of {format_count(sent)} requests{where} failed ({', '.join(told)})"
        advice = _ERROR_ADVICE.get(kinds[0] if len(kinds) == 1 else "", "See `errors` and the engine's log.")
        yield Reason("errors", found, format_percent(ERRORS_MOST), advice, "server")


def no_longer_fitted(records: Records) -> NDArray[np.bool_]:
    """Later turns of conversations that the server refused as too long: the end of these in order, and counted there
    (`history_full`), where the server does not tell beforehand what it takes.
    """
    return (records.error_kind == "validation") & (records.turn > 1) & (records.history_tokens > 0)


def _statuses(failures: Records) -> str:
    """The HTTP statuses behind the kind `http`, which is no more than that."""
    return " and ".join(str(each) for each in sorted({*failures.http_status[failures.error_kind == "http"].tolist()}))


def unfinished(evidence: Evidence) -> Iterator[Reason]:
    """Requests without an outcome are the slow ones: to leave them out flatters the rest."""
    count = int(np.count_nonzero(evidence.inside.having(IN_FLIGHT)))
    if count > OPEN_MOST * len(evidence.inside):
        found = f"{format_count(count)} of {format_count(len(evidence.inside))} requests had no outcome at the end"
        advice = "Let the run wait for the last answers, or raise --timeout."
        yield Reason("unfinished", found, format_percent(OPEN_MOST), advice)


def too_few(evidence: Evidence) -> Iterator[Reason]:
    """A quantile that was asked for needs enough requests for its interval to have an upper end."""
    if evidence.manifest.slo_asked:
        yield from _thin_bounds(evidence)


def _thin_bounds(evidence: Evidence) -> Iterator[Reason]:
    for bound in evidence.attainment.slo.bounds:
        unjudged = any(each.bound == bound and each.holds is None for each in evidence.attainment.bounds)
        if bound.statistic not in QUANTILES or evidence.figures["e2e"].n == 0 or unjudged:
            continue
        needed, figure = enough_for(QUANTILES[bound.statistic]), evidence.figures[bound.metric]
        if 0 < figure.n < needed:
            longer = math.ceil(needed / max(figure.n, 1))
            yield Reason(
                "too_few",
                f"{_many(figure.n, 'sample')} for {bound.name}",
                f"{format_count(needed)}, or the largest may well lie below the true {bound.statistic}",
                f"Lengthen --duration {longer} times, or bound a lower quantile.",
            )
        elif figure.requests < REQUESTS_LEAST:
            found = f"{bound.name} rests on {_many(figure.requests, 'request')}"
            yield Reason("too_few", found, format_count(REQUESTS_LEAST), "Lengthen --duration.")


def unjudged(evidence: Evidence) -> Iterator[Reason]:
    """A bound on a figure that cannot be had is neither held nor broken."""
    if evidence.manifest.slo_asked:
        yield from _unjudged_bounds(evidence)


def _unjudged_bounds(evidence: Evidence) -> Iterator[Reason]:
    if evidence.figures["e2e"].n == 0:
        return
    causes: dict[str, tuple[Cause, list[str]]] = {}
    for each in evidence.attainment.bounds:
        if each.cause is not None:
            causes.setdefault(each.cause.text, (each.cause, []))[1].append(each.bound.name)
    for cause, names in causes.values():
        found = f"{' and '.join(names)} cannot be judged: {cause.text}"
        yield Reason("unjudged", found, "figures that can be had", cause.advice)


def warmup_over(evidence: Evidence) -> Iterator[Reason]:
    """The first fifth of the window against the rest: as long as they differ clearly, the server is not steady yet."""
    if changes(evidence.level) or any(oversaturated(evidence)):
        return  # the load of a trace or ramp changes by nature; a queue that grows is said already
    for name, samples, moments in _per_request_latencies(evidence.inside):
        early = moments < evidence.window.start + evidence.window.length / 5
        first, rest = samples[early], samples[~early]
        if min(len(first), len(rest)) < WARMUP_LEAST:
            continue
        ratio = quantile(first, 0.5) / max(quantile(rest, 0.5), 1e-9)
        if max(ratio, 1 / max(ratio, 1e-9)) > WARMUP_RATIO and abs(rank_sum(first, rest)) > WARMUP_SIGMAS:
            yield Reason(
                "warmup",
                f"median {name} of the window's first fifth is {format_number(ratio)} times that of the rest",
                f"within a factor of {WARMUP_RATIO}",
                "Lengthen --warmup, and --duration with it.",
            )
            return


def drift(evidence: Evidence) -> Iterator[Reason]:
    """A level in which the server gets slower or faster is an average of two servers: neither is what was measured."""
    if changes(evidence.level) or any(oversaturated(evidence)) or any(warmup_over(evidence)):
        return  # said already, or in the nature of the load
    found = [each for each in trends(evidence.inside, evidence.window) if each.drifts]
    if found:
        most = max(found, key=lambda each: abs(math.log(each.ratio)))
        yield Reason(
            "drift",
            f"median {BY_NAME[most.metric].label} changed {format_number(most.ratio)} times over the window",
            f"within a factor of {RATIO}, or by chance",
            "Something changed while it was measured: a GPU that heats up and clocks down, another load, a cache that "
            "filled. Run it again; look at the clock rates.",
        )


def lengths(evidence: Evidence) -> Iterator[Reason]:
    """Prompts and answers of another length than asked are another workload."""
    completed = evidence.inside.select(evidence.inside.having(COMPLETED))
    for side, room, advice in (
        ("output", 0.0, "TGI stops where the model does: use prompts that ask for long answers, and compare by TPOT."),
        ("input", LENGTH_TOKENS, "See whether the service truncates, or adds a long chat template."),
    ):
        asked, got = getattr(completed, f"asked_{side}_tokens"), getattr(completed, f"{side}_tokens")
        known = (asked != MISSING) & (got != MISSING)
        if not known.any():
            continue
        wanted, found = float(asked[known].mean()), float(got[known].mean())
        if abs(found - wanted) > max(LENGTH_OFF * wanted, room):
            yield Reason(
                "lengths",
                f"{side} tokens were {format_number(found)} on average",
                f"{format_number(wanted)} asked, within {format_percent(LENGTH_OFF)}",
                advice,
            )


RULES: tuple[Rule, ...] = (
    incomplete,
    nothing_measured,
    client_cpu,
    client_loop_lag,
    late_events,
    schedule_lag,
    lost_process,
    dropped,
    sent_rate,
    oversaturated,
    stalled,
    service_gone,
    errors,
    unfinished,
    too_few,
    unjudged,
    not_streamed,
    one_piece,
    warmup_over,
    drift,
    lengths,
)


def too_few_for_the_entry(evidence: Evidence) -> Iterator[Reason]:
    """Bounds that come with the catalogue's entry are only reported, and so are the requests they lack."""
    if not evidence.manifest.slo_asked:
        yield from _thin_bounds(evidence)


def unjudged_for_the_entry(evidence: Evidence) -> Iterator[Reason]:
    """So are those of its bounds that cannot be judged."""
    if not evidence.manifest.slo_asked:
        yield from _unjudged_bounds(evidence)


def thin_tail(evidence: Evidence) -> Iterator[Reason]:
    """A p99 of few requests is shown, but says little."""
    needed, have = enough_for(0.99), evidence.figures["ttft"].n
    if 0 < have < needed:
        found, limit = _many(have, "request"), f"{format_count(needed)} for an interval with an upper end"
        yield Reason("thin_tail", f"p99 of per-request metrics rests on {found}", limit, "Lengthen --duration.")


def client_unknown(evidence: Evidence) -> Iterator[Reason]:
    """Without samples of the client, its saturation can only be seen in the schedule lag."""
    if not evidence.samples and len(evidence.inside):
        advice = "Measure with `harness bench`, which watches its load processes."
        yield Reason(
            "client_unknown", "the load processes noted nothing of themselves", "a sample a second", advice, "client"
        )


def beyond_calibration(evidence: Evidence) -> Iterator[Reason]:
    """The client's own error is only known up to the load that was calibrated."""
    floor = evidence.facts.floor
    streams = max((_streams_at_once(evidence.samples)), default=0)
    if floor is None:
        yield Reason("not_calibrated", "the client's own error on this machine is unknown", "a calibration",
                     "Run `harness calibrate`.", "client")  # fmt: skip
    elif streams > floor.streams:
        found = f"{format_count(streams)} answers were read at once"
        limit = f"calibrated up to {format_count(floor.streams)}"
        yield Reason("beyond_calibration", found, limit, f"Run `harness calibrate --users {streams}`.", "client")


def near_floor(evidence: Evidence) -> Iterator[Reason]:
    """A figure of the size of the client's own error says nothing about the server."""
    floor = evidence.facts.floor
    for name, least in () if floor is None else (("ttft", floor.ttft), ("itl", floor.itl)):
        found = evidence.figures[name].quantiles["p50"]
        if found < 5 * least:
            yield Reason(
                "near_floor",
                f"median {name} is {format_duration(found)}",
                f"five times the client's own error of {format_duration(least)}",
                "Read it as an upper bound.",
                "client",
            )


def glued(evidence: Evidence) -> Iterator[Reason]:
    """Events that arrive together make gaps of zero beside long ones."""
    count, events = int(evidence.inside.glued_events.sum()), int(evidence.inside.event_counts.sum())
    read, late = (sum(getattr(each, name) for each in evidence.samples) for name in ("events", "late_events"))
    ours = late / read if read else 0.0  # a client that reads late finds several at once; that is said already
    if events and count / events - ours > GLUED_MOST:
        found = f"{format_percent(count / events)} of the token events arrived together with an earlier one"
        advice = "A proxy or the server's own buffering does this; low quantiles of ITL say little, TPOT holds."
        yield Reason("glued_events", found, format_percent(GLUED_MOST), advice, "server")


def put_back(evidence: Evidence) -> Iterator[Reason]:
    """An engine whose KV cache is full preempts running chats and reads them in again: gaps that no user asked for."""
    count = evidence.server.preempted
    if count:
        found = f"the engine preempted running chats {format_count(count)} times: its KV cache was full"
        advice = (
            "`harness probe` finds limits under which it does not; else read ITL and TPOT as those of a full engine."
        )
        yield Reason("put_back", found, "0 times", advice, "server")


def from_cache(evidence: Evidence) -> Iterator[Reason]:
    """First tokens of prompts that the prefix cache knew are early; with other prompts they will not be."""
    share = evidence.server.cache_share
    if share is not None and share > FROM_CACHE_MOST:
        found = f"the prefix cache answered {format_percent(share)} of the prompt tokens"
        advice = "TTFT and tokens per second hold for prompts that repeat as much as these do."
        yield Reason("from_cache", found, format_percent(FROM_CACHE_MOST), advice, "server")


def conversations_cut(evidence: Evidence) -> Iterator[Reason]:
    """A level that is no longer than its conversations sees their first turns, and few of the later ones."""
    told = evidence.conversations
    if told is None or not (cut := told.ended["cut"]) or cut <= CUT_MOST * told.begun:
        return
    found = f"the level ended {format_count(cut)} of {format_count(told.begun)} conversations before they were over"
    advice = "Lengthen --duration, or give --sessions: later turns, with longer histories, are under-represented."
    yield Reason("conversations_cut", found, format_percent(CUT_MOST), advice)


WARNINGS: tuple[Rule, ...] = (
    conversations_cut,
    too_few_for_the_entry,
    thin_tail,
    client_unknown,
    beyond_calibration,
    near_floor,
    glued,
    uncounted,
    not_told,
    unjudged_for_the_entry,
    invisible,
    cut_after_end,
    put_back,
    from_cache,
    busy_machine,
    gpu_slowed,
)


def reasons(evidence: Evidence) -> tuple[Reason, ...]:
    """Every reason why this level is invalid; none if it is valid."""
    return tuple(reason for rule in RULES for reason in rule(evidence))


def warnings(evidence: Evidence) -> tuple[Reason, ...]:
    """What to know when reading the figures, though they are valid."""
    return tuple(reason for rule in WARNINGS for reason in rule(evidence))


def run_reasons(manifest: Manifest, levels: Sequence[LevelStats]) -> tuple[Reason, ...]:
    """Why the run as a whole is invalid: the reasons of its levels, each with its level's number.

    Two kinds are findings of a sweep, not flaws: what speaks of the server on a level above a valid one, and too few
    requests on a level below one that is valid and holds the SLO.
    """
    if not levels:
        return (Reason("nothing_measured", "no level began", "at least 1", "See the engine's log and run it again."),)
    valid = [level.load or 0.0 for level in levels if level.valid]
    holding = [level.load or 0.0 for level in levels if level.valid and level.attainment.holds]

    def spoils(reason: Reason, load: float) -> bool:
        beyond = reason.about == "server" and load > min(valid, default=math.inf)
        below = reason.rule == "too_few" and load < max(holding, default=0.0)
        return reason.rule not in _OF_THE_RUN and not beyond and not below

    kept = [
        replace(reason, level=level.level if len(levels) > 1 else None)
        for level in levels
        for reason in level.reasons
        if spoils(reason, level.load or 0.0)
    ]
    of_the_run = [reason for reason in levels[0].reasons if reason.rule == "lost_process"]
    if not manifest.complete:
        cut = _incomplete(manifest)
        some = len(levels) < len(manifest.levels)
        of_the_run.insert(0, replace(cut, found=f"{cut.found}; {_begun(manifest, levels)}") if some else cut)
    return (*of_the_run, *kept)


def _begun(manifest: Manifest, levels: Sequence[LevelStats]) -> str:
    return f"{len(levels)} of {len(manifest.levels)} levels began"


_OF_THE_RUN = ("incomplete", "lost_process")


def _many(count: int, word: str) -> str:
    """`1 sample`, `30 samples`."""
    return f"{format_count(count)} {word}{'' if count == 1 else 's'}"


def _too_often(values: list[float], limit: float) -> bool:
    """In more than one sample of twenty, and not just once: the shortest runs have hiccups too."""
    beyond = sum(value > limit for value in values)
    return beyond > max(1, SAMPLES_BEYOND * len(values)) or 0 < beyond == len(values)


def _streams_at_once(samples: tuple[ClientSample, ...]) -> list[int]:
    """Streams over all processes, by whole seconds."""
    totals: dict[int, dict[str, int]] = {}
    for sample in samples:
        totals.setdefault(round(sample.at), {})[sample.process] = sample.streams
    return [sum(each.values()) for each in totals.values()]


def _oversaturated(found: str, most: float) -> Reason:
    limit = f"at most {format_count(math.floor(most))} more" if most else "a queue that comes back to where it was"
    advice = (
        "The server is beyond its capacity at this rate: lower it, or find the capacity with several --rate levels."
    )
    return Reason("oversaturated", found, limit, advice, "server")


def _per_request_latencies(records: Records) -> Iterator[tuple[str, Floats, Floats]]:
    """Name, values and moments due of the latencies in which a warm-up shows."""
    completed = records.select(records.having(COMPLETED))
    first = ttft(completed)
    yield "TTFT", first.samples, completed.scheduled_at[first.request]
    yield "end-to-end latency", completed.finished_at - completed.scheduled_at, completed.scheduled_at


_ERROR_ADVICE = {
    "overloaded": "The server refused for load: lower it, or raise the engine's limit (TGI: MAX_CONCURRENT_REQUESTS).",
    "not_ready": "The model is still being loaded: wait until the service is ready, then run it again.",
    "validation": "The server refused the requests: check --input-tokens and --output-tokens against its limits.",
    "timeout": "Answers took longer than --timeout: raise it, or lower the load.",
    "refused": "No connection: see whether the service runs, and its accept queue.",
    "http": "See what answers with this status: another route, a redirect, a proxy without the service behind it.",
}
