"""The whole way on a real engine: llama.cpp's own server with a model of random weights, through the command line."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow.parquet as pq
import pytest
import requests

from harness import cli
from harness.drive import calibration
from harness.engines import engine_named
from harness.engines.endpoint import Endpoint
from harness.engines.gauges import Gauges
from harness.engines.llamacpp.flags import FLAGS, build
from harness.measure.client import Floor
from harness.stack.ports import port_taken
from harness.stack.readiness import gauges_now
from harness.stack.state import recall_all
from tests.hub import COMMIT, TOKEN, Hub, running_hub
from tests.llama.running import CHAT
from tests.waiting import until

ENTRIES = """
defaults:
  engine: {{name: llamacpp}}
  start_timeout: 60s
models:
  split:
    repo: {model}
    limits: {{max_total_tokens: 2000, max_batch_size: 2, max_batch_prefill_tokens: 64}}
  shared:
    repo: {folder}
    file: {file}
    limits: {{max_total_tokens: 1000, max_batch_size: 3}}
    kv_cache_dtype: q8_0
    engine: {{args: [--kv-unified]}}
  own:
    repo: {model}
  pinned:
    repo: org/tiny-GGUF
    revision: {commit}
    file: tiny.gguf
  missing:
    repo: /nowhere/none.gguf
  text:
    repo: {text}
  too-large:
    repo: {model}
    kv_cache_dtype: f32
    limits: {{max_batch_total_tokens: 8000000, max_batch_size: 1}}
  wrong-value:
    repo: {model}
    engine: {{args: [--flash-attn, perhaps]}}
  unknown-argument:
    repo: {model}
    engine: {{args: [--nope]}}
  safetensors:
    repo: org/plain
  no-such-file:
    repo: org/tiny-GGUF
    revision: {commit}
    file: other.gguf
  gated:
    repo: org/gated
    revision: {commit}
    file: tiny.gguf
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, llama_server: Path, llama_model: Path) -> Path:
    """A working directory with a catalogue, and two programs: llama-server, and the same with little memory."""
    folder = tmp_path_factory.mktemp("real")
    text = folder / "text.gguf"
    text.write_text("no model at all\n" * 8)
    names = {"model": llama_model, "folder": llama_model.parent, "file": llama_model.name, "commit": COMMIT}
    (folder / "models.yaml").write_text(ENTRIES.format(text=text, **names))
    small = folder / "with-little-memory"
    small.write_text(f'#!/bin/sh\nulimit -v 3000000\nexec {llama_server} "$@"\n')
    small.chmod(0o755)
    (folder / "llama-server").symlink_to(llama_server)
    return folder


def harness(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)


