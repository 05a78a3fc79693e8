"""Conversations against the emulator, held against what the server received: histories, order, sessions, ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.engines.endpoint import Endpoint
from harness.engines.framing import framed
from harness.engines.vocabulary import vocabulary_of
from harness.errors import UsageError
from harness.load import runner
from harness.load.plan import LoadOutcome, LoadPlan
from harness.load.worker_pool import WorkerPool
from harness.measure.journal import read_journal
from harness.measure.record import RequestRecord
from harness.measure.run_folder import Level
from harness.workload.chat import Chat
from harness.workload.lengths import parse_lengths
from harness.workload.pauses import parse_pauses
from harness.workload.vocabulary import assumed_vocabulary
from harness.workload.workload import drawn
from tests.load.recording_proxy import Said, recording, text_of
from tests.load.test_truth import engine

TURNS = 30
CHAT = Chat(drawn("chat", "uniform:3:8", "uniform:2:4", seed=5, salt="s"), turns=parse_lengths(str(TURNS)))
SCRIPT = """
from locust import between, task
from harness.load.user import StreamUser
from harness.load.worker_pool import WorkerPool

class Agent(StreamUser):
    input_tokens, output_tokens = "uniform:3:8", 3
    system_tokens = 12

    def on_start(self):
        self.tools = ["search", "read"]

    @task
    def work(self):
        reply = yield self.ask("plan: " + self.words(5))
        for tool in self.tools:
            reply = yield self.ask(f"{tool} says {len(reply.text)}: {reply.text[-4:]}", answer_tokens=2)

    @task(2)
    def chat(self):
        yield self.ask(tokens=7)
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A service of the emulator's that takes 2,000 tokens in all."""
    options = ["--model-id", "Qwen/Qwen2.5-0.5B-Instruct", "--port", "0", "--max-input-tokens", "1500",
               "--max-total-tokens", "2000"]  # fmt: skip
    command = [sys.executable, "-m", "harness.emulator", *options]
    environment = {**os.environ, "LOG_LEVEL": "error"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        yield next(line for line in process.stderr if b"listening on" in line).split()[-1].decode()
        process.terminate()
        process.stderr.read()


@pytest.fixture(scope="module")
def pools() -> Iterator[dict[int, WorkerPool]]:
    """One load process, and four, for all tests of this module."""
    with WorkerPool(4) as four, WorkerPool(1) as one:
        yield {1: one, 4: four}


def load(
    pool: WorkerPool,
    url: str,
    folder: Path,
    level: Level,
    workload: Chat = CHAT,
    api: str = "openai-chat",
    **rest: Any,
) -> tuple[list[RequestRecord], list[Said], LoadOutcome]:
    folder.mkdir(exist_ok=True)
    with recording(url) as (proxy, heard):
        plan = LoadPlan(
            url=proxy, api=api, model_name="tgi", stream=rest.pop("stream", True), timeout=20.0,
            workload=workload.as_dict(), seed=5, folder=str(folder), clock_monotonic=time.monotonic(),
            processes=len(pool.processes), **rest,
        )  # fmt: skip
        outcome = runner.run(plan, [level], pool=pool)
    return list(read_journal(folder).records), heard, outcome


def by_session(heard: list[Said]) -> dict[str, list[Said]]:
    found: dict[str, list[Said]] = {}
    for said in heard:
        assert said.session_id is not None
        found.setdefault(said.session_id, []).append(said)
    return found


def ends(folder: Path) -> dict[str, int]:
    notes = [note["ended"] for note in read_journal(folder).notes if note["kind"] == "session"]
    return {end: notes.count(end) for end in set(notes)}


@pytest.mark.parametrize("processes", [1, 4])
@pytest.mark.parametrize("loop", ["closed", "open"])
def test_a_history_holds_exactly_what_the_model_answered(
    url: str, pools: dict[int, WorkerPool], tmp_path: Path, loop: str, processes: int
) -> None:
    """Thirty turns, side by side, in any number of processes: each is sent when the answer before is in, with it."""
    asked = {"users": 4} if loop == "closed" else {"rate": 20.0, "arrival": "poisson"}
    level = Level(0, sessions=4, **asked)  # type: ignore[arg-type]
    records, heard, outcome = load(pools[processes], url, tmp_path, level)
    sessions = by_session(heard)
    assert sorted(sessions) == ["0-0", "0-1", "0-2", "0-3"]
    for said in sessions.values():
        messages: list[dict[str, str]] = []
        for one in said:
            assert one.asked["messages"][:-1] == messages
            messages = [*one.asked["messages"], {"role": "assistant", "content": text_of(one)}]
        assert len(said) == TURNS
    own = {record.request_id: record for record in records}
    assert len(own) == 4 * TURNS
    for name, said in sessions.items():
        turns = [own[one.request_id] for one in said]
        assert [(each.session_id, each.turn, each.status) for each in turns] == [
            (name, turn, "completed") for turn in range(1, TURNS + 1)
        ]
        for before, after in pairwise(turns):
            assert (after.sent_at or 0.0) >= (before.finished_at or 0.0)
    assert outcome.levels[0].ended_by == "sessions"
    assert ends(tmp_path) == {"completed": 4}


def test_the_same_seed_plays_the_same_conversations_in_any_number_of_processes(
    url: str, pools: dict[int, WorkerPool], tmp_path: Path
) -> None:
    """Word for word, as long as the model answers alike, whether users or arrivals begin them; the ids of requests too,
    in a folder of the same name.
    """
    workload = replace(CHAT, turns=parse_lengths("uniform:1:5"), think_time=parse_pauses("uniform:1ms:20ms"))
    loops: dict[str, dict[str, Any]] = {"closed": {"users": 4}, "open": {"rate": 20.0, "arrival": "poisson"}}
    seen = {}
    for processes, pool in pools.items():
        for loop, asked in loops.items():
            folder = tmp_path / f"{processes}-{loop}" / "run"
            folder.mkdir(parents=True)
            _, heard, _ = load(pool, url, folder, Level(0, sessions=8, **asked), workload)
            seen[processes, loop] = {
                name: [(one.request_id, one.asked["messages"][-1], one.asked["max_tokens"]) for one in said]
                for name, said in by_session(heard).items()
            }
    first, *others = seen.values()
    assert all(each == first for each in others)
    assert len({len(said) for said in first.values()}) > 1
    assert len(first) == 8


@pytest.mark.parametrize(("api", "stream"), [("tgi", True), ("tgi", False), ("openai-chat", False)])
def test_every_api_tells_the_text(
    url: str, pools: dict[int, WorkerPool], tmp_path: Path, api: str, stream: bool
) -> None:
    """Streamed or whole, as messages or as one text."""
    workload = replace(CHAT, turns=parse_lengths("4"))
    records, heard, _ = load(pools[1], url, tmp_path, Level(0, users=1, sessions=1), workload, api, stream=stream)
    assert [record.status for record in records] == ["completed"] * 4
    for before, after in pairwise(heard):
        if api == "tgi":
            text = text_of(before) if stream else _document(before)["generated_text"]
            assert after.asked["inputs"].startswith(f"{before.asked['inputs']}\n\n{text}\n\n")
        else:
            text = _document(before)["choices"][0]["message"]["content"]
            assert after.asked["messages"][:-1] == [
                *before.asked["messages"], {"role": "assistant", "content": text},
            ]  # fmt: skip


@pytest.mark.parametrize("api", ["openai-chat", "openai-completions", "tgi"])
@pytest.mark.parametrize("system", [0, 9])
def test_prompts_are_exactly_as_long_as_asked(
    url: str, pools: dict[int, WorkerPool], tmp_path: Path, api: str, system: int
) -> None:
    """By the server's own count, in every turn: its template, and what parts the messages, are counted in."""
    endpoint = Endpoint(url, model_name="tgi")
    words = framed(vocabulary_of(endpoint), endpoint, api, system=system > 0)
    assert words.framed
    base = drawn("exact", "uniform:60:90", "uniform:2:9", seed=2, vocabulary=words)
    workload = Chat(base, turns=parse_lengths("3"), system_tokens=system)
    records, _, _ = load(pools[1], url, tmp_path, Level(0, users=2, sessions=2), workload, api)
    assert len(records) == 6
    for record in records:
        assert record.input_tokens == record.asked_input_tokens
    first = [record.asked_input_tokens or 0 for record in records if record.turn == 1]
    assert all(60 + system <= tokens <= 90 + system for tokens in first)


def test_a_service_that_tells_no_counts_leaves_the_estimate(tmp_path: Path) -> None:
    """And it is called one."""
    with engine(tmp_path / "log") as silent:  # it knows /generate_stream alone
        words = framed(assumed_vocabulary(), Endpoint(silent), "openai-chat", system=False)
    assert words == assumed_vocabulary()
    assert words.framing()["overhead"] == "assumed"


def _document(said: Said) -> Any:
    return json.loads(said.answer)


@pytest.mark.parametrize("known", [True, False])
def test_a_history_that_no_longer_fits_ends_its_session(
    url: str, pools: dict[int, WorkerPool], tmp_path: Path, known: bool
) -> None:
    """In order, and counted. Where the limit is known nothing is refused; else one refusal teaches it."""
    base = drawn("long", "300", "20", seed=1)
    limits = {"prompt_most": 1500, "total_most": 2000} if known else {}
    workload = Chat(base, turns=parse_lengths("30"), **limits)
    records, _, _ = load(pools[1], url, tmp_path, Level(0, users=1, sessions=3), workload)
    assert ends(tmp_path) == {"history_full": 3}
    refused = [record for record in records if record.status == "failed"]
    assert len(refused) == (0 if known else 1)
    assert {record.error_kind for record in refused} <= {"validation"}
    longest = max(record.input_tokens or 0 for record in records)
    assert 1500 - 300 - 20 - 20 < longest <= 1500


def test_a_level_that_is_over_cuts_its_conversations(url: str, pools: dict[int, WorkerPool], tmp_path: Path) -> None:
    """What was sent is answered, nothing more is sent, and each cut is counted, in both loops."""
    workload = replace(CHAT, think_time=parse_pauses("30ms"))
    for number, asked in enumerate(({"users": 3}, {"rate": 8.0, "arrival": "constant"})):
        folder = tmp_path / str(number)
        level = Level(0, duration=0.8, **asked)  # type: ignore[arg-type]
        records, _, outcome = load(pools[1], url, folder, level, workload)
        (ended,) = outcome.levels
        assert ended.ended_by == "duration"
        assert {record.status for record in records} == {"completed"}
        assert max(record.scheduled_at for record in records) <= (ended.sending_ended_at or 0.0)
        begun = {record.session_id for record in records}
        assert ends(folder) == {"cut": len(begun)}
        if "rate" in asked:
            later = [record for record in records if record.turn != 1]
            assert all(0 <= (each.sent_at or 0.0) - each.scheduled_at < 0.5 for each in later)
            ending = {(each.session_id, each.turn): each.finished_at or 0.0 for each in records}
            gaps = [each.scheduled_at - ending[each.session_id, (each.turn or 0) - 1] for each in later]
            assert gaps == pytest.approx([0.03] * len(gaps))


@pytest.mark.parametrize("asked", [{"users": 2}, {"rate": 10.0, "arrival": "constant"}], ids=["closed", "open"])
def test_a_task_that_yields_is_a_conversation(
    url: str, pools: dict[int, WorkerPool], tmp_path: Path, asked: dict[str, Any]
) -> None:
    """It branches on answers, keeps what on_start made, and which task a conversation gets its number decides."""
    path = tmp_path / "agent.py"
    path.write_text(SCRIPT)
    (spec,) = pools[1].describe(str(path)).users
    workload = spec.workload(seed=1, salt="s")
    assert isinstance(workload, Chat)
    seen = []
    for run in ("a", "b"):
        level = Level(0, sessions=6, **asked)
        records, heard, _ = load(pools[1], url, tmp_path / run, level, workload, locustfile=str(path))
        sessions = by_session(heard)
        for said in sessions.values():
            first, *rest = said
            assert first.asked["messages"][0]["role"] == "system"
            assert len(rest) == (2 if first.asked["messages"][1]["content"].startswith("plan: ") else 0)
            for before, after in pairwise(said):
                tool, text = "search" if before is first else "read", text_of(before)
                assert after.asked["messages"][-1]["content"] == f"{tool} says {len(text)}: {text[-4:]}"
        seen.append({name: len(said) for name, said in sessions.items()})
        assert {record.status for record in records} == {"completed"}
    assert seen[0] == seen[1]
    assert set(seen[0].values()) == {1, 3}


def test_what_a_users_own_code_raises_is_named_with_its_line(
    url: str, pools: dict[int, WorkerPool], tmp_path: Path
) -> None:
    """In either loop; it is no fault of the service, nor of ours."""
    path = tmp_path / "agent.py"
    path.write_text(SCRIPT.replace("yield self.ask(tokens=7)", "(yield self.ask(tokens=7)).wisdom"))
    line = 1 + path.read_text().splitlines().index("        (yield self.ask(tokens=7)).wisdom")
    workload = pools[1].describe(str(path)).users[0].workload(seed=1)
    assert isinstance(workload, Chat)
    for number, asked in enumerate(({"users": 2}, {"rate": 20.0, "arrival": "constant"})):
        level = Level(0, sessions=9, **asked)  # type: ignore[arg-type]
        with WorkerPool(1) as pool, pytest.raises(UsageError) as caught:
            load(pool, url, tmp_path / str(number), level, workload, locustfile=str(path))
        assert caught.value.where == f"{path}:{line}"
        assert "AttributeError: 'Reply' object has no attribute 'wisdom'" in caught.value.found
