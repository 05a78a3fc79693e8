"""`bench --explain`: what would be sent, known beforehand; no service is there to be asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.drive.bench_options import BenchOptions, plan_of
from harness.drive.bench_run import explain_bench
from harness.drive.explain import Explanation
from harness.errors import UsageError
from harness.serve.target import Target
from tests.workload.traces.samples import AZURE, WEKA

CATALOGUE = "models: {m: {repo: Qwen/Qwen2.5-0.5B-Instruct, gpu: L4, gpus: 2, price_per_gpu_hour: 3.0}}\n"
TALKS = """
from locust import task
from harness.load.user import StreamUser

class Attributes(StreamUser):
    input_tokens, output_tokens, turns, system_tokens = 10, 4, 3, 20

class Tasks(StreamUser):
    input_tokens = output_tokens = 5
    weight = 3

    @task
    def work(self):
        reply = yield self.ask()
        assert len(reply.text.split()) == 5
        yield self.ask(answer_tokens=7)
"""


def explained(**options: object) -> Explanation:
    return explain_bench(Target(url="http://127.0.0.1:9"), plan_of(BenchOptions(**options)), lambda text: None)  # type: ignore[arg-type]


def test_conversations_are_played_with_made_up_answers(tmp_path: Path) -> None:
    """Attributes and tasks, by their weights; the history counts, and an open loop has a number of them."""
    path = tmp_path / "talks.py"
    path.write_text(TALKS)
    told = explained(workload=str(path), rate="5", duration="100s")
    document = told.as_json()
    shapes = {tuple(request[:3] for request in each) for each in told.played}
    assert shapes == {
        ((30, 4, 20), (44, 4, 34), (58, 4, 48)),
        ((5, 5, 0), (15, 7, 10)),
    }
    assert 0.15 < sum(len(each) == 3 for each in told.played) / len(told.played) < 0.35
    (level,) = document["levels"]
    assert (level["begun"], level["seconds"], document["cost"]) == (500.0, 100.0, None)
    assert level["requests"] == pytest.approx(500 * document["requests_per_conversation"])
    assert document["longest_request_tokens"] == 62
    assert "500" in told.as_text()


def test_a_trace_is_counted_whole(tmp_path: Path) -> None:
    """All its rows, and as long as it lasts."""
    path = tmp_path / "azure.csv"
    path.write_text(AZURE)
    rows = [line.split(",") for line in AZURE.strip().splitlines()[1:]]
    (level,) = explained(trace=path).as_json()["levels"]
    assert level["requests"] == len(rows)
    assert level["input_tokens"] == pytest.approx(sum(int(row[1]) for row in rows))
    assert level["output_tokens"] == pytest.approx(sum(int(row[2]) for row in rows))
    assert explained(trace=path).as_text().endswith("All levels: 60.0 s")
    path.write_text(WEKA)
    assert "All levels: 12.0 s, or more where turns wait for their answers" in explained(trace=path).as_text()


def test_what_only_the_engine_decides_is_left_open(tmp_path: Path) -> None:
    """A closed loop asks as often as it is answered; its time has a price."""
    catalogue = tmp_path / "models.yaml"
    catalogue.write_text(CATALOGUE)
    options = plan_of(BenchOptions(users="1,4", duration="30m"))
    told = explain_bench(Target(model="m", catalogue=str(catalogue)), options, lambda text: None)
    assert [each.requests for each in told.forecasts] == [None, None]
    assert (told.seconds, told.cost) == (3600.0, 6.0)
    assert "as answered" in told.as_text()


def test_a_mistake_is_named_as_in_a_run(tmp_path: Path) -> None:
    """With the line of the user's own code."""
    path = tmp_path / "talks.py"
    path.write_text(TALKS.replace("yield self.ask(answer_tokens=7)", "reply.wisdom"))
    with pytest.raises(UsageError, match=r"talks.py:16: a user failed: AttributeError"):
        explained(workload=str(path), users="2")
