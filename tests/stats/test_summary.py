"""A run's summary: the promised document, with figures that can be recounted."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from harness.measure.arrivals import arrival_of
from harness.measure.client import ClientFacts, ClientSample, Floor
from harness.measure.record import RequestRecord
from harness.measure.records import Records
from harness.measure.run_folder import Level
from harness.report.run import run_document
from harness.report.to_json import to_json
from harness.stats.summary import Summary, summarise
from tests.goldens import check_golden, rounded
from tests.runs import closed_level, closed_loop, dropped, failed, manifest, open_level, ticking

TOP = [
    "schema", "run_id", "emulated", "complete", "model", "engine", "workload", "offered_rate", "users", "duration",
    "window", "requests", "errors", "metrics", "throughput", "goodput", "client", "validity",
]  # fmt: skip


def sweep(spread: float = 0.1) -> tuple[list[RequestRecord], list[Level]]:
    """One and four users, a minute each, some failures on the second level."""
    levels = [closed_level(0, 1, 0.0, 60.0), closed_level(1, 4, 70.0, 60.0)]
    records = closed_loop(levels[0], spread=spread) + closed_loop(levels[1], first=0.3, gap=0.03, spread=spread)
    records += [failed(9000, 100.0, level=1), dropped(9001, 101.0, level=1)]
    records += [replace(ticking(9002, 129.0, level=1), status="in_flight", finished_at=None)]
    return records, levels


def summary(records: list[RequestRecord], levels: list[Level], **changes) -> Summary:
    samples = tuple(ClientSample(float(at), "0", 0.25, 0.002, streams=4, events=100) for at in range(140))
    facts = ClientFacts(samples, floor=Floor(0.0005, 0.0001, 64))
    return summarise(Records.from_list(records), manifest(levels, **changes), facts)


def test_the_document_is_the_promised_one() -> None:
    """Every key, in every level too; numbers as they were."""
    records, levels = sweep()
    document = summary(records, levels, slo={"ttft_p95": 0.3, "itl_p95": 0.06}).as_dict()
    for part in (document, *document["levels"]):
        assert [key for key in TOP if key not in part] == []
        assert list(part["requests"]) == ["sent", "completed", "failed", "dropped", "in_flight_at_end"]
        assert list(part["metrics"]) == ["ttft", "service_ttft", "itl", "tpot", "e2e", "schedule_lag"]
        for figure in part["metrics"].values():
            assert list(figure)[:9] == ["unit", "n", "mean", "p50", "p90", "p95", "p99", "max", "ci95"]
            assert list(figure["ci95"]) == ["p50", "p95", "p99"]
        assert list(part["throughput"]) == [
            "requests_per_second", "input_tokens_per_second", "output_tokens_per_second",
        ]  # fmt: skip
        assert list(part["goodput"]) == ["slo", "requests_per_second", "fraction"]
        assert list(part["client"]["floor"]) == ["ttft", "itl"]
    assert [level["level"] for level in document["levels"]] == [0, 1]
    check_golden("summary.json", rounded(document))


def test_a_server_that_ticks_at_fixed_times_is_reported_with_exactly_those() -> None:
    """First token after 200 ms, then every 20 ms: every quantile says so, and the interval has no width."""
    level = closed_level(0, 4, 0.0, 60.0)
    metrics = summary(closed_loop(level), [level]).as_dict()["metrics"]
    for name, expected in (("ttft", 0.2), ("itl", 0.02), ("tpot", 0.02), ("e2e", 0.4), ("schedule_lag", 0.0)):
        for statistic in ("mean", "p50", "p90", "p95", "p99", "max"):
            assert metrics[name][statistic] == pytest.approx(expected, abs=1e-9)
        assert metrics[name]["ci95"]["p99"] == pytest.approx([expected] * 2, abs=1e-9)


def test_counts_cover_the_whole_level_and_add_up_to_the_top() -> None:
    """Sent is completed, failed and in flight; the top is the sum of the levels."""
    records, levels = sweep()
    document = summary(records, levels).as_dict()
    for part in (document, *document["levels"]):
        counts = part["requests"]
        assert counts["sent"] == counts["completed"] + counts["failed"] + counts["in_flight_at_end"]
    for name, total in document["requests"].items():
        assert total == sum(level["requests"][name] for level in document["levels"])
    assert document["requests"]["sent"] + document["requests"]["dropped"] == len(records)
    assert document["errors"] == {"dropped": 1, "overloaded": 1}
    assert (document["users"], document["offered_rate"]) == (None, None)
    assert document["levels"][1]["users"] == 4


def test_metrics_can_be_recounted_from_the_records_and_the_window() -> None:
    """Another program that knows the formulas gets the same figures."""
    records, levels = sweep()
    level = summary(records, levels).as_dict()["levels"][1]
    start, end = level["window"]
    own = [each for each in records if each.level == 1]
    inside = [each for each in own if each.status == "completed" and start <= each.scheduled_at < end]
    ttft = [each.token_at[0] - each.scheduled_at for each in inside]
    gaps = [gap for each in inside for gap in np.diff(each.token_at)]
    assert level["metrics"]["ttft"]["n"] == len(ttft)
    assert level["metrics"]["ttft"]["p95"] == pytest.approx(np.quantile(ttft, 0.95))
    assert level["metrics"]["itl"]["p99"] == pytest.approx(np.quantile(gaps, 0.99))
    tokens = sum(start <= at < end for each in own for at in each.token_at)
    assert level["throughput"]["output_tokens_per_second"] == pytest.approx(tokens / (end - start))
    finished = sum(each.status == "completed" and start <= each.finished_at < end for each in own)
    assert level["throughput"]["requests_per_second"] == pytest.approx(finished / (end - start))


def test_goodput_counts_failed_and_dropped_requests_among_those_due() -> None:
    """Requests that meet the SLO per second of the window, and their share of all that were due."""
    records, levels = sweep(spread=0.0)
    level = summary(records, levels, slo={"ttft_p95": 1.0}).as_dict()["levels"][1]
    met = level["metrics"]["ttft"]["n"]
    assert level["goodput"]["fraction"] == pytest.approx(met / (met + 2))
    assert level["goodput"]["requests_per_second"] == pytest.approx(met / (level["window"][1] - level["window"][0]))


def test_the_order_of_records_does_not_matter() -> None:
    """Which process wrote what, and when, leaves no trace."""
    records, levels = sweep()
    shuffled = records.copy()
    random.Random(5).shuffle(shuffled)
    assert to_json(run_document(summary(shuffled, levels))) == to_json(run_document(summary(records, levels)))


def test_of_a_single_level_the_top_is_that_level() -> None:
    """Users, rate and all figures."""
    level = open_level(0, 5.0, 0.0, 60.0, arrival=arrival_of("constant"))
    document = summary([ticking(n, n * 0.2) for n in range(300)], [level]).as_dict()
    own = document["levels"][0]
    assert document["offered_rate"] == own["offered_rate"] == 5.0
    assert document["users"] is None
    for key in ("metrics", "window", "throughput", "requests", "goodput", "duration"):
        assert document[key] == own[key]


def test_of_a_trace_the_offered_rate_is_that_of_its_requests() -> None:
    """No rate was asked for; the trace has one."""
    level = open_level(0, None, 0.0, 60.0, arrival=arrival_of("trace"))
    document = summary([ticking(n, n * 0.5) for n in range(120)], [level]).as_dict()
    assert document["window"] == [0.0, 60.0]
    assert document["offered_rate"] == pytest.approx(2.0)


def test_a_run_that_recorded_nothing_has_a_summary_too() -> None:
    """Killed before the first request: no figure is made up."""
    document = summary([], [Level(0, users=4)], end=None).as_dict()
    assert document["levels"] == []
    assert document["complete"] is False
    assert document["validity"]["verdict"] == "invalid"
    assert document["metrics"]["ttft"]["n"] == 0
    assert document["metrics"]["ttft"]["p95"] is None
    json.dumps(document, allow_nan=False)


def test_levels_that_never_began_are_left_out() -> None:
    """An interrupted sweep shows what there is, and says what is missing."""
    records, levels = sweep()
    begun = [record for record in records if record.level == 0]
    planned = replace(levels[1], started_at=None, sending_ended_at=None, ended_at=None)
    found = summary(begun, [levels[0], planned], interrupted=True)
    assert len(found.levels) == 1
    assert [reason.found for reason in found.total.reasons] == ["the run was interrupted; 1 of 2 levels began"]


def test_the_clients_own_figures_are_shown() -> None:
    """Processes, the busiest second, schedule lag, and the calibrated floor."""
    level = open_level(0, 5.0, 0.0, 60.0)
    client = summary([ticking(n, n * 0.2, lag=0.002) for n in range(300)], [level]).as_dict()["client"]
    assert client["processes"] == 1
    assert client["cpu_fraction_max"] == 0.25
    assert client["schedule_lag_p99"] == pytest.approx(0.002)
    assert client["floor"] == {"ttft": 0.0005, "itl": 0.0001}


def test_a_server_that_tells_its_queue_has_it_among_the_metrics() -> None:
    """Where it does not, the metric is not there."""
    level = open_level(0, 5.0, 0.0, 60.0)
    told = summary([ticking(n, n * 0.2, queue_time=0.03) for n in range(300)], [level]).as_dict()
    assert told["metrics"]["queue"]["p50"] == pytest.approx(0.03)


def test_what_the_server_does_not_tell_is_null_and_not_zero() -> None:
    """No counts: no tokens per second, no TPOT, no tokens of an event; everything else is there."""
    level = open_level(0, 5.0, 0.0, 60.0)
    silent = {"output_tokens": None, "input_tokens": None, "count_told": None}
    document = summary([ticking(n, n * 0.2, **silent) for n in range(300)], [level]).as_dict()
    throughput = document["throughput"]
    assert throughput["requests_per_second"] > 4
    assert (throughput["input_tokens_per_second"], throughput["output_tokens_per_second"]) == (None, None)
    tpot = document["metrics"]["tpot"]
    assert (tpot["n"], tpot["p50"], tpot["absent"]) == (0, None, "the server tells no counts")
    assert document["metrics"]["itl"]["n"] > 2000
    assert document["tokens_per_event"] is None
    assert "itl_per_token" not in document["metrics"]
    assert "not_told" in {reason["rule"] for reason in document["validity"]["warnings"]}


def test_tokens_per_second_are_tokens_and_not_events() -> None:
    """Two users, four tokens an event, told at the end: four per 80 ms and user, while answers last."""
    level = closed_level(0, 2, 0.0, 60.0, warmup=0.0)
    records = [
        ticking(2 * n + user, 0.66 * n, first=0.1, gap=0.08, tokens=8, output_tokens=32, asked_output_tokens=32,
                count_told="per_answer")
        for n in range(90) for user in range(2)
    ]  # fmt: skip
    document = summary(records, [level]).as_dict()
    assert document["throughput"]["output_tokens_per_second"] == pytest.approx(2 * 32 / 0.66, rel=0.02)
    assert document["tokens_per_event"] == 4.0
    assert document["metrics"]["tpot"]["p50"] == pytest.approx(0.02)
    assert document["metrics"]["itl"]["p50"] == pytest.approx(0.08)
    assert document["metrics"]["itl_per_token"]["p50"] == pytest.approx(0.02)


def test_without_a_stream_there_is_no_first_token() -> None:
    """`--no-stream`: whole answers have an end, a count and a rate."""
    level = open_level(0, 5.0, 0.0, 60.0)
    records = [
        ticking(n, n * 0.2, token_at=[n * 0.2 + 0.4], token_count=[11], finished_at=n * 0.2 + 0.4) for n in range(300)
    ]
    found = summary(records, [level], stream=False)
    document = found.as_dict()
    for name in ("ttft", "service_ttft", "itl", "tpot"):
        metric = document["metrics"][name]
        assert (metric["n"], metric["p50"], metric["absent"]) == (0, None, "the answers were not streamed")
    assert document["metrics"]["e2e"]["p50"] == pytest.approx(0.4)
    assert document["throughput"]["output_tokens_per_second"] == pytest.approx(55, rel=0.05)
    assert found.valid