@dataclass
class Day:
    """What the commands printed, and what the server told between them."""

    url: str
    up: dict[str, Any]
    status: dict[str, Any]
    gauges: Gauges
    asked: list[int]
    runs: dict[str, Path]
    said: dict[str, str]
    predicted: float
    logs: list[str]
    down: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def day(folder: Path) -> Iterator[Day]:
    """up, status, bench of the entry and by its URL, logs, down: all of one server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        # How exactly this machine's client measures is tested elsewhere, and takes long to find out.
        calibration.store(Floor(0.01, 0.01, streams=64, events_per_second=1e3, measured="2026-01-01T00:00:00Z"), 1)
        yield _day(folder)


def _day(folder: Path) -> Day:
    started = harness(folder, "up", "split", "--runtime", "local", "--launcher", "./llama-server", "--json")
    assert started.returncode == 0, started.stderr
    (up,) = json.loads(started.stdout)
    url = up["endpoint"]
    try:
        (status,) = json.loads(harness(folder, "status", "--json").stdout)
        gauges, asked = busy_gauges(url)
        load = ("--warmup", "0s", "--input-tokens", "uniform:20:60", "--no-report", "--json", "--seed", "3")
        runs, said = {}, {}
        for name, target in (
            ("entry", ("split", "--users", "4", "--duration", "3s", "--output-tokens", "200")),
            ("url", ("--url", url, "--rate", "20", "--requests", "30", "--output-tokens", "uniform:1:40")),
        ):
            runs[name] = folder / name
            done = harness(folder, "bench", *target, *load, "--output", runs[name])
            assert done.returncode == 0, done.stderr
            said[name] = done.stderr
        page = requests.get(f"{url}/metrics", timeout=10).text
        predicted = float(re.findall(r"^llamacpp:tokens_predicted_total (\S+)$", page, re.MULTILINE)[0])
        logs = harness(folder, "logs", "split").stdout.splitlines()
    finally:
        down = harness(folder, "down", "split")
    return Day(url, up, status, gauges, asked, runs, said, predicted, logs, down)


def busy_gauges(url: str) -> tuple[Gauges, list[int]]:
    """What the server tells while one request waits for the slots that two others have, and the tokens of each answer.

    Three ask again and again until that was seen: on a busy machine all may be answered between two looks.
    """
    body = {"messages": [{"role": "user", "content": "time"}], "max_tokens": 1000, "ignore_eos": True}
    seen, enough = Gauges(), Event()

    def full() -> bool:
        nonlocal seen
        seen = gauges_now(Endpoint(url), engine_named("llamacpp"))
        return (seen.running, seen.waiting) == (2, 1) and bool(seen.kv_tokens)

    def ask() -> list[int]:
        told = []
        while not enough.is_set():
            answer = requests.post(f"{url}{CHAT}", json=body, timeout=60)
            told.append(answer.json()["usage"]["completion_tokens"])
        return told

    with ThreadPoolExecutor(3) as askers:
        asked = [askers.submit(ask) for _ in range(3)]
        try:
            until(full, seconds=60)
        finally:
            enough.set()
    return seen, [tokens for each in asked for tokens in each.result()]


def records(run: Path) -> list[dict[str, Any]]:
    return pq.read_table(run / "records.parquet").to_pylist()


def test_entry_is_served_with_the_limits_that_it_asks_for(day: Day) -> None:
    """Slots of whole 256s, a cache with a share for each, and one step as large as asked for."""
    limits = {name: value for name, value in day.up["limits"].items() if value is not None}
    assert limits == {
        "max_input_tokens": 2047,
        "max_total_tokens": 2048,
        "max_batch_prefill_tokens": 64,
        "max_batch_total_tokens": 4096,
        "max_batch_size": 2,
    }
    assert (day.up["engine"], day.up["model_id"], day.up["emulated"]) == ("llamacpp", "split", False)


def test_status_tells_what_it_does(day: Day) -> None:
    """Ready and idle, its cache empty."""
    assert (day.status["phase"], day.status["requests"], day.status["kv_use"]) == (
        "ready", {"queued": 0, "running": 0}, 0,
    )  # fmt: skip
    assert day.status["limits"] == day.up["limits"]


@pytest.mark.parametrize("name", ["entry", "url"])
def test_bench_asks_by_the_api_that_it_speaks(day: Day, name: str) -> None:
    """Recognised by its pages, or known from its entry; no answer of it is called emulated."""
    manifest = json.loads((day.runs[name] / "manifest.json").read_text())
    assert (manifest["api"], manifest["emulated"]) == ("openai-chat", False)
    assert manifest["engine"].startswith("llamacpp")
    assert {row["status"] for row in records(day.runs[name])} == {"completed"}


@pytest.mark.parametrize("name", ["entry", "url"])
def test_tokens_of_each_answer_add_up(day: Day, name: str) -> None:
    """Events hold as many tokens as the server says; answers are as long as asked for; the template is counted."""
    rows = records(day.runs[name])
    assert len(rows) >= 4
    for row in rows:
        assert row["count_told"] == "per_event"
        assert sum(row["token_count"]) == row["output_tokens"] == row["asked_output_tokens"]
        assert row["finish_reason"] == "length"
    assert len({row["input_tokens"] - row["asked_input_tokens"] for row in rows}) == 1


def test_tokens_are_those_that_the_server_timed(day: Day) -> None:
    """Its log names every answer's tokens, its metrics their sum: ours are these, but for what was asked before."""
    timed = [int(match[1]) for line in day.logs if (match := re.search(r"\| +eval time = .*/ +(\d+) tokens", line))]
    ours = [row["output_tokens"] for run in day.runs.values() for row in records(run)]
    assert set(day.asked) == {1000}
    templates = [1, 1] * len(day.runs)  # what the chat template adds to a prompt, measured before each load
    asked_before = [1, *day.asked, *templates]  # by the start, and to see it busy
    assert Counter(timed) - Counter(ours) == Counter(asked_before)
    assert len(timed) == len(ours) + len(asked_before)
    assert day.predicted == sum(ours) + sum(asked_before)


def test_bench_repeats_what_the_start_cautioned_of(day: Day) -> None:
    """Whoever measures a server that `up` left must know that it runs on the CPU; of a URL nobody can tell."""
    assert "split: it serves on the CPU: this build has no support for a GPU" in day.said["entry"]
    assert "on the CPU" not in day.said["url"]


def test_gauges_are_its_own(day: Day) -> None:
    """Two run and one waits; the running ones hold their prompts and what they said so far."""
    assert (day.gauges.running, day.gauges.waiting) == (2, 1)
    assert 2 * 10 < (day.gauges.kv_tokens or 0) <= 2 * 1100
    assert (day.gauges.cache_queries or 0) > (day.gauges.cache_hits or 0) >= 0
    assert (day.gauges.steps or 0) > 0


def test_gauges_are_recorded_under_the_shared_names(day: Day) -> None:
    """Beside the page's own, through the whole load: four users on two slots."""
    most: dict[str, float] = {}
    for row in pq.read_table(day.runs["entry"] / "server.parquet").to_pylist():
        most[row["metric"]] = max(most.get(row["metric"], 0.0), row["value"])
    assert most["harness:running"] == most["llamacpp:requests_processing"] == 2
    assert {f"harness:{name}" for name in day.gauges.known()} <= set(most)


