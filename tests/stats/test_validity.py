"""Every reason not to trust a run, each by a run that has this flaw and no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from harness.measure.arrivals import arrival_of
from harness.measure.client import ClientFacts, ClientSample, Floor
from harness.measure.record import RequestRecord
from harness.measure.records import Records
from harness.measure.run_folder import Level, Manifest
from harness.stats.steadiness import enough_for, longest_silence, rank_sum
from harness.stats.summary import Summary, summarise
from harness.stats.validity import RULES, WARNINGS
from tests.runs import dropped, failed, manifest, open_level, ticking


def idle(seconds: int = 60, **changes) -> tuple[ClientSample, ...]:
    """A client at ease, one sample a second."""
    calm = ClientSample(0.0, "0", cpu_fraction=0.2, loop_lag_max=0.001, streams=4, events=100)
    return tuple(replace(calm, at=float(second), **changes) for second in range(seconds))


def steady(count: int = 600, **changes) -> list[RequestRecord]:
    """Ten requests a second for a minute, each taking 0.4 s."""
    return [ticking(n, n * 60 / count, **changes) for n in range(count)]


def as_planned(plain: Manifest) -> Manifest:
    return plain


@dataclass
class Case:
    """A run: by default one in which nothing is wrong."""

    records: list[RequestRecord] = field(default_factory=steady)
    level: Level = field(default_factory=lambda: open_level(0, 10.0, 0.0, 60.0, arrival=arrival_of("constant")))
    facts: ClientFacts = field(default_factory=lambda: ClientFacts(idle(), floor=Floor(0.0005, 0.0001, 64)))
    manifest: Callable[[Manifest], Manifest] = as_planned

    def summary(self) -> Summary:
        return summarise(Records.from_list(self.records), self.manifest(manifest([self.level])), self.facts)


def with_slo(**slo: float) -> Callable[[Manifest], Manifest]:
    return lambda plain: replace(plain, slo=slo, slo_asked=True)


def facts(samples=None, **changes) -> ClientFacts:
    return replace(ClientFacts(idle() if samples is None else samples, floor=Floor(0.0005, 0.0001, 64)), **changes)


def growing() -> list[RequestRecord]:
    """Each request waits a tenth of a second longer than the one before."""
    return [ticking(n, n * 0.1, first=0.2 + 0.05 * n) for n in range(600)]


def silent() -> list[RequestRecord]:
    """Between 30 and 42 s nobody gets anything, and whoever is waiting then waits on."""
    records = []
    for n in range(600):
        due = n * 0.1
        wait = max(0.0, 42.0 - due) if 29.9 < due < 42.0 else 0.0
        records.append(ticking(n, due, first=0.2 + wait))
    return records


INVALID = {
    "incomplete": Case(manifest=lambda plain: replace(plain, end=None)),
    "nothing_measured": Case(records=[ticking(n, n * 0.1, status="in_flight", finished_at=None) for n in range(600)]),
    "client_cpu": Case(facts=facts(idle(cpu_fraction=0.97))),
    "client_loop_lag": Case(facts=facts(idle(loop_lag_max=0.3))),
    "late_events": Case(facts=facts(idle(late_events=5))),
    "schedule_lag": Case(records=steady(lag=0.05)),
    "lost_process": Case(facts=facts(lost_processes=("2",))),
    "dropped": Case(records=[dropped(n, n * 0.1) if n % 50 == 0 else ticking(n, n * 0.1) for n in range(600)]),
    "sent_rate": Case(records=steady(count=400)),
    "oversaturated": Case(records=growing()),
    "stalled": Case(records=silent()),
    "service_gone": Case(level=open_level(0, 10.0, 0.0, 60.0, ended_by="service_gone")),
    "errors": Case(records=[failed(n, n * 0.1) if n % 50 == 0 else ticking(n, n * 0.1) for n in range(600)]),
    "unfinished": Case(
        records=[ticking(n, n * 0.1, **({"status": "in_flight"} if n % 50 == 0 else {})) for n in range(600)]
    ),
    "too_few": Case(
        records=steady(count=60), level=open_level(0, 1.0, 0.0, 60.0), manifest=with_slo(ttft_p95=1.0)
    ),
    "unjudged": Case(
        records=steady(token_at=[], token_count=[], notes="invisible"), manifest=with_slo(ttft_p50=1.0)
    ),
    "not_streamed": Case(records=[replace(each, notes="not_streamed:application/json") for each in steady()]),
    "one_piece": Case(records=[replace(each, token_at=each.token_at[-1:] * 11) for each in steady()]),
    "warmup": Case(records=[ticking(n, n * 0.1, first=0.8 if n * 0.1 < 16 else 0.2) for n in range(600)]),
    "drift": Case(records=[ticking(n, n * 0.1, gap=0.02 if n < 300 else 0.024) for n in range(600)]),
    "lengths": Case(records=steady(asked_output_tokens=20)),
}  # fmt: skip

WARNED = {
    "thin_tail": Case(records=steady(count=300), level=open_level(0, 5.0, 0.0, 60.0)),
    "client_unknown": Case(facts=facts(())),
    "not_calibrated": Case(facts=ClientFacts(idle())),
    "beyond_calibration": Case(facts=facts(idle(streams=500))),
    "near_floor": Case(facts=facts(floor=Floor(0.1, 0.0001, 64))),
    "glued_events": Case(records=steady(glued_events=3)),
    "uncounted": Case(records=steady(output_tokens=12, asked_output_tokens=12)),
    "not_told": Case(records=steady(output_tokens=None, count_told=None)),
    "invisible": Case(records=[*steady()[:-1], ticking(599, 59.9, token_at=[], token_count=[], notes="invisible")]),
    "cut_after_end": Case(records=[*steady()[:-1], ticking(599, 59.9, notes="cut_after_end")]),
}


def test_first_tokens_that_were_read_late_take_the_verdict_away() -> None:
    """They are one event in hundreds, and TTFT rests on them alone; a single one is a hiccup."""
    reasons = Case(facts=facts(idle(events=1000, answers=5, late_events=1, late_answers=1))).summary().total.reasons
    assert [(reason.rule, reason.found) for reason in reasons] == [
        ("late_events", "20.0 % of the first tokens were read late")
    ]
    once = (*idle(answers=5), replace(idle()[0], at=60.0, answers=5, events=1000, late_events=1, late_answers=1))
    assert Case(facts=facts(once)).summary().valid


def test_a_run_without_a_flaw_is_valid() -> None:
    """The run that all cases below start from stands, without a warning."""
    summary = Case().summary()
    assert (summary.valid, summary.total.reasons, summary.total.warnings) == (True, (), ())


@pytest.mark.parametrize("rule", INVALID)
def test_a_flaw_makes_the_run_invalid_and_is_named(rule: str) -> None:
    """The reason says what was found, the limit, and what to do."""
    summary = INVALID[rule].summary()
    assert rule in {reason.rule for reason in summary.total.reasons}
    assert summary.as_dict()["validity"]["verdict"] == "invalid"
    for reason in summary.as_dict()["validity"]["reasons"]:
        assert all(reason[key] for key in ("rule", "found", "limit", "advice"))


@pytest.mark.parametrize("rule", [rule for rule in INVALID if rule not in ("nothing_measured", "stalled")])
def test_a_flaw_is_not_taken_for_another(rule: str) -> None:
    """One flaw, one reason."""
    assert {reason.rule for reason in INVALID[rule].summary().total.reasons} == {rule}


@pytest.mark.parametrize("rule", WARNED)
def test_what_weakens_a_run_is_a_warning(rule: str) -> None:
    """Such a run still stands."""
    summary = WARNED[rule].summary()
    assert {reason.rule for reason in summary.total.warnings} == {rule}
    assert summary.valid


# Functions whose reason has another name, and those that have tests of their own, here, in test_server.py or in
# test_conversations.py.
def test_events_that_the_client_read_together_are_not_laid_to_a_proxy() -> None:
    """A client that reads late finds several at once; that it was late is said."""
    for late, found in ((0, True), (100, False)):
        summary = Case(records=steady(glued_events=3), facts=facts(idle(events=100, late_events=late))).summary()
        assert any(each.rule == "glued_events" for each in summary.total.warnings) is found


NAMED_OTHERWISE = {"warmup_over": "warmup", "glued": "glued_events"}
TESTED_ALONE = {
    "too_few_for_the_entry", "unjudged_for_the_entry", "put_back", "from_cache", "conversations_cut",
    "busy_machine", "gpu_slowed",
}  # fmt: skip


def test_every_rule_has_a_case() -> None:
    """A rule that is added is tested, or this fails with its name."""

    def names(rules: Sequence[Callable[..., object]]) -> set[str]:
        found = {rule.__name__ for rule in rules} - TESTED_ALONE
        return {NAMED_OTHERWISE.get(name, name) for name in found}

    assert set(INVALID) == names(RULES)
    assert set(WARNED) == names(WARNINGS) | {"not_calibrated"}  # beyond_calibration warns of two things


@pytest.mark.parametrize("ended_by", ["oversaturated", "stalled"])
def test_a_level_that_the_load_ended_early_does_not_stand(ended_by: str) -> None:
    """What the load saw while it ran is believed."""
    case = Case(level=open_level(0, 10.0, 0.0, 60.0, ended_by=ended_by))
    assert [reason.rule for reason in case.summary().total.reasons] == [ended_by]


def test_one_hiccup_of_the_client_is_no_saturation() -> None:
    """A single busy second in a minute does not spoil it."""
    hiccup = replace(idle(1)[0], at=59.0, cpu_fraction=1.0, loop_lag_max=0.5)
    assert Case(facts=facts((*idle(59), hiccup))).summary().valid
    short = tuple(replace(each, at=each.at + 45) for each in idle(14))
    assert Case(facts=facts((*short, hiccup))).summary().valid
    assert not Case(facts=facts((hiccup,))).summary().valid


def test_too_few_requests_for_the_entrys_own_bounds_are_a_warning() -> None:
    """Nobody asked for that quantile: the run stands, and says what it lacks."""
    thin = INVALID["too_few"]
    summary = replace(thin, manifest=lambda plain: replace(plain, slo={"ttft_p95": 1.0})).summary()
    assert summary.valid
    assert {reason.rule for reason in summary.total.warnings} == {"too_few", "thin_tail"}


def test_bounds_of_the_entry_that_cannot_be_judged_are_a_warning() -> None:
    """Nobody asked for them: the run stands, and says that they say nothing."""
    untold = Case(
        records=steady(output_tokens=None, count_told=None),
        manifest=lambda plain: replace(plain, slo={"tpot_p50": 1.0}),
    )
    summary = untold.summary()
    assert summary.valid
    assert {each.rule: each.found for each in summary.total.warnings}["unjudged"] == (
        "tpot_p50 cannot be judged: the server tells no counts"
    )


def test_bounds_that_cannot_be_judged_do_not_ask_for_a_longer_run() -> None:
    """No duration gives a figure that the server does not: one line for all bounds with the same cause."""
    asked = with_slo(tpot_p99=1.0, tpot_p50=1.0, ttft_p50=1.0)
    reasons = Case(records=steady(output_tokens=None, count_told=None), manifest=asked).summary().total.reasons
    assert [(each.rule, each.found) for each in reasons] == [
        ("unjudged", "tpot_p99 and tpot_p50 cannot be judged: the server tells no counts")
    ]
    assert "duration" not in reasons[0].advice


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"end": None}, "the run has no end: it was killed or still runs"),
        ({"interrupted": True}, "the run was interrupted"),
        ({"end": None, "ended_by": "service_gone"}, "the service went away before the plan was done"),
    ],
)
def test_a_level_that_ended_in_order_stays_what_it_was(changes: dict, found: str) -> None:
    """What becomes of a later level says nothing against it; the run as a whole is incomplete, and the level that was
    cut off says why.
    """
    first, second = Case().level, open_level(1, 20.0, 100.0, 60.0, ended_at=None, sending_ended_at=None, ended_by=None)
    ended_by = changes.pop("ended_by", None)
    if ended_by or changes.get("interrupted"):
        second = replace(second, ended_by=ended_by or "interrupted", sending_ended_at=130.0, ended_at=130.0)
    records = [*steady(), *(_moved(each, 100.0, 1, 0) for each in steady(1200) if each.scheduled_at < 30)]
    samples = tuple(replace(each, at=each.at + begin) for begin in (0, 100) for each in idle())
    facts = ClientFacts(samples, floor=Floor(0.0005, 0.0001, 64))
    summary = summarise(Records.from_list(records), manifest([first, second], **changes), facts)
    assert [section.valid for section in summary.levels] == [True, False]
    assert [section.complete for section in summary.levels] == [True, False]
    assert (summary.complete, summary.valid) == (False, False)
    assert summary.total.reasons[0].found == found
    rule = ended_by or "incomplete"
    assert rule in {each.rule for each in summary.levels[1].reasons}
    if ended_by:
        assert "incomplete" not in {each.rule for each in summary.levels[1].reasons}


def test_a_stall_is_found_to_the_half_second() -> None:
    """Twelve seconds without a token to anyone."""
    assert longest_silence(Records.from_list(silent())) == pytest.approx(12.0, abs=1.0)
    assert longest_silence(Records.from_list(steady())) == 0.0


def test_a_silence_lasts_until_waiting_ended() -> None:
    """Requests that never got another token end with the level, not with the last moment that was recorded."""
    stuck = [ticking(n, n * 0.1, tokens=1, status="in_flight", finished_at=None) for n in range(20)]
    assert longest_silence(Records.from_list(stuck), 62.1) == pytest.approx(60.0, abs=1.0)
    level = open_level(0, 10.0, 0.0, 2.0, ended_at=62.1, ended_by="stalled")
    reasons = {each.rule: each.found for each in Case(records=stuck, level=level).summary().total.reasons}
    assert reasons["stalled"].startswith(("no token to anyone for 59", "no token to anyone for 60"))


def test_a_ramp_is_held_to_its_own_rate() -> None:
    """Twice as many at the end as at the start, as asked, is what was asked; half of them is not."""
    rising = [n / 10 for n in range(300)] + [30 + n / 20 for n in range(600)]
    level = open_level(0, 10.0, 0.0, 60.0, arrival=arrival_of("steps:30:20"))
    assert Case(records=[ticking(n, due) for n, due in enumerate(rising)], level=level).summary().valid
    assert Case(records=steady(), level=level).summary().total.reasons[0].rule == "sent_rate"


def one_user(first: float) -> Case:
    """One user after the other, each waiting so long for the first token."""
    records = [ticking(n, n * (first + 1.0), first=first) for n in range(20)]
    return Case(records=records, level=Level(0, users=1, started_at=0.0, sending_ended_at=20 * (first + 1.0)))


def test_long_waits_of_few_users_are_no_stall() -> None:
    """Where every first token takes 12 s, one user alone hears nothing for as long, and no engine has stopped."""
    assert "stalled" not in {each.rule for each in one_user(12.0).summary().total.reasons}


def test_answers_that_come_whole_are_silent_until_their_end() -> None:
    """Nothing can be told of a stall without a stream."""
    whole = replace(INVALID["stalled"], manifest=lambda plain: replace(plain, stream=False))
    assert "stalled" not in {each.rule for each in whole.summary().total.reasons}


def test_failures_by_status_name_it() -> None:
    """`http` alone would not tell a redirect from an engine that is overwhelmed."""
    refused = [replace(failed(n, n * 0.1, "http"), http_status=307 if n % 2 else 503) for n in range(600)]
    found = next(each.found for each in Case(records=refused).summary().total.reasons if each.rule == "errors")
    assert found == "540 of 540 requests due in the window failed (http 307 and 503)"  # 600 were sent


def test_silence_without_anyone_waiting_is_no_stall() -> None:
    """A quiet stretch of a trace is not the server's fault."""
    assert longest_silence(Records.from_list([ticking(0, 0.0), ticking(1, 60.0)])) == 0.0


