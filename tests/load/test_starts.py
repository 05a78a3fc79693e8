"""Users of a closed loop are kept from asking in step, and what that does to the figures."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from harness.catalog.gpus import find_gpu
from harness.catalog.shapes import shapes
from harness.load import runner
from harness.load.starts import JITTER
from harness.load.worker_pool import WorkerPool
from harness.measure.journal import read_journal
from harness.measure.record import RequestRecord
from harness.measure.records import Records
from harness.measure.run_folder import Level
from harness.simulator.cost import World, cost_of
from harness.simulator.memory import Budget, ServingPlan, budget, resolve
from harness.simulator.scheduler import EngineSettings
from harness.simulator.virtual import PlannedRequest, simulate
from harness.stats.figure import Figure
from harness.stats.summary import summarise
from tests.load.test_truth import engine, plan_for
from tests.runs import closed_level, manifest


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as one:
        yield one


def by_user(records: list[RequestRecord]) -> list[list[RequestRecord]]:
    """Records as chains: each follows the answer of the one before it, as a user's do."""
    chains: list[list[RequestRecord]] = []
    for record in sorted(records, key=lambda each: each.scheduled_at):
        ended = [chain for chain in chains if (chain[-1].finished_at or 0.0) <= record.scheduled_at]
        closest = max(ended, key=lambda chain: chain[-1].finished_at or 0.0, default=None)
        if closest is None:
            chains.append([record])
        else:
            closest.append(record)
    return chains


def test_starts_are_spread_over_an_answer_and_users_pause(pool: WorkerPool, tmp_path: Path) -> None:
    """By what the first answer promises, then by what answers took; the level says over how long."""
    with engine(tmp_path / "log", "--ttft-ms", "100", "--itl-ms", "20") as url:
        levels = (Level(0, users=4, duration=2.0), Level(1, users=8, duration=1.0))
        plan = plan_for(url, tmp_path, spread=True, jitter=0.1)
        outcome = runner.run(plan, levels, pool=pool)
    answer = 0.1 + 0.02 * 11
    records = list(read_journal(tmp_path).records)
    for level, users in ((outcome.levels[0], 4), (outcome.levels[1], 8)):
        assert level.spread == pytest.approx(answer, rel=0.25)
        assert level.jitter == 0.1
        began = level.started_at or 0.0
        own = [record for record in records if record.level == level.level]
        chains = by_user(own)
        starts = sorted((chain[0].scheduled_at - began) / (level.spread or 1.0) % 1.0 for chain in chains)
        assert len(starts) == users
        assert max(b - a for a, b in pairwise([*starts, 1.0 + starts[0]])) < 0.7
    first = by_user([record for record in records if record.level == 0])
    pauses = [b.scheduled_at - (a.finished_at or 0.0) for chain in first for a, b in pairwise(chain)]
    assert len({round(pause, 3) for pause in pauses}) > 5
    assert 0.3 * answer * 0.1 < statistics.fmean(pauses) < 3 * answer * 0.1


def test_without_them_all_begin_at_once(pool: WorkerPool, tmp_path: Path) -> None:
    """As the client's own benchmarks want it."""
    with engine(tmp_path / "log", "--ttft-ms", "50", "--itl-ms", "5") as url:
        outcome = runner.run(plan_for(url, tmp_path), [Level(0, users=6, requests=6)], pool=pool)
    sent = [record.scheduled_at for record in read_journal(tmp_path).records]
    assert max(sent) - min(sent) < 0.05
    assert (outcome.levels[0].spread, outcome.levels[0].jitter) == (None, None)


def median_ttft(seed: int, *, spread: bool, jitter: float) -> Figure:
    """Eight users of equal lengths on a made-up card, for two minutes of virtual time."""
    served = ServingPlan(shapes()["Llama-3.1-8B"], find_gpu("L4"))
    found = budget(served)
    assert isinstance(found, Budget)
    rules = EngineSettings(resolve(served).max_batch_prefill_tokens, found.tokens)
    rng, answer = random.Random(seed), 3.7

    def follow_up(record: RequestRecord, now: float) -> PlannedRequest:
        took = now - record.scheduled_at
        return PlannedRequest(now + rng.uniform(0.0, 0.001) + 2 * jitter * took * rng.random(), 300, 60)

    starts = [number / 8 * answer if spread else number / 5000 for number in range(8)]
    cost = cost_of(resolve(served), World(jitter=0.02, seed=seed))
    asked = [PlannedRequest(at + rng.uniform(0.0, 0.001), 300, 60) for at in starts]
    records = simulate(asked, rules, cost, until=120.0, follow_up=follow_up)
    for record in records:
        record.token_at, record.token_count = list(map(float, record.token_at)), list(map(int, record.token_count))
        record.count_told = "per_event"
    level = closed_level(0, 8, 0.0, 120.0)
    return summarise(Records.from_list(records), manifest([level])).levels[0].figures["ttft"]


def test_the_median_ttft_differs_from_run_to_run_by_what_its_interval_says() -> None:
    """In step it is that of the step that the users fell into, which is another thing altogether."""
    runs = [median_ttft(seed, spread=True, jitter=JITTER) for seed in range(8)]
    found = [figure.value("p50") for figure in runs]
    own = statistics.median((high - low) / 2 / 1.96 for low, high in (figure.ci95["p50"] for figure in runs))
    assert statistics.stdev(found) < 2 * own
    in_step = median_ttft(0, spread=False, jitter=0.0).value("p50")
    assert in_step > 2 * max(found)