def test_down_leaves_nothing(day: Day) -> None:
    """It ended in order, without waiting out a drain, and its port is free."""
    assert day.down.returncode == 0, day.down.stderr
    assert day.down.stdout.strip() == "split: stopped"
    assert not port_taken(int(day.url.rpartition(":")[2]))
    assert [each.name for each in recall_all()] == []


# ---- starts that are looked at alone

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """A command in this process: exit code, stdout, stderr. What is left up is taken down."""
    monkeypatch.chdir(folder)

    def once(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run(list(arguments))
        return (code, *capfd.readouterr())

    yield once
    once("down")


def up(run: Run, name: str, program: str = "./llama-server") -> tuple[int, str, str]:
    return run("up", name, "--runtime", "local", "--launcher", program, "--json")


def test_one_cache_for_all_slots(run: Run) -> None:
    """Asked for by an argument: each slot is held to its limit exactly, all draw on one cache, which is said."""
    code, printed, said = up(run, "shared")
    assert code == 0, said
    limits = json.loads(printed)[0]["limits"]
    assert (limits["max_total_tokens"], limits["max_batch_total_tokens"]) == (1000, 3072)
    assert "3 slots draw on one cache of 3,072 tokens" in said


def test_entry_without_limits_gets_llama_cpps_own(run: Run) -> None:
    """Four slots on one cache of the model's training context."""
    code, printed, said = up(run, "own")
    assert code == 0, said
    limits = json.loads(printed)[0]["limits"]
    assert (limits["max_total_tokens"], limits["max_batch_total_tokens"], limits["max_batch_size"]) == (8192, 8192, 4)
    assert "every running answer ends" in said


@contextmanager
def hub(model: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[None]:
    with running_hub() as address:
        Hub.repos["org/tiny-GGUF"] = {"tiny.gguf": model.read_bytes()}
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("LLAMA_CACHE", str(cache))
        yield


def test_pinned_file_is_fetched_once(
    run: Run, llama_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By its address at that commit, into a place of its own, where the next start finds it."""
    with hub(llama_model, monkeypatch, tmp_path):
        code, _, said = up(run, "pinned")
        assert code == 0, said
    (kept,) = tmp_path.rglob("tiny.gguf")
    assert kept.relative_to(tmp_path).as_posix() == f"gguf/org--tiny-GGUF/{COMMIT}/tiny.gguf"
    assert kept.read_bytes() == llama_model.read_bytes()
    run("down")
    assert up(run, "pinned")[0] == 0  # the Hub is gone


@pytest.mark.parametrize(
    ("name", "program", "code", "said"),
    [
        ("missing", "./llama-server", 2, "the model's file cannot be opened: /nowhere/none.gguf"),
        ("text", "./llama-server", 2, "the model's file is not a GGUF file"),
        ("too-large", "./with-little-memory", 4, "the KV cache does not fit into memory: 7.6"),
        ("wrong-value", "./llama-server", 2, "--flash-attn has a value that llama.cpp refuses"),
        ("unknown-argument", "./llama-server", 2, "does not know the argument --nope"),
        ("safetensors", "./llama-server", 2, "org/plain is not known to hold GGUF files"),
    ],
)
def test_failed_start_is_named(run: Run, name: str, program: str, code: int, said: str) -> None:
    """In one line, with what to do and the right exit code; nothing stays behind."""
    ended, printed, lines = up(run, name, program)
    assert ended == code, lines
    assert said in json.loads(printed)["error"]["message"]
    assert recall_all() == []


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("no-such-file", 2, "the repo holds no file other.gguf"),
        ("gated", 3, "accept its licence"),
    ],
)
def test_failed_download_is_named(
    run: Run, llama_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, code: int, said: str
) -> None:
    """By the Hub's status, which is all that llama.cpp's log tells."""
    with hub(llama_model, monkeypatch, tmp_path):
        ended, printed, lines = up(run, name)
    assert ended == code, lines
    assert said in json.loads(printed)["error"]["message"]


def test_taken_port_is_named(run: Run, folder: Path) -> None:
    """Before anything is started."""
    catalogue = folder / "port.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        catalogue.write_text((folder / "models.yaml").read_text().replace("  own:\n", f"  own:\n    port: {port}\n"))
        code, printed, _ = run("up", "own", "--launcher", "./llama-server", "--catalogue", str(catalogue), "--json")
    assert code == 3
    assert f"port {port} on 127.0.0.1 is in use" in json.loads(printed)["error"]["message"]


def test_every_argument_that_we_know_is_llama_servers(llama_server: Path) -> None:
    """In all spellings, as its help lists them."""
    listed = subprocess.run([str(llama_server), "--help"], capture_output=True, text=True, timeout=60, check=True)
    words = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", listed.stdout))
    now = [(first, flag) for first, flag in FLAGS.known.items() if FLAGS.known_in(first, build(11549))]
    known = {word for first, flag in now for word in (first, *flag.also)}
    assert known - words == set()
