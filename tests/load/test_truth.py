"""What load processes record, event by event, against an engine that logs what it wrote."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from harness.load import runner
from harness.load.null_engine import Truth, read_log
from harness.load.plan import LoadOutcome, LoadPlan
from harness.load.request_ids import request_id
from harness.load.worker_pool import WorkerPool
from harness.measure.arrivals import arrival_of
from harness.measure.journal import read_journal
from harness.measure.record import RequestRecord
from harness.measure.run_folder import Level
from harness.workload.workload import drawn

TOKENS = 12


@contextmanager
def engine(log: Path, *options: str) -> Iterator[str]:
    """The URL of a null engine; its log is there when it has been left."""
    words = ["--ttft-ms", "20", "--itl-ms", "10", "--log", str(log), *options]
    command = [sys.executable, "-m", "harness.load.null_engine", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            yield process.stderr.readline().decode().split()[-1]
        finally:
            process.terminate()
            process.stderr.read()


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    """One load process for all tests of this module: importing Locust takes longer than most of them."""
    with WorkerPool(1) as one:
        yield one


def plan_for(url: str, folder: Path, **changes: Any) -> LoadPlan:
    workload = drawn("test", "8", str(TOKENS), seed=1).as_dict()
    return LoadPlan(
        url=url, api="tgi", model_name="tgi", stream=True, timeout=20.0, workload=workload, seed=1,
        folder=str(folder), clock_monotonic=time.monotonic(), **changes,
    )  # fmt: skip


@dataclass
class Seen:
    """A load and the truth about it. zero: CLOCK_MONOTONIC seconds that 0 stands for in the records."""

    records: list[RequestRecord]
    truths: dict[str, Truth]
    outcome: LoadOutcome
    zero: float

    def pairs(self) -> list[tuple[RequestRecord, Truth]]:
        return [(record, self.truths[record.request_id]) for record in self.records]


def load(pool: WorkerPool, folder: Path, level: Level, *options: str, **changes: Any) -> Seen:
    folder.mkdir(exist_ok=True)
    with engine(folder / "truth.jsonl", *options) as url:
        plan = plan_for(url, folder, **changes)
        outcome = runner.run(plan, [level], pool=pool)
    return Seen(list(read_journal(folder).records), read_log(folder / "truth.jsonl"), outcome, plan.clock_monotonic)


def owners(folder: Path, processes: int) -> dict[str, int]:
    """Which process asked under which id, in level 0 of a plan of this module: each takes every so manieth number."""
    return {request_id(folder.name, 1, 0, number): number % processes for number in range(2000)}


SCHEDULES = {
    "steady": [],
    "jitter": ["--jitter-ms", "6"],
    "stalls": ["--stall-share", "0.1", "--stall-ms", "80"],
    "glued": ["--glue", "4"],
    "cut": ["--cut", "3"],
    "slow drip": ["--cut", "40", "--itl-ms", "2"],
    "one token": ["--ttft-ms", "1"],
}


@pytest.mark.parametrize("options", SCHEDULES.values(), ids=SCHEDULES)
def test_every_event_has_the_moment_at_which_it_was_written(
    pool: WorkerPool, tmp_path: Path, options: list[str]
) -> None:
    """As many events as were written, none noted before it was, glued ones together, and each where it belongs."""
    seen = load(pool, tmp_path, Level(0, users=4, requests=12), *options)
    assert len(seen.records) == len(seen.truths) == 12
    late = []
    for record, truth in seen.pairs():
        assert record.status == "completed"
        assert record.output_tokens == len(truth.written_at) == len(record.token_at) == TOKENS
        assert record.token_count == [1] * TOKENS
        assert record.sent_at == record.scheduled_at
        assert record.finish_reason == "length"
        late.extend(np.array(record.token_at) + seen.zero - np.array(truth.written_at))
        together = sum(first == then for first, then in zip(truth.written_at, truth.written_at[1:]))
        assert record.glued_events >= together
    assert min(late) > -0.0005
    assert np.median(late) < 0.002


@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        ("429", "overloaded", 429),
        ("500", "generation", 500),
        ("sse", "generation", 200),
        ("drop", "stream_broken", 200),
    ],
)
def test_each_failure_is_told_apart_and_keeps_its_tokens(
    pool: WorkerPool, tmp_path: Path, fault: str, kind: str, status: int
) -> None:
    """Refusals, an error inside a 200 stream, a cut connection: failed, by kind, with what came before."""
    seen = load(pool, tmp_path, Level(0, users=3, requests=24), "--fault", fault, "--fault-share", "0.4")
    failed = {truth.request_id for truth in seen.truths.values() if truth.outcome == fault}
    assert 0 < len(failed) < 24
    for record, truth in seen.pairs():
        assert len(record.token_at) == len(truth.written_at)
        if record.request_id in failed:
            assert (record.status, record.error_kind, record.http_status) == ("failed", kind, status)
        else:
            assert record.status == "completed"


def test_an_answer_shorter_than_asked_is_no_error(pool: WorkerPool, tmp_path: Path) -> None:
    """It is complete, with the server's own count and reason."""
    seen = load(pool, tmp_path, Level(0, users=2, requests=4), "--fault", "short", "--fault-share", "1")
    for record, truth in seen.pairs():
        assert (record.status, record.finish_reason) == ("completed", "eos_token")
        assert record.output_tokens == len(record.token_at) == len(truth.written_at) < TOKENS


