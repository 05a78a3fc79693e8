"""A user's own locustfile under `harness bench` and under Locust by hand: the same records, one by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness.measure.client import Floor
from tests.load.test_refusals import turning_away

pytestmark = pytest.mark.usefixtures("calibrated")
LOCUST = [sys.executable, "-m", "locust", "--headless", "--only-summary"]
BENCH = [sys.executable, "-m", "harness", "bench", "--warmup", "0s", "--workload", "mine.py", "--url"]
SAME = (
    "level", "session_id", "turn", "asked_input_tokens", "asked_output_tokens", "input_tokens", "output_tokens",
    "history_tokens", "status", "error_kind", "finish_reason", "notes", "http_status", "count_told",
)  # fmt: skip
CONVERSATIONS = """
from locust import task
from harness.load.user import StreamUser

class Talker(StreamUser):
    turns, think_time, history = "uniform:2:4", "uniform:10ms:40ms", "last(2)"
    system_tokens, input_tokens, output_tokens, api = 20, "uniform:5:30", 5, "openai-chat"
    weight = 3

class Agent(StreamUser):
    input_tokens, output_tokens, api = "uniform:5:30", 4, "openai-chat"

    def on_start(self):
        self.tools = ["search", "read"]

    @task
    def work(self):
        for tool in self.tools:
            reply = yield self.ask(tool + " " + self.words(9), tokens=10)
        yield self.ask(tokens=7 + reply.output_tokens)
"""
STEPS = """
from locust import LoadTestShape
from harness.load.user import StreamUser

class Short(StreamUser):
    input_tokens, output_tokens = "uniform:10:40", 6

