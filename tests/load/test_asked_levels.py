"""Levels that are asked for one by one, each after what became of the one before is known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.load import live, runner
from harness.load.worker_pool import WorkerPool
from harness.measure.journal import read_journal
from harness.measure.records import COMPLETED, FAILED
from harness.measure.run_folder import Level
from tests.load.test_truth import engine, plan_for


def test_each_level_is_asked_for_when_the_one_before_is_on_disk(tmp_path: Path) -> None:
    """The next may then be chosen by its records; none needs to stand in the plan."""
    told: list[Level] = []
    seen: list[int] = []

    def asked() -> Iterator[Level]:
        users = 1
        for number in range(3):
            yield Level(number, users=users, requests=2 * users)
            assert told[-1].level == number
            assert told[-1].ended_by == "requests"
            records = read_journal(tmp_path).records
            seen.append(int((records.level == number).sum()))
            users = 1 + seen[-1]

    with engine(tmp_path / "truth.jsonl") as url, WorkerPool(2) as pool:
        plan = plan_for(url, tmp_path, processes=2)
        outcome = runner.run(plan, asked(), pool=pool, on_level=told.append)
    assert [level.users for level in outcome.levels] == [1, 3, 7]
    assert seen == [2, 6, 14]


def test_the_live_line_counts_what_is_of_its_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither answers nor failures of the level before, which had many more of both."""
    monkeypatch.setattr(live, "_EVERY", 0.0)
    lines: list[str] = []
    levels = [Level(0, users=20, requests=200), Level(1, users=1, duration=2.5)]
    with engine(tmp_path / "truth.jsonl", "--fault", "500", "--fault-share", "0.5") as url, WorkerPool(1) as pool:
        runner.run(plan_for(url, tmp_path), levels, pool=pool, show=lines.append)
    records = read_journal(tmp_path).records
    last = lines[-1]
    assert last.startswith("1 user ")
    for word, status in (("done", COMPLETED), ("failed", FAILED)):
        found = re.search(rf"(\d+) {word}", last)
        assert found is None or int(found[1]) <= (records.having(status) & (records.level == 1)).sum()
        assert (records.having(status) & (records.level == 0)).sum() > 50
    assert " done" in last
