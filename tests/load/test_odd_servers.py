"""What is recorded of, and said about, servers whose events are no tokens and whose answers end oddly."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.load import runner
from harness.load.plan import LoadPlan
from harness.load.worker_pool import WorkerPool
from harness.measure.journal import read_journal
from harness.measure.records import Records
from harness.measure.run_folder import Level, Manifest
from harness.report.run import run_document
from harness.report.to_text import to_text
from harness.stats.summary import Summary, summarise
from harness.workload.workload import drawn
from tests.load.odd_server import HABITS, OddServer, Truth, serving

TOKENS, USERS, REQUESTS = 24, 2, 6


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as one:
        yield one


def load(pool: WorkerPool, folder: Path, server: OddServer, **changes: Any) -> tuple[Records, Summary, float]:
    """Records, summary and the moment that 0 stands for, of a few requests to this server."""
    given: dict[str, Any] = {"api": "openai-chat", "stream": True, **changes}
    plan = LoadPlan(
        url=server.url, model_name="m", timeout=20.0,
        workload=drawn("odd", "16", str(TOKENS), seed=1).as_dict(), seed=1, folder=str(folder),
        clock_monotonic=time.monotonic(), **given,
    )  # fmt: skip
    outcome = runner.run(plan, [Level(0, users=USERS, requests=REQUESTS, warmup=0.0)], pool=pool)
    records = read_journal(folder).records
    manifest = Manifest(
        run_id=folder.name, harness_version="0", command=("harness",), model="m", engine="openai-compatible",
        emulated=False, start="", clock={}, workload={"name": "odd"}, levels=outcome.levels, api="openai-chat",
        stream=plan.stream, slo={"ttft_p50": 5.0, "itl_p50": 5.0, "tpot_p50": 5.0}, slo_asked=True, end="now",
    )  # fmt: skip
    return records, summarise(records, manifest), plan.clock_monotonic


def column(records: Records, name: str) -> set[Any]:
    return {getattr(each, name) for each in records}


@pytest.mark.parametrize(
    ("habit", "told", "share"),
    [
        ("plain", "per_event", 1.0),
        ("spec", "per_answer", 4.0),
        ("spec, the first token alone", "per_answer", 24 / 7),
        ("counts along", "per_event", 3.0),
        ("counts along, uneven", "per_event", 24 / 8),
        ("llama.cpp", "per_event", 24 / 13),
        ("late finish", "per_event", 1.0),
    ],
)
def test_tokens_are_counted_by_the_server(
    pool: WorkerPool, tmp_path: Path, habit: str, told: str, share: float
) -> None:
    """Rate, TPOT and tokens of an event are those of the server's own log, whatever an event holds."""
    with serving(habit) as server:
        records, summary, zero = load(pool, tmp_path, server)
    assert column(records, "status") == {"completed"}
    assert column(records, "output_tokens") == {TOKENS}
    assert column(records, "count_told") == {told}
    assert {each.input_tokens for each in records} == {21}
    truths = {each.request_id: server.truths[each.request_id] for each in records}
    for each in records:
        truth = truths[each.request_id]
        assert len(each.token_at) == len(truth.at)
        assert told != "per_event" or each.token_count == truth.tokens
    figures = summary.levels[0].figures
    assert figures["tpot"].n == len(records)
    assert figures["tpot"].quantiles["p50"] == pytest.approx(
        np.median([each.tpot for each in truths.values()]), rel=0.1
    )
    assert summary.total.tokens_per_event == pytest.approx(share)
    start, end = summary.total.window
    written = sum(tokens for truth in truths.values() for at, tokens in zip(truth.at, truth.tokens)
                  if start <= at - zero < end)  # fmt: skip
    assert summary.total.throughput.output_tokens == pytest.approx(written / (end - start), rel=0.1)
    assert ("itl_per_token" in figures) == (share > 1)
    assert summary.total.attainment.holds is True


@pytest.mark.parametrize("habit", ["nousage", "nousage, several tokens", "counts of nothing"])
def test_what_is_not_told_is_not_made_up(pool: WorkerPool, tmp_path: Path, habit: str) -> None:
    """No rate and no TPOT, in a word on the terminal, and a bound on them cannot be judged."""
    with serving(habit) as server:
        records, summary, _ = load(pool, tmp_path, server)
    assert column(records, "status") == {"completed"}
    assert column(records, "output_tokens") == {None}
    assert {len(each.token_at) for each in records} == {len(truth.at) for truth in server.truths.values()}
    document, text = summary.as_dict(), to_text(run_document(summary))
    assert document["throughput"]["output_tokens_per_second"] is None
    assert document["metrics"]["tpot"]["n"] == 0
    assert document["metrics"]["itl"]["n"] > 0
    assert (document["slo"]["holds"], document["goodput"]["fraction"]) == (None, None)
    assert "tpot_p50 cannot be judged: the server tells no counts" in text
    assert "not told" in text
    assert [line for line in text.splitlines() if "tpot" in line and "duration" in line] == []


