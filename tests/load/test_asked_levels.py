"""Levels that are asked for one by one, each after what became of the one before is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.load import runner
from harness.load.worker_pool import WorkerPool
from harness.measure.journal import read_journal
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
        plan = plan_for(url, tmp_path, Level(0, users=1), processes=2)
        outcome = runner.run(plan, pool=pool, on_level=told.append, asked=asked())
    assert [level.users for level in outcome.levels] == [1, 3, 7]
    assert seen == [2, 6, 14]
