"""Locust run by hand on locustfiles: what it leaves must be a run like any other, however many processes took part."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness.load.request_ids import request_id
from harness.workload.mix import SLOTS
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("calibrated")
LOCUST = [sys.executable, "-m", "locust", "--only-summary"]
SHORT = """
from harness.load.user import StreamUser

class ShortUser(StreamUser):
    input_tokens = "uniform:10:40"
    output_tokens = 6
"""
STEPS = """
from locust import LoadTestShape

class Steps(LoadTestShape):
    def tick(self):
        at = self.get_run_time()
        return None if at > 5.5 else (3, 10) if 1.5 <= at < 3.5 else (1, 10)
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A service of the emulator's."""
    command = [sys.executable, "-m", "harness.emulator", "--model-id", "Qwen/Qwen2.5-0.5B-Instruct", "--port", "0"]
    environment = {**os.environ, "LOG_LEVEL": "error"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        found = next(line for line in process.stderr if b"listening on" in line)
        yield found.split()[-1].decode()
        process.terminate()
        process.stderr.read()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a short workload, whose runs go to the folder `out`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_OUTPUT", "runs/out")
    (tmp_path / "short.py").write_text(SHORT)
    return tmp_path


def locust(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*LOCUST, "--headless", *arguments], capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "records.parquet").to_pylist()


@cache
def owners(*, mixed: bool = False) -> dict[str, int]:
    """Which of two processes asked under which id, in the first level of runs/out: each has every other number, of two
    user classes every other one of each.
    """
    single = {request_id("out", 1, 0, number): number % 2 for number in range(20_000)}
    return single if not mixed else {request_id("out", 1, 0, number): number // SLOTS % 2 for number in range(20_000)}


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def report(folder: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "harness", "report", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "report.html").exists()
    return json.loads((folder / "summary.json").read_text())


def test_shipped_locustfile_runs_by_hand(url: str, here: Path) -> None:
    """One process: records as `bench` writes them, all answers awaited, and a report afterwards."""
    done = locust("-f", str(ROOT / "locustfiles" / "chat.py"), "--host", url, "-u", "3", "-r", "3", "-t", "3s")
    assert done.returncode == 0, done.stderr
    assert "harness report runs/out" in done.stderr
    summary, records = report(here / "runs/out"), rows(here / "runs/out")
    assert summary["complete"] is True
    assert summary["emulated"] is True
    assert summary["users"] == 3
    assert summary["requests"]["completed"] == len(records) >= 3
    assert summary["client"]["cpu_fraction_max"] is not None
    assert manifest(here / "runs/out")["workload"]["name"] == "chat"
    assert all(row["input_tokens"] == row["asked_input_tokens"] for row in records)
    assert not list((here / "runs/out").glob("journal-*"))
    scraped = pq.read_table(here / "runs/out/server.parquet").column("metric").to_pylist()
    assert "harness:running" in scraped
    assert manifest(here / "runs/out")["lengths"]["input_tokens"]["p50"] > 8


def test_run_time_begins_when_the_users_do(url: str, here: Path) -> None:
    """A locustfile that takes longer to load than the run may last has its whole run time all the same."""
    wait = "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass\n"
    (here / "slow.py").write_text(SHORT + wait)
    done = locust("-f", "slow.py", "--host", url, "-u", "1", "-t", "1s")
    assert done.returncode == 0, done.stderr
    assert len(rows(here / "runs/out")) > 1


def test_processes_and_several_users_make_one_run(url: str, here: Path) -> None:
    """Workloads mix as Locust weighs them; no request id and no prompt length repeats from process to process."""
    (here / "long.py").write_text(SHORT.replace("ShortUser", "LongUser").replace("10:40", "300:400"))
    done = locust("-f", "short.py,long.py", "--host", url, "-u", "4", "-r", "4", "-t", "2s", "--processes", "2")
    assert done.returncode == 0, done.stderr
    records, kept = rows(here / "runs/out"), manifest(here / "runs/out")
    assert kept["processes"] == 2
    assert kept["workload"]["name"] == "short+long"
    assert len({row["request_id"] for row in records}) == len(records)
    by_process: dict[int, list[int]] = {}
    for row in sorted(records, key=lambda row: row["sent_at"]):
        by_process.setdefault(owners(mixed=True)[row["request_id"]], []).append(row["input_tokens"])
    first, second = by_process.values()
    assert first[:20] != second[:20]
    assert any(length <= 41 for length in first + second)
    assert any(length >= 300 for length in first + second)
    assert report(here / "runs/out")["requests"]["sent"] == len(records)


def test_change_of_users_begins_a_level(url: str, here: Path) -> None:
    """Figures of one number of users are never mixed with those of another. Answers of users that are taken away still
    come: neither the level before nor Locust counts them as failures.
    """
    (here / "steps.py").write_text(SHORT.replace("output_tokens = 6", "output_tokens = 25") + STEPS)
    done = locust("-f", "steps.py", "--host", url)
    assert done.returncode == 0, done.stderr
    levels = report(here / "runs/out")["levels"]
    assert [level["users"] for level in levels] == [1, 3, 1]
    assert [level["ended_by"] for level in levels] == ["users_changed", "users_changed", "stopped"]
    assert all(level["requests"]["completed"] > 3 for level in levels)
    assert {row["status"] for row in rows(here / "runs/out")} == {"completed"}
    first, second, _ = manifest(here / "runs/out")["levels"]
    assert first["sending_ended_at"] <= second["started_at"]


def _other_machine(folder: Path, command: list[str]) -> list[str]:
    """The command with a clock of its own and without sight of the folder: another machine, as far as it can tell."""
    inner = ["unshare", "--time", "--monotonic", "100000", "--fork", "--kill-child", *command]
    script = 'mount -t tmpfs none "$0" && exec "$@"'
    return ["unshare", "--mount", "bash", "-c", script, str(folder), *inner]


def test_workers_of_other_machines_hand_in_their_records(url: str, here: Path) -> None:
    """Master, a worker beside it, and one with another clock and no sight of the folder: one store, one clock."""
    (here / "runs").mkdir()
    if subprocess.run(_other_machine(here / "runs", ["true"]), capture_output=True).returncode != 0:
        pytest.skip("needs the right to make namespaces (root)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    worker = [*LOCUST, "-f", "short.py", "--worker", "--master-port", port]
    workers = [worker, _other_machine(here / "runs", worker)]
    started = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True) for each in workers]
    done = locust(
        "-f", "short.py", "--host", url, "-u", "4", "-r", "4", "-t", "5s", "--master", "--expect-workers", "2",
        "--master-bind-host", "127.0.0.1", "--master-bind-port", port,
    )  # fmt: skip
    said = [process.communicate(timeout=30)[1] for process in started]
    assert done.returncode == 0, done.stderr
    assert ["known to within" in text for text in said] == [False, True], said
    records, (level,) = rows(here / "runs/out"), manifest(here / "runs/out")["levels"]
    assert {owners()[row["request_id"]] for row in records} == {0, 1}
    assert all(0.0 <= row["sent_at"] <= level["sending_ended_at"] + 0.1 for row in records)
    assert {row["status"] for row in records} == {"completed"}


