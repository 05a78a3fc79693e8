"""Sessions of a trace: no turn before its own moment, nor before what it waits for is answered and thought about."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.load import runner
from harness.load.plan import LoadPlan
from harness.load.worker_pool import WorkerPool
from harness.measure.arrivals import TRACE
from harness.measure.clock import Anchor
from harness.measure.journal import read_journal
from harness.measure.record import RequestRecord
from harness.measure.run_folder import Level
from harness.workload.traces.window import Window
from harness.workload.workload import replayed
from tests.load.test_truth import engine

# Answers of 12 tokens take about 130 ms: sessions a and b are asked again too soon, c is not; the others are alone.
ROWS = [(0, "a"), (10, "a"), (20, "a"), (5, "b"), (60, "b"), (30, "c"), (900, "c"), (40, ""), (50, ""), (70, "")]
TOO_SOON = {("a", 2), ("a", 3), ("b", 2)}


# An agent with a sub-agent between its first two turns. All but its third were answered within 20 ms when recorded.
AGENT = {
    "id": "g",
    "block_size": 64,
    "requests": [
        {"t": 0.0, "in": 20, "out": 12, "api_time": 0.02},
        {
            "t": 0.11,
            "type": "subagent",
            "agent_id": "x",
            "duration_ms": 90,
            "requests": [
                {"t": 0.0, "in": 20, "out": 12, "api_time": 0.02},
                {"t": 0.05, "in": 20, "out": 12, "api_time": 0.02},
            ],
        },
        {"t": 0.12, "in": 20, "out": 12, "api_time": 0.02},
        {"t": 0.5, "in": 20, "out": 12, "api_time": 3.0},
        {"t": 4.0, "in": 20, "out": 12, "api_time": 0.02},
    ],
}
PAUSES = {("g/x", 1): 0.0, ("g/x", 2): 0.03, ("g", 2): 0.03, ("g", 3): 0.36, ("g", 4): 0.5}
OFFSETS = {("g/x", 1): 0.02, ("g/x", 2): 0.07, ("g", 2): 0.12, ("g", 3): 0.5, ("g", 4): 4.0}


def sent(
    path: Path, tmp_path: Path, processes: int, window: Window | None = None
) -> tuple[Level, list[RequestRecord], list[str]]:
    """The level of this trace, its records, and what was said of it; answers of 12 tokens take about 130 ms."""
    workload, folder, said = replayed(path, window, seed=1), tmp_path / "run", list[str]()
    folder.mkdir()
    with engine(tmp_path / "truth.jsonl") as url, WorkerPool(processes) as pool:
        plan = LoadPlan(
            url=url, api="tgi", model_name="", stream=True, timeout=30.0, workload=workload.as_dict(), seed=1,
            folder=str(folder), clock_monotonic=Anchor.now().monotonic, processes=processes,
        )  # fmt: skip
        levels = [Level(0, arrival=TRACE)]
        (level,) = runner.run(plan, levels, pool=pool, progress=said.append, show=lambda line: None).levels
    records = list(read_journal(folder).records)
    assert {record.status for record in records} == {"completed"}
    return level, records, said


@pytest.mark.parametrize("speed", [1.0, 2.0])
@pytest.mark.parametrize("processes", [1, 3])
def test_a_pause_follows_the_answer_and_agents_wait_for_theirs(tmp_path: Path, processes: int, speed: float) -> None:
    """As long as was recorded, at the pace of the replay, whenever the answer comes; what has time keeps its moment."""
    path = tmp_path / "agent.json"
    path.write_text(json.dumps(AGENT))
    level, records, _ = sent(path, tmp_path, processes, Window(speed=speed))
    found = {(record.session_id or "", record.turn or 0): record for record in records}
    assert len(found) == len(records) == 6
    before = {("g/x", 1): [("g", 1)], ("g", 2): [("g", 1), ("g/x", 2)]}
    moved = 0
    for (session, turn), pause in PAUSES.items():
        ends = [found[each].finished_at or 0.0 for each in before.get((session, turn), [(session, turn - 1)])]
        own = (level.started_at or 0.0) + OFFSETS[session, turn] / speed
        free, due = max(ends) + pause / speed, found[session, turn].scheduled_at
        assert due == pytest.approx(own) if free < own - 0.25 else due >= max(free, own)
        assert due - max(free, own) < 0.25  # until it was known that the answer is over
        moved += due > own + 1e-6
    assert level.moved_turns == moved > 3


@pytest.mark.parametrize("processes", [1, 3])
def test_a_turn_waits_for_the_answer_before(tmp_path: Path, processes: int) -> None:
    """Whatever process its session falls to; all others keep their moments, and what was moved is counted and said."""
    path = tmp_path / "trace.csv"
    lines = [f"{moment},20,12,{session}" for moment, session in sorted(ROWS)]
    path.write_text("\n".join(["arrival_ms,input_tokens,output_tokens,session_id", *lines]) + "\n")
    level, records, said = sent(path, tmp_path, processes)
    assert len(records) == len(ROWS)
    began, recorded = level.started_at or 0.0, iter(sorted(ROWS))
    due = dict[tuple[str, int], float]()
    for moment, session in recorded:
        due[session, sum(each == session for each, _ in due) + 1] = began + moment / 1000
    found = {(record.session_id, record.turn): record for record in records if record.session_id}
    assert len(found) == 7
    moved = []
    for (session, turn), record in found.items():
        assert record.sent_at is not None
        before = found.get((session, (turn or 0) - 1))
        answered = 0.0 if before is None else before.finished_at or 0.0
        own = due[session or "", turn or 0]
        assert record.sent_at >= max(own, answered)
        if answered > own:
            moved.append((session, turn))
            assert record.scheduled_at == pytest.approx(record.sent_at)  # its wait for itself is not the service's
        else:
            assert record.scheduled_at == pytest.approx(own)
    assert set(moved) == TOO_SOON
    assert level.moved_turns == len(TOO_SOON)
    assert 0.0 < (level.moved_mean or 0.0) <= (level.moved_max or 0.0)
    assert [line for line in said if line.startswith("3 turns of the trace waited for the answer before")]