def test_requests_leave_at_their_moments_whoever_waits(pool: WorkerPool, tmp_path: Path) -> None:
    """An open loop of constant arrivals: every moment is due where arithmetic puts it, though answers take longer."""
    seen = load(pool, tmp_path, Level(0, rate=40.0, arrival=arrival_of("constant"), duration=1.0))
    due = sorted(record.scheduled_at for record in seen.records)
    assert np.allclose(np.diff(due), 1 / 40, atol=1e-9)
    assert len(due) == 40
    lags = [record.sent_at - record.scheduled_at for record in seen.records if record.sent_at is not None]
    assert len(lags) == 40
    assert min(lags) >= 0
    assert np.median(lags) < 0.005
    assert {record.status for record in seen.records} == {"completed"}


def test_a_service_that_stops_answering_ends_the_level(
    pool: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token to anyone while requests wait: the level ends, and what came until then is kept as in flight."""
    monkeypatch.setattr(runner, "STALLED_AFTER", 1.0)
    seen = load(pool, tmp_path, Level(0, users=3, duration=60.0), "--fault", "hang", "--fault-share", "1")
    assert seen.outcome.levels[0].ended_by == "stalled"
    assert [record.status for record in seen.records] == ["in_flight"] * 3
    assert all(len(record.token_at) == len(truth.written_at) > 0 for record, truth in seen.pairs())


def test_a_slow_drip_is_no_silence(pool: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that come in pieces of three bytes are tokens all the same: nothing has stopped."""
    monkeypatch.setattr(runner, "STALLED_AFTER", 1.0)
    seen = load(pool, tmp_path, Level(0, users=2, requests=4), "--cut", "50", "--itl-ms", "40")
    assert seen.outcome.levels[0].ended_by == "requests"
    assert {record.status for record in seen.records} == {"completed"}


def test_a_service_that_nobody_reaches_ends_the_level(
    pool: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused connections for a while: the service is gone; users do not knock thousands of times."""
    monkeypatch.setattr(runner, "REFUSED_AFTER", 1.5)
    with engine(tmp_path / "unused.jsonl") as url:
        pass
    outcome = runner.run(plan_for(url, tmp_path), [Level(0, users=2, duration=60.0)], pool=pool)
    assert outcome.levels[0].ended_by == "service_gone"
    records = list(read_journal(tmp_path).records)
    assert {record.error_kind for record in records} <= {"refused", None}
    assert len(records) < 30


def test_a_process_without_a_user_does_not_hold_up_the_level(tmp_path: Path) -> None:
    """One user in two processes makes all requests of the level, and the level ends with the last of them."""
    with WorkerPool(2) as pool:
        seen = load(pool, tmp_path, Level(0, users=1, requests=5), processes=2)
    assert [record.status for record in seen.records] == ["completed"] * 5
    assert seen.outcome.levels[0].ended_by == "requests"


def test_a_killed_process_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    """Two processes share one schedule exactly; one dies, what it had sent and read is known, and the other goes on."""
    killed: list[float] = []

    def kill(level: Level) -> None:
        if level.ended_at is None:
            threading.Timer(1.2, end).start()

    def end() -> None:
        pool.processes[1].send_signal(signal.SIGKILL)
        killed.append(time.monotonic())

    with WorkerPool(2) as pool, engine(tmp_path / "truth.jsonl", "--itl-ms", "80") as url:
        level = Level(0, rate=50.0, arrival=arrival_of("constant"), duration=3.0)
        plan = plan_for(url, tmp_path, processes=2)
        outcome = runner.run(plan, [level], pool=pool, on_level=kill)
    truths = read_log(tmp_path / "truth.jsonl")
    assert outcome.lost_processes == ("1",)
    assert outcome.levels[0].ended_by == "duration"
    records = list(read_journal(tmp_path).records)
    began = outcome.levels[0].started_at or 0.0
    places = [(record.scheduled_at - began) * 50.0 - 0.5 for record in records]
    assert np.allclose(places, np.round(places), atol=1e-6)
    by_process = {
        str(name): [record for record in records if owners(tmp_path, 2)[record.request_id] == name] for name in (0, 1)
    }
    assert len(by_process["0"]) == 75
    assert all(record.status == "completed" for record in by_process["0"])
    until = killed[0] - plan.clock_monotonic
    cut = [record for record in by_process["1"] if record.status == "in_flight"]
    for record in cut:
        written = [at - plan.clock_monotonic for at in truths[record.request_id].written_at]
        assert sum(at < until - 1.0 for at in written) <= len(record.token_at)
        assert np.allclose(record.token_at, written[: len(record.token_at)], atol=0.02)
    due_by_then = sum((number + 0.5) / 50.0 < until - began - 1.0 for number in range(1, 150, 2))
    assert due_by_then <= len(by_process["1"]) < 75


def harness_bench(url: str, folder: Path, *options: str, **how: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "harness", "bench", "--url", url, "--output", str(folder), "--json", "--no-report"]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)


def load_process_of(bench: subprocess.Popen[str]) -> psutil.Process:
    """The load process of a running bench, once it is there."""
    while True:
        for each in psutil.Process(bench.pid).children():
            if "harness.load.worker" in each.cmdline():
                return each
        time.sleep(0.05)


def test_without_descriptors_requests_are_dropped_in_good_order(tmp_path: Path) -> None:
    """Users beyond the limit of open files are counted as dropped, once a second each, and the level ends in time."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))  # noqa: E731
    options = ("--users", "60", "--duration", "3s", "--output-tokens", "4")
    with engine(tmp_path / "truth.jsonl", "--itl-ms", "100") as url:
        bench = harness_bench(url, tmp_path / "run", *options, preexec_fn=limit)
        printed, said = bench.communicate(timeout=60)
    summary = json.loads(printed)
    assert summary["requests"]["completed"] > 0, said
    assert 0 < summary["errors"]["dropped"] <= 60 * 4
    assert "dropped" in {reason["rule"] for reason in summary["validity"]["reasons"]}


def test_a_client_that_cannot_keep_up_never_yields_a_valid_run(tmp_path: Path) -> None:
    """A load process that is stopped over and over reads late, and the verdict says so."""
    folder = tmp_path / "run"
    with engine(tmp_path / "truth.jsonl") as url:
        bench = harness_bench(url, folder, "--users", "8", "--duration", "5s", "--output-tokens", "50")
        client = load_process_of(bench)
        while not list(folder.glob("journal-*.log")):
            time.sleep(0.05)
        while bench.poll() is None and client.is_running() and client.status() != psutil.STATUS_ZOMBIE:
            os.kill(client.pid, signal.SIGSTOP)
            time.sleep(0.25)
            os.kill(client.pid, signal.SIGCONT)
            time.sleep(0.15)
        printed, said = bench.communicate(timeout=60)
    assert bench.returncode == 0, said
    validity = json.loads(printed)["validity"]
    assert validity["verdict"] == "invalid"
    assert {reason["rule"] for reason in validity["reasons"]} & {"late_events", "client_loop_lag", "client_cpu"}


def test_the_figures_are_those_of_the_records_counted_anew(tmp_path: Path) -> None:
    """Another program, from records.parquet and the engine's log alone, comes to the same counts, TTFT and tokens."""
    folder = tmp_path / "run"
    with engine(tmp_path / "truth.jsonl", "--jitter-ms", "5", "--fault", "sse", "--fault-share", "0.1") as url:
        bench = harness_bench(
            url, folder, "--users", "5", "--requests", "60", "--output-tokens", "10", "--warmup", "0s"
        )
        printed, said = bench.communicate(timeout=60)
    assert bench.returncode == 0, said
    summary, truths = json.loads(printed), read_log(tmp_path / "truth.jsonl")
    rows = pq.read_table(folder / "records.parquet").to_pylist()
    failed = sum(truth.outcome == "sse" for truth in truths.values())
    assert summary["requests"]["sent"] == len(rows) == len(truths) == 60
    assert (summary["requests"]["failed"], summary["errors"].get("generation", 0)) == (failed, failed)
    start, end = summary["levels"][0]["window"]
    inside = [row for row in rows if row["status"] == "completed" and start <= row["scheduled_at"] <= end]
    ttft = [row["token_at"][0] - row["scheduled_at"] for row in inside]
    # On a busy machine an answer may come in one piece, which has no gaps.
    gaps = np.concatenate([np.diff(row["token_at"]) for row in inside if row["token_at"][-1] > row["token_at"][0]])
    assert summary["metrics"]["ttft"]["p50"] == pytest.approx(np.quantile(ttft, 0.5))
    assert summary["metrics"]["itl"]["p99"] == pytest.approx(np.quantile(gaps, 0.99))
    assert summary["client"]["floor"]["ttft"] > 0
    assert sum(len(row["token_at"]) for row in rows) == sum(len(truth.written_at) for truth in truths.values())


def test_locusts_page_counts_the_requests_of_all_processes(tmp_path: Path) -> None:
    """It is on 127.0.0.1 while the load lasts, and two processes' requests are one count."""
    pages: list[str] = []
    counted: list[int] = []

    def look(line: str) -> None:
        if line.startswith("Locust's page: "):
            pages.append(line.split()[-1])
            threading.Thread(target=ask, daemon=True).start()

    def ask() -> None:
        while True:
            try:
                counted.append(total(pages[0]))
            except OSError:
                return  # the page ended with the load
            time.sleep(0.3)

    def total(page: str) -> int:
        with urllib.request.urlopen(f"{page}/stats/requests/csv", timeout=5) as answer:
            rows = list(csv.DictReader(io.StringIO(answer.read().decode())))
        return int(next(row["Request Count"] for row in rows if row["Name"] == "Aggregated"))

    with WorkerPool(2) as pool, engine(tmp_path / "truth.jsonl") as url:
        plan = plan_for(url, tmp_path, processes=2, web_ui=True)
        runner.run(plan, [Level(0, users=2, duration=5.0)], pool=pool, progress=look)
    by_process = [owners(tmp_path, 2)[record.request_id] for record in read_journal(tmp_path).records]
    alone = max(by_process.count(0), by_process.count(1))
    assert pages[0].startswith("http://127.0.0.1:")
    assert alone < max(counted) <= len(by_process)


def test_levels_of_one_plan_follow_each_other(pool: WorkerPool, tmp_path: Path) -> None:
    """Each level has its own requests, and none begins before the one before has its last answer."""
    with engine(tmp_path / "truth.jsonl") as url:
        levels = (Level(0, users=2, requests=4), Level(1, rate=50.0, arrival=arrival_of("poisson"), requests=6))
        outcome = runner.run(plan_for(url, tmp_path), levels, pool=pool)
    records = list(read_journal(tmp_path).records)
    assert [sum(record.level == number for record in records) for number in (0, 1)] == [4, 6]
    assert [level.ended_by for level in outcome.levels] == ["requests", "requests"]
    first, second = outcome.levels
    assert first.ended_at is not None
    assert second.started_at is not None
    assert first.ended_at <= second.started_at