def test_lost_worker_is_named(url: str, here: Path) -> None:
    """What it had written stays, and the run does not stand."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    worker = [*LOCUST, "-f", "short.py", "--worker", "--master-port", port]
    started = [subprocess.Popen(worker, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    master = subprocess.Popen(
        [*LOCUST, "--headless", "-f", "short.py", "--host", url, "-u", "4", "-r", "4", "-t", "9s", "--master",
         "--expect-workers", "2", "--master-bind-host", "127.0.0.1", "--master-bind-port", port],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: all((here / f"runs/out/journal-{number}.log").exists() for number in (0, 1)), seconds=60)
    time.sleep(1.5)
    started[0].kill()
    said = master.communicate(timeout=60)[1]
    for process in started:
        process.communicate(timeout=30)
    assert re.search(r"worker [01] was lost", said), said
    summary = report(here / "runs/out")
    assert "lost_process" in {reason["rule"] for reason in summary["validity"]["reasons"]}
    assert {owners()[row["request_id"]] for row in rows(here / "runs/out")} == {0, 1}


def test_worker_that_cannot_take_part_says_why_on_the_master(url: str, here: Path) -> None:
    """Its key, of its own environment, fits no header: wrong usage, with the worker's name and without the key."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [*LOCUST, "-f", "short.py", "--worker", "--master-port", port]
    environment = {**os.environ, "HARNESS_API_KEY": "sesame\n"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as worker:
        done = locust(
            "-f", "short.py", "--host", url, "-u", "1", "-t", "9s", "--master", "--expect-workers", "1",
            "--master-bind-host", "127.0.0.1", "--master-bind-port", port,
        )  # fmt: skip
        said = worker.communicate(timeout=30)[1]
    assert (done.returncode, worker.returncode) == (2, 2), done.stderr + said
    assert re.search(r"worker \S+: HARNESS_API_KEY: holds a line end", done.stderr), done.stderr
    assert "fault of" not in done.stderr
    assert "sesame" not in done.stderr + said


def test_killed_run_can_still_be_reported(url: str, here: Path) -> None:
    """kill -9 leaves journals, of which a report is made that says it is incomplete."""
    process = subprocess.Popen(
        [*LOCUST, "--headless", "-f", "short.py", "--host", url, "-u", "2"], stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: any(path.stat().st_size > 2000 for path in here.glob("runs/out/journal-*")), seconds=60)
    finally:
        process.kill()
        process.wait()
    summary = report(here / "runs/out")
    assert summary["complete"] is False
    assert summary["requests"]["completed"] > 0


@pytest.mark.parametrize(("limit", "complete"), [((), True), (("-t", "60s"), False)])
def test_ctrl_c_ends_a_run_in_order(url: str, here: Path, limit: tuple[str, ...], complete: bool) -> None:
    """Answers are awaited. Without a limit it is Locust's usual end; before the limit, less than was asked for."""
    command = [*LOCUST, "--headless", "-f", "short.py", "--host", url, "-u", "2", *limit]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until(lambda: any(path.stat().st_size > 2000 for path in here.glob("runs/out/journal-*")), seconds=60)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    assert report(here / "runs/out")["complete"] is complete
    assert {row["status"] for row in rows(here / "runs/out")} == {"completed"}


@pytest.mark.parametrize(
    ("host", "change", "code", "said"),
    [
        ("", {}, 2, "--host"),
        ("http://127.0.0.1:9", {}, 4, "http://127.0.0.1:9: no answer"),
        (None, {"uniform:10:40": "some"}, 2, "'some'"),
        (None, {"output_tokens = 6": 'api = "soap"'}, 2, "unknown api 'soap'"),
        (None, {"output_tokens = 6": 'workload = "chats"'}, 2, "Did you mean chat?"),
    ],
)
def test_wrong_input_ends_in_one_line(
    url: str, here: Path, host: str | None, change: dict[str, str], code: int, said: str
) -> None:
    """The harness's words and exit codes, under Locust too."""
    text = SHORT
    for old, new in change.items():
        text = text.replace(old, new)
    (here / "short.py").write_text(text)
    done = locust("-f", "short.py", "-t", "5s", *(["--host", url if host is None else host] if host != "" else []))
    assert done.returncode == code, done.stderr
    assert said in done.stderr


def test_folder_that_is_in_use_is_not_written_into(url: str, here: Path) -> None:
    """A folder with other things in it is refused; a second run gets a folder beside the first."""
    (here / "runs/out").mkdir(parents=True)
    (here / "runs/out/thesis.txt").write_text("mine")
    refused = locust("-f", "short.py", "--host", url, "-t", "1s")
    assert refused.returncode == 2
    assert "not empty" in refused.stderr
    (here / "runs/out/thesis.txt").rename(here / "runs/out/manifest.json")
    assert locust("-f", "short.py", "--host", url, "-t", "2s").returncode == 0
    assert rows(here / "runs/out-2")


@pytest.mark.parametrize(
    ("arguments", "environment", "hosts"),
    [
        ([], {}, "127.0.0.1 127.0.0.1"),
        (["--web-host", "0.0.0.0", "--master-bind-host", "*"], {}, "0.0.0.0 *"),
        ([], {"LOCUST_WEB_HOST": "10.0.0.1"}, "10.0.0.1 127.0.0.1"),
    ],
)
def test_locust_listens_on_this_host_unless_asked_otherwise(
    arguments: list[str], environment: dict[str, str], hosts: str
) -> None:
    """Its page starts load for whoever reaches it, and its master obeys whoever connects."""
    script = (
        "import sys, harness.load.user; from locust.argument_parser import get_parser\n"
        "told = get_parser().parse_args(sys.argv[1:]); print(told.web_host, told.master_bind_host)"
    )
    command = [sys.executable, "-c", script, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=True)
    assert ended.stdout.strip() == hosts
