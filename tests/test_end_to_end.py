"""The whole way as a user goes it, through the command line: emulator up, probe, bench, report; no GPU, no Docker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from harness.measure.journal import END, read_entries
from harness.measure.run_folder import RunFolder
from harness.measure.server import read_server
from harness.units import format_number
from tests.waiting import until

MODEL = "qwen2.5-0.5b"
ROOT = Path(__file__).resolve().parent.parent


def harness(*arguments: object, cwd: Path = ROOT, timeout: float = 180) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd)


def ours() -> list[str]:
    """Processes of the harness that this test's state folder started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if "harness." in command and os.environ["XDG_STATE_HOME"].encode() in environment:
                found.append(command)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One bench of two levels on the embedded engine, shared by the tests that look at what it left."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = harness(
        "bench", MODEL, "--runtime", "embedded", "--users", "1,4", "--duration", "4s", "--warmup", "1s",
        "--input-tokens", "uniform:40:90", "--output-tokens", "uniform:5:30", "--output", folder, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {"folder": folder, "printed": json.loads(done.stdout), "stderr": done.stderr}


def test_bench_leaves_every_file_of_the_contract(run: dict[str, Any]) -> None:
    """The run's folder holds what others rely on, and no journal is left over."""
    names = {path.name for path in run["folder"].iterdir()}
    promised = {
        "manifest.json",
        "stack.yaml",
        "records.parquet",
        "server.parquet",
        "summary.json",
        "report.html",
        "report.md",
    }
    assert promised <= names
    assert not [name for name in names if name.startswith("journal")]