@pytest.mark.parametrize(("level", "count"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368)])
def test_how_many_samples_a_quantile_needs(level: float, count: int) -> None:
    """The fewest for which level^n is at most 2.5 %."""
    assert enough_for(level) == count
    assert level**count <= 0.025 < level ** (count - 1)


def test_the_rank_sum_of_equal_samples_is_small_and_of_different_ones_large() -> None:
    """In standard deviations, whichever side is larger."""
    random = np.random.default_rng(3)
    first, second = random.normal(size=100), random.normal(size=400)
    assert abs(rank_sum(first, second)) < 3
    assert rank_sum(first + 2, second) > 6
    assert rank_sum(first - 2, second) < -6


def sweep(*flaws: Case) -> Summary:
    """Levels one after another, each 100 s after the one before."""
    levels, records = [], []
    for number, case in enumerate(flaws):
        begin = 100.0 * number
        level = replace(
            case.level, level=number, rate=10.0 * (number + 1) if case.level.rate else None,
            started_at=begin, sending_ended_at=begin + 60, ended_at=begin + 61,
        )  # fmt: skip
        levels.append(level)
        for record in case.records:
            for copy in range(number + 1):
                records.append(_moved(record, begin, number, copy))
    samples = tuple(replace(each, at=each.at + 100 * n) for n in range(len(flaws)) for each in idle())
    plain = replace(manifest(levels), slo={"ttft_p95": 0.3}, slo_asked=True)
    return summarise(Records.from_list(records), plain, ClientFacts(samples, floor=Floor(0.0005, 0.0001, 64)))