@pytest.mark.parametrize(
    ("habit", "rule", "words"),
    [
        ("burst", "one_piece", "in one piece"),
        ("one event", "one_piece", "in one piece"),
        ("whole", "not_streamed", "(content-type application/json)"),
        ("whole, as a stream", "not_streamed", "(content-type text/event-stream)"),
    ],
)
def test_an_answer_that_came_at_once_has_no_gaps(
    pool: WorkerPool, tmp_path: Path, habit: str, rule: str, words: str
) -> None:
    """Complete, with the server's count; ITL and TPOT are no figures, and bounds on them neither hold nor break."""
    with serving(habit) as server:
        records, summary, _ = load(pool, tmp_path, server)
    assert column(records, "status") == {"completed"}
    assert column(records, "output_tokens") == {TOKENS}
    figures, text = summary.total.figures, to_text(run_document(summary))
    assert (figures["itl"].n, figures["tpot"].n) == (0, 0)
    assert figures["ttft"].n == (0 if rule == "not_streamed" else REQUESTS)
    assert summary.total.attainment.holds is None
    assert {rule, "unjudged"} <= {reason.rule for reason in summary.total.reasons}
    assert words in text
    assert summary.total.throughput.output_tokens > 0


@pytest.mark.parametrize("habit", ["donecut", "donereset", "doneopen"])
def test_an_answer_is_whole_with_its_last_message(pool: WorkerPool, tmp_path: Path, habit: str) -> None:
    """Whatever becomes of the connection behind it: completed, with a note, and its end is the last byte of it."""
    with serving(habit) as server:
        records, summary, zero = load(pool, tmp_path, server)
    for each in records:
        assert (each.status, each.error_kind, each.output_tokens) == ("completed", None, TOKENS)
        assert each.notes == "cut_after_end"
        assert each.finished_at is not None
        assert each.finished_at + zero - server.truths[each.request_id].at[-1] < 1.5
    assert "behind" in to_text(run_document(summary))
    assert "whole answers the connection was cut" in to_text(run_document(summary))


def test_an_answer_without_its_last_message_is_broken(pool: WorkerPool, tmp_path: Path) -> None:
    """All tokens came, and nobody said that they were all."""
    with serving("cut") as server:
        records, _, _ = load(pool, tmp_path, server)
    assert {(each.status, each.error_kind, each.notes) for each in records} == {("failed", "stream_broken", None)}
    assert {len(each.token_at) for each in records} == {TOKENS}


def test_an_answer_of_which_nobody_sees_anything_is_complete(pool: WorkerPool, tmp_path: Path) -> None:
    """It says so, and its tokens are in the rate all the same."""
    with serving("unseen") as server:
        records, summary, _ = load(pool, tmp_path, server)
    assert {(each.status, each.notes, each.output_tokens, len(each.token_at)) for each in records} == {
        ("completed", "invisible", TOKENS, 0)
    }
    assert summary.total.figures["ttft"].n == 0
    assert summary.total.throughput.output_tokens > 0
    assert "answers completed without any visible token" in to_text(run_document(summary))


def test_without_streaming_there_is_no_first_token(pool: WorkerPool, tmp_path: Path) -> None:
    """One answer, one moment: neither a first token nor a gap."""
    with serving("plain") as server:
        records, summary, _ = load(pool, tmp_path, server, stream=False)
    assert column(records, "output_tokens") == {TOKENS}
    assert {name: summary.total.figures[name].n for name in ("ttft", "service_ttft", "itl", "tpot")} == {
        "ttft": 0, "service_ttft": 0, "itl": 0, "tpot": 0,
    }  # fmt: skip
    assert summary.total.figures["e2e"].n == REQUESTS


def test_requests_are_asked_under_uuids(pool: WorkerPool, tmp_path: Path) -> None:
    """A server that takes nothing else answers all of them."""
    with serving("uuid") as server:
        records, _, _ = load(pool, tmp_path, server)
    assert column(records, "status") == {"completed"}
    assert set(server.truths) == column(records, "request_id")


@pytest.mark.parametrize(
    ("habit", "said"),
    [
        ("nousage, several tokens", "tpot_p50 cannot be judged: the server tells no counts"),
        ("burst", "itl_p50 cannot be judged: the answers came in one piece"),
    ],
)
def test_the_command_says_what_it_cannot_judge(tmp_path: Path, habit: str, said: str) -> None:
    """On the terminal, with exit 1: the run is not valid for the SLO that was asked."""
    bound = said.partition(" ")[0]
    with serving(habit) as server:
        command = [
            sys.executable, "-m", "harness", "bench", "--url", server.url, "--api", "openai-chat", "--users", "2",
            "--duration", "2s", "--warmup", "0s", "--input-tokens", "16", "--output-tokens", str(TOKENS),
            "--slo", f"{bound}=60ms", "--output", str(tmp_path / "run"), "--no-report",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert said in done.stdout
    assert "unjudged" in done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["validity"]["verdict"] == "invalid"
    assert summary["slo"]["bounds"][0]["holds"] is None


def test_every_habit_is_tried() -> None:
    """A habit that is added is loaded, or this fails."""
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in HABITS if f'"{name}"' not in text] == []


def test_the_truth_knows_its_own_tpot() -> None:
    """Of 12 tokens 9 came after the first event, in 0.9 s."""
    assert Truth([1.0, 1.3, 1.9], [3, 3, 6]).tpot == pytest.approx(0.1)
