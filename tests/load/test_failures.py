"""A service that answers nothing but errors, and users that are taken away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.engines.error_kinds import error_words
from harness.load import live, runner
from harness.measure.journal import read_journal
from harness.measure.run import keep_records
from harness.measure.run_folder import Level, RunFolder, write_manifest
from harness.stats.summary import summarise
from tests.load.test_truth import engine, plan_for
from tests.runs import manifest


@pytest.fixture(scope="module")
def crew() -> Iterator[runner.Crew]:
    with runner.Crew(1) as one:
        yield one


@pytest.mark.parametrize("fault", ["429", "sse"])
def test_failures_at_once_are_not_repeated_at_once(
    crew: runner.Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Users back off; where nothing ever succeeds the level ends, with the server's own words."""
    monkeypatch.setattr(live, "FAILING_AFTER", 1.0)
    faults = ["--fault", fault, "--fault-share", "1", "--ttft-ms", "0", "--itl-ms", "0"]
    with engine(tmp_path / "log", *faults) as url:
        plan = plan_for(url, tmp_path, Level(0, users=2, duration=30.0))
        outcome = runner.run(plan, crew=crew)
    (level,) = outcome.levels
    assert level.ended_by == "failing"
    records = list(read_journal(tmp_path).records)
    assert {record.status for record in records} <= {"failed", "in_flight"}
    seconds = (level.sending_ended_at or 0.0) - (level.started_at or 0.0)
    assert len(records) < 20 + 15 * seconds  # it was thousands a second
    assert outcome.words
    folder = RunFolder(tmp_path)
    write_manifest(folder, manifest(outcome.levels))
    run = keep_records(folder)
    assert summarise(run.records, run.manifest, run.facts).as_dict()["errors_said"] == [outcome.words]


def test_a_service_that_answers_now_and_then_is_not_given_up(
    crew: runner.Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failures are what such a level is about; a success ends the backing off."""
    monkeypatch.setattr(live, "FAILING_AFTER", 0.5)
    faults = ["--fault", "429", "--fault-share", "0.7", "--ttft-ms", "5", "--itl-ms", "1"]
    with engine(tmp_path / "log", *faults) as url:
        outcome = runner.run(plan_for(url, tmp_path, Level(0, users=2, duration=3.0)), crew=crew)
    assert outcome.levels[0].ended_by == "duration"
    assert len(list(read_journal(tmp_path).records)) > 20


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": "Model is overloaded", "error_type": "overloaded"}', "Model is overloaded"),
        (b'data:{"error":{"message":"too\\nlong","http_status_code":422}}\n\n', "too long"),
        (b'data: {"token": 1}\n\ndata: {"error": "out of memory"}\n\ndata: [DONE]\n\n', "out of memory"),
        (b'data: {"token": 1}\n\n', None),
        (b'{"detail": [{"msg": "field required"}]}', '{"detail": [{"msg": "field required"}]}'),
        (b"<html>\x1b[31mBad\x00 Gateway", "<html> [31mBad Gateway"),
        (b"x" * 5000, "x" * 300),
        (b"", None),
    ],
)
def test_the_servers_words_are_shown_on_one_line(body: bytes, words: str | None) -> None:
    """Whatever it answers, without what would harm a terminal."""
    assert error_words(body) == words