class Steps(LoadTestShape):
    def tick(self):
        at = self.get_run_time()
        return None if at >= 4 else (3, 10) if at >= 2 else (1, 10)
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A service of the emulator's."""
    command = [sys.executable, "-m", "harness.emulator", "--model-id", "Qwen/Qwen2.5-0.5B-Instruct", "--port", "0"]
    environment = {**os.environ, "LOG_LEVEL": "error"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        yield next(line for line in process.stderr if b"listening on" in line).split()[-1].decode()
        process.terminate()
        process.stderr.read()


def run(command: list[str], here: Path, **environment: str) -> None:
    """In the folder of the locustfile."""
    done = subprocess.run(
        command, cwd=here, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def both(url: str, here: Path, file: str, bench: list[str], locust: list[str]) -> list[tuple[Path, dict[str, Any]]]:
    """Folder and records by id: of `bench`, and of Locust by hand. Both folders have the same name, since it is part
    of the ids.
    """
    (here / "mine.py").write_text(file)
    run([*BENCH, url, *bench, "--output", "bench/run"], here)
    run([*LOCUST, "-f", "mine.py", "--host", url, *locust], here, HARNESS_OUTPUT="hand/run")
    folders = [here / "bench/run", here / "hand/run"]
    return [
        (folder, {row["request_id"]: row for row in pq.read_table(folder / "records.parquet").to_pylist()})
        for folder in folders
    ]


def manifest(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return document


@pytest.mark.parametrize("processes", [1, 2])
def test_the_same_users_leave_the_same_records(url: str, tmp_path: Path, processes: int, calibrated: Floor) -> None:
    """Two classes by their weights, conversations by attributes and by a task, on_start; and the same folder."""
    share = ["--processes", str(processes)] if processes > 1 else []
    (benched, ours), (by_hand, theirs) = both(
        url,
        tmp_path,
        CONVERSATIONS,
        ["--users", "4", "--duration", "3s", *share],
        ["-u", "4", "-r", "4", "-t", "3s", *share],
    )
    common = ours.keys() & theirs.keys()
    assert len(common) > max(8, 0.6 * min(len(ours), len(theirs)))
    cut = {row["session_id"] for each in (ours, theirs) for row in each.values() if row["status"] != "completed"}
    for name in common:
        assert [ours[name][key] for key in SAME] == [theirs[name][key] for key in SAME]
    assert not cut
    for records in (ours, theirs):
        turns = Counter((row["session_id"], row["turn"]) for row in records.values())
        assert max(turns.values()) == 1
        users = Counter(int(session.split("-")[1]) % 10 for session, _ in turns)
        assert set(users) == {0, 1}
        assert users[0] > users[1]  # of four users three are talkers
    first, second = manifest(benched), manifest(by_hand)
    assert first.keys() == second.keys()
    assert first["workload"].keys() == second["workload"].keys()
    assert first["workload"]["hash"] == second["workload"]["hash"]
    for key in ("lengths", "seeds", "processes", "api", "stream", "model", "engine", "limits", "exact_lengths"):
        assert first[key] == second[key], key
    reports = {"report.html", "report.md", "summary.json"}
    assert {each.name for each in benched.iterdir()} - {each.name for each in by_hand.iterdir()} <= reports
    for folder in (benched, by_hand):
        assert (folder / "stack.yaml").read_text() == f"runtime: url\nurl: {url}\n"
        assert json.loads((folder / "client.json").read_text())["floor"] == asdict(calibrated)


def test_levels_of_a_shape_ask_the_same(url: str, tmp_path: Path) -> None:
    """In each level the same requests, users out of step by the same rule, and a warm-up of the same kind."""
    (benched, ours), (by_hand, theirs) = both(url, tmp_path, STEPS, [], [])
    levels = [manifest(folder)["levels"] for folder in (benched, by_hand)]
    assert [[each["users"] for each in told] for told in levels] == [[1, 3], [1, 3]]
    for told in levels:
        assert [each["jitter"] for each in told] == [0.02, 0.02]
        assert (told[0]["spread"], told[1]["spread"] > 0) == (None, True)
    for level in (0, 1):
        numbers = [sum(row["level"] == level for row in each.values()) for each in (ours, theirs)]
        common = [name for name in ours.keys() & theirs.keys() if ours[name]["level"] == level]
        assert len(common) > max(1, 0.6 * min(numbers))
    for name in ours.keys() & theirs.keys():
        assert [ours[name][key] for key in SAME] == [theirs[name][key] for key in SAME]


def test_nobody_goes_on_asking_who_is_always_turned_away(tmp_path: Path) -> None:
    """By hand too the level ends early, with the service's own words and the exit code of bench."""
    (tmp_path / "mine.py").write_text(
        "from harness.load.user import StreamUser\n\n\nclass Odd(StreamUser):\n"
        '    input_tokens, output_tokens, api, model_name = 16, 8, "openai-chat", "m"\n'
    )
    with turning_away() as (port, _):
        done = subprocess.run(
            [*LOCUST, "-f", "mine.py", "--host", f"http://127.0.0.1:{port}", "-u", "2", "-r", "2", "-t", "60s"],
            cwd=tmp_path, env={**os.environ, "HARNESS_OUTPUT": "run"}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "HTTP 400: stream_options is not permitted by" in done.stderr
    (level,) = manifest(tmp_path / "run")["levels"]
    assert (level["ended_by"], pq.read_table(tmp_path / "run/records.parquet").num_rows <= 20) == ("turned_away", True)


def test_a_run_by_hand_lasts_as_long_as_asked(url: str, tmp_path: Path) -> None:
    """From its first level on, whatever it takes before: neither the limit nor the stages of a shape pay for that."""
    slow = (
        "import time\nfrom harness.load import locust_pool\n\n"
        "take = locust_pool.LocustPool.take\n"
        "locust_pool.LocustPool.take = lambda self, plan: (time.sleep(1.5), take(self, plan))[1]\n\n"
    )
    for name, file, limit in (
        ("plain", slow + STEPS.partition("class Steps")[0], ["-u", "1", "-t", "2s"]),
        ("shape", slow + STEPS, []),
    ):
        here = tmp_path / name
        here.mkdir()
        (here / "mine.py").write_text(file)
        run([*LOCUST, "-f", "mine.py", "--host", url, *limit], here, HARNESS_OUTPUT="run")
        first = manifest(here / "run")["levels"][0]
        assert first["started_at"] >= 1.5
        assert first["sending_ended_at"] - first["started_at"] > 1.5