def _moved(record: RequestRecord, begin: float, level: int, copy: int) -> RequestRecord:
    moved = {
        name: None if getattr(record, name) is None else getattr(record, name) + begin
        for name in ("scheduled_at", "sent_at", "first_byte_at", "finished_at")
    }
    token_at = [at + begin for at in record.token_at]
    return replace(record, request_id=f"{level}-{copy}-{record.request_id}", level=level, token_at=token_at, **moved)


def test_a_sweep_that_goes_beyond_capacity_stands() -> None:
    """The level that over-saturates is invalid; the run that found the capacity is not."""
    summary = sweep(Case(), INVALID["oversaturated"])
    assert [section.valid for section in summary.levels] == [True, False]
    assert summary.valid
    assert summary.capacity.as_dict() == {
        "unit": "requests per second", "highest_that_holds": 10.0, "next_that_does_not": 20.0,
    }  # fmt: skip


def test_a_sweep_whose_lowest_level_is_over_saturated_does_not_stand() -> None:
    """There is no level below that would make it a finding."""
    summary = sweep(INVALID["oversaturated"], INVALID["oversaturated"])
    assert not summary.valid
    assert {reason.level for reason in summary.total.reasons} == {0, 1}


def test_too_few_requests_on_a_lower_level_do_not_spoil_a_sweep() -> None:
    """A higher load that holds with enough requests leaves no doubt about the lower one."""
    thin = Case(records=[ticking(n, float(n)) for n in range(60)], level=open_level(0, 1.0, 0.0, 60.0))
    thin.level = replace(thin.level, arrival=arrival_of("gamma:0.001"))  # any number of requests is as asked
    summary = sweep(thin, Case())
    assert [section.valid for section in summary.levels] == [False, True]
    assert summary.valid