def spread_out(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those with gaps: an answer that a starved client read in one go has none, by the limits of docs/metrics.md."""

    def in_one_piece(row: dict[str, Any]) -> bool:
        span, waited = row["token_at"][-1] - row["token_at"][0], row["token_at"][0] - row["sent_at"]
        return span < 2e-4 * (len(row["token_at"]) - 1) and span < 0.01 * waited

    return [row for row in rows if not in_one_piece(row)]


def test_the_summary_can_be_recounted_from_the_records(run: dict[str, Any]) -> None:
    """Counts, TTFT and ITL of each level come out again by a few lines over records.parquet alone."""
    summary = json.loads((run["folder"] / "summary.json").read_text())
    rows = pq.read_table(run["folder"] / "records.parquet").to_pylist()
    assert len({row["request_id"] for row in rows}) == len(rows)
    assert summary["requests"]["sent"] == sum(row["sent_at"] is not None for row in rows)
    for level in summary["levels"]:
        mine = [row for row in rows if row["level"] == level["level"]]
        for status in ("completed", "failed", "dropped"):
            assert level["requests"][status] == sum(row["status"] == status for row in mine)
        begin, end = level["window"]
        inside = [row for row in mine if row["status"] == "completed" and begin <= row["scheduled_at"] < end]
        waits = sorted(row["token_at"][0] - row["scheduled_at"] for row in inside)
        assert level["metrics"]["ttft"]["n"] == len(waits)
        assert level["metrics"]["ttft"]["max"] == pytest.approx(waits[-1])
        gaps = [b - a for row in spread_out(inside) for a, b in zip(row["token_at"], row["token_at"][1:], strict=False)]
        assert level["metrics"]["itl"]["mean"] == pytest.approx(sum(gaps) / len(gaps))


def test_ten_figures_by_hand(run: dict[str, Any]) -> None:
    """Of the highest level, by the formulas of docs/metrics.md over the rows alone; quantiles of type 7."""
    level = json.loads((run["folder"] / "summary.json").read_text())["levels"][-1]
    rows = [row for row in pq.read_table(run["folder"] / "records.parquet").to_pylist() if row["level"] == 1]
    begin, end = level["window"]
    done = [row for row in rows if row["status"] == "completed"]
    inside = [row for row in done if begin <= row["scheduled_at"] < end]
    waits = [row["token_at"][0] - row["scheduled_at"] for row in inside]
    streamed = spread_out(inside)
    gaps = [later - at for row in streamed for at, later in zip(row["token_at"], row["token_at"][1:], strict=False)]
    lasted = [row["finished_at"] - row["scheduled_at"] for row in inside]
    pace = [
        (row["token_at"][-1] - row["token_at"][0]) / sum(row["token_count"][1:])
        for row in streamed
        if sum(row["token_count"][1:]) and sum(row["token_count"]) == row["output_tokens"]
    ]
    tokens = sum(
        count
        for row in rows
        for at, count in zip(row["token_at"], row["token_count"], strict=True)
        if begin <= at < end
    )
    prompts = sum(row["input_tokens"] for row in rows if row["token_at"] and begin <= row["token_at"][0] < end)
    metrics, flow, length = level["metrics"], level["throughput"], end - begin
    by_hand = {
        "TTFT p50": (metrics["ttft"]["p50"], type_7(waits, 0.5)),
        "TTFT p95": (metrics["ttft"]["p95"], type_7(waits, 0.95)),
        "TTFT mean": (metrics["ttft"]["mean"], sum(waits) / len(waits)),
        "ITL p95": (metrics["itl"]["p95"], type_7(gaps, 0.95)),
        "ITL max": (metrics["itl"]["max"], max(gaps)),
        "TPOT p50": (metrics["tpot"]["p50"], type_7(pace, 0.5)),
        "end-to-end p99": (metrics["e2e"]["p99"], type_7(lasted, 0.99)),
        "requests/s": (flow["requests_per_second"], sum(begin <= row["finished_at"] < end for row in done) / length),
        "output tokens/s": (flow["output_tokens_per_second"], tokens / length),
        "input tokens/s": (flow["input_tokens_per_second"], prompts / length),
    }
    assert {name: told for name, (told, _) in by_hand.items()} == {
        name: pytest.approx(found) for name, (_, found) in by_hand.items()
    }


def type_7(values: list[float], level: float) -> float:
    """R. J. Hyndman and Y. Fan, 1996: between the order statistics around (n - 1) * level."""
    ordered, place = sorted(values), (len(values) - 1) * level
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def test_the_money_table_by_hand(run: dict[str, Any], tmp_path: Path) -> None:
    """2 USD for a GPU and hour, over the tokens of each level: generated, of prompts, and both."""
    made = harness("report", run["folder"], "--format", "markdown", "--price", "2", "--output", tmp_path)
    assert made.returncode == 0, made.stderr
    lines = (tmp_path / "report.md").read_text().splitlines()
    for level in json.loads((run["folder"] / "summary.json").read_text())["levels"]:
        flow = level["throughput"]
        out, into = flow["output_tokens_per_second"], flow["input_tokens_per_second"]
        cost = [2 / (rate * 3600 / 1e6) for rate in (out, into, out + into)]
        users = "1 user" if level["users"] == 1 else f"{level['users']} users"
        assert f"| {users} | {' | '.join(f'{format_number(each)} USD' for each in cost)} |" in lines


def test_ttft_is_taken_apart_by_the_engines_own_counters(run: dict[str, Any]) -> None:
    """Every part is told, none is below zero, they add up, and what is left over is less than what they explain."""
    for level in json.loads((run["folder"] / "summary.json").read_text())["levels"]:
        told = level["time_parts"]
        assert told["engine_counted"] == told["requests"] == level["requests"]["completed"]
        for whole in ("ttft", "e2e"):
            parts = {name: value for name, value in told[whole].items() if name not in ("mean", "computing")}
            rest = parts.pop("rest")
            assert all(value >= 0 for value in parts.values())
            assert sum(parts.values()) + rest == pytest.approx(told[whole]["mean"])
            assert abs(rest) < sum(parts.values())


def test_records_have_the_columns_of_the_contract_in_order(run: dict[str, Any]) -> None:
    """Names and types stay put for programs that read them."""
    schema = pq.read_schema(run["folder"] / "records.parquet")
    assert schema.names[:14] == [
        "request_id", "level", "scheduled_at", "sent_at", "first_byte_at", "token_at", "token_count", "finished_at",
        "input_tokens", "output_tokens", "finish_reason", "status", "error_kind", "session_id",
    ]  # fmt: skip
    assert str(schema.field("token_at").type) in ("list<element: double>", "list<item: double>")
    assert str(schema.field("token_count").type) in ("list<element: int32>", "list<item: int32>")


def test_tokens_are_the_servers_own_counts(run: dict[str, Any]) -> None:
    """Prompt lengths as meant, checked by the engine's tokenizer; answers as long as asked; events add up."""
    rows = pq.read_table(run["folder"] / "records.parquet").to_pylist()
    completed = [row for row in rows if row["status"] == "completed"]
    assert completed
    for row in completed:
        assert 40 <= row["input_tokens"] <= 90
        assert row["output_tokens"] == sum(row["token_count"])
        assert 5 <= row["output_tokens"] <= 30


def test_a_report_of_an_emulated_run_says_so_in_its_title(run: dict[str, Any]) -> None:
    """Markdown and HTML both; and the summary and the manifest too."""
    assert "mulated" in (run["folder"] / "report.md").read_text().splitlines()[0]
    page = (run["folder"] / "report.html").read_text()
    assert "mulated" in page[page.index("<title>") : page.index("</title>")]
    assert run["printed"]["emulated"] is True
    assert json.loads((run["folder"] / "manifest.json").read_text())["emulated"] is True


def test_progress_goes_to_stderr_and_one_document_to_stdout(run: dict[str, Any]) -> None:
    """--json prints the summary plus the path, nothing else."""
    assert run["printed"]["path"] == str(run["folder"])
    assert "writing to" in run["stderr"]


def test_the_engine_of_a_bench_is_stopped_afterwards(run: dict[str, Any]) -> None:
    """Nothing that it started is left."""
    assert ours() == []


def test_report_makes_the_same_summary_again(run: dict[str, Any], tmp_path: Path) -> None:
    """From the records alone, years later."""
    done = harness("report", run["folder"], "--format", "json", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads(
        (run["folder"] / "summary.json").read_text()
    )


def test_up_status_bench_down(tmp_path: Path) -> None:
    """`bench` uses what `up` started and leaves it running; `down` ends it."""
    try:
        started = harness("up", MODEL, "--runtime", "embedded", "--json")
        assert started.returncode == 0, started.stderr
        (service,) = json.loads(started.stdout)
        assert service["emulated"] is True
        assert service["limits"]["max_batch_total_tokens"] > 0
        (seen,) = json.loads(harness("status", "--json").stdout)
        assert seen["endpoint"] == service["endpoint"]
        assert seen["phase"] == "ready"
        measured = harness(
            "bench", MODEL, "--runtime", "embedded", "--users", "2", "--requests", "6", "--output-tokens", "5",
            "--output", tmp_path / "run", "--no-report", "--json",
        )  # fmt: skip
        assert measured.returncode == 0, measured.stderr
        assert json.loads(measured.stdout)["requests"]["completed"] == 6
        assert json.loads((tmp_path / "run" / "manifest.json").read_text())["url"] == service["endpoint"]
        assert len(json.loads(harness("status", "--json").stdout)) == 1
        assert "Connected" in harness("logs", MODEL).stdout
    finally:
        stopped = harness("down")
    assert stopped.returncode == 0
    assert ours() == []


def test_ctrl_c_during_a_load_leaves_a_report_and_nothing_running(tmp_path: Path) -> None:
    """Exit code 130, what was recorded is reported as incomplete, the engine is gone."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "harness", "bench", MODEL, "--runtime", "embedded", "--users", "2"]
    process = subprocess.Popen(
        [*command, "--duration", "60s", "--output", str(folder)], cwd=ROOT, stderr=subprocess.PIPE
    )
    until(lambda: _answered(folder), seconds=60)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert b"Traceback" not in stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["complete"] is False
    assert summary["validity"]["verdict"] == "invalid"
    assert ours() == []


def _answered(folder: Path) -> bool:
    """Whether the outcome of a request is on disk."""
    return any(kind == END for path in folder.glob("journal-*.log") for kind, *_ in read_entries(path))


def test_a_killed_bench_can_still_be_reported(tmp_path: Path) -> None:
    """kill -9 of everything leaves a folder of which a report is made, marked incomplete: of requests, and of what was
    read beside them.
    """
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "harness", "bench", MODEL, "--runtime", "embedded", "--users", "2"]
    process = subprocess.Popen(
        [*command, "--duration", "60s", "--output", str(folder)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: _answered(folder), seconds=60)
        until(lambda: read_server(RunFolder(folder)).series.keys() >= {"host_cpu_ratio", "running"}, seconds=60)
    finally:
        process.kill()
        process.wait()
    assert not (folder / "server.parquet").exists()
    made = harness("report", folder, "--format", "json")
    assert made.returncode == 0, made.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["complete"] is False
    assert summary["requests"]["completed"] > 0
    assert summary["server"]["running"] is not None
    assert harness("down").returncode == 0
    until(lambda: ours() == [], seconds=60)


@pytest.mark.parametrize(
    ("victim", "code", "said", "rule"),
    [
        ("harness.emulator", 0, "killed (signal 9)", "service_gone"),
        ("harness.load.worker", 4, "a load process was killed by signal 9", "lost_process"),
    ],
)
def test_what_is_killed_during_a_load_is_named(tmp_path: Path, victim: str, code: int, said: str, rule: str) -> None:
    """The engine or the load process dies: what was recorded is reported, and both stderr and the summary say why."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "harness", "bench", MODEL, "--runtime", "embedded", "--users", "2"]
    process = subprocess.Popen(
        [*command, "--duration", "60s", "--output", str(folder)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    until(lambda: _answered(folder), seconds=60)
    family = psutil.Process(process.pid).children(recursive=True)
    next(child for child in family if victim in child.cmdline()).kill()
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert said in stderr
    assert code or stderr.splitlines()[-1].startswith("harness: warning: the run is not valid (incomplete")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["complete"] is False
    assert rule in [reason["rule"] for reason in summary["validity"]["reasons"]]
    counts = summary["requests"]
    assert counts["sent"] == counts["completed"] + counts["failed"] + counts["in_flight_at_end"]
    assert ours() == []
