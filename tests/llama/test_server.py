"""How llama.cpp's server starts, fails to start and ends, as far as harness relies on it.

An answer that another release gives otherwise shows here first, and not as a wrong number in a report.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.llama.conftest import Launch
from tests.llama.running import PATIENCE
from tests.waiting import until

_LOADING = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A start that is expected to end by itself."""
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=PATIENCE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_health_is_503_while_the_model_loads_and_200_afterwards(launch: Launch, tmp_path: Path) -> None:
    """The port answers before the model is there: a file that nobody has written yet keeps the server loading."""
    slow, port = tmp_path / "slow.gguf", free_port()
    os.mkfifo(slow)
    loading = launch("--port", str(port), "--fit", "off", model=slow, wait=False)
    until(lambda: accepts(port), seconds=PATIENCE)
    for path in ("/health", "/v1/models", "/metrics"):
        answer = loading.ask("GET", path, port=port)
        assert (answer.status, answer.json()) == (503, _LOADING)
    assert loading.stop() == -signal.SIGTERM
    ready = launch().ask("GET", "/health")
    assert (ready.status, ready.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("arguments", "pool", "streams", "slots", "per_slot"),
    [
        ((), 8192, 1, 4, 8192),
        (("-np", "4"), 32768, 4, 4, 8192),
        (("-np", "4", "--kv-unified"), 8192, 1, 4, 8192),
        (("-c", "2048"), 2048, 1, 4, 2048),
        (("-c", "4096", "-np", "3"), 4608, 3, 3, 1536),
        (("-c", "32768", "-np", "2"), 32768, 2, 2, 8192),
        (("-c", "32768"), 32768, 1, 4, 8192),
    ],
)
def test_slots_and_pool_follow_from_context_and_parallel(
    launch: Launch, arguments: tuple[str, ...], pool: int, streams: int, slots: int, per_slot: int
) -> None:
    """Cells times streams in the log are the pool; /props tells one slot's share, never more than was trained."""
    server = launch(*arguments, "-lv", "4")
    (cells,) = re.findall(r"\( *(\d+) cells, +2 layers, +(\d+)/(\d+) seqs\)", server.log)
    assert (int(cells[0]) * int(cells[2]), int(cells[2])) == (pool, streams)
    props = server.ask("GET", "/props").json()
    assert (props["total_slots"], props["default_generation_settings"]["n_ctx"]) == (slots, per_slot)
    assert [slot["n_ctx"] for slot in server.ask("GET", "/slots").json()] == [per_slot] * slots


def test_the_pool_is_not_logged_at_the_default_verbosity(launch: Launch) -> None:
    """Whoever wants the KV cache's size must ask for level 4; the slots are told at level 3."""
    log = launch("-c", "32768").log
    assert "n_slots = 4, n_ctx_slot = 8192, kv_unified = 'true'" in log
    assert "cells" not in log


def test_fit_changes_the_context_only_where_none_was_asked_for(launch: Launch) -> None:
    """With a margin that cannot be met an unset context shrinks to the floor; a set one stays, with a warning."""
    margin = ("--fit-target", "100000000", "-np", "1")
    shrunk, kept = launch(*margin), launch(*margin, "-c", "8192")
    assert [each.ask("GET", "/slots").json()[0]["n_ctx"] for each in (shrunk, kept)] == [4096, 8192]
    assert "failed to fit params to free device memory" in kept.log


def test_environment_counts_like_arguments(launch: Launch) -> None:
    """What a container is given as LLAMA_ARG_* works, and an argument wins over it."""
    server = launch("-np", "1", LLAMA_ARG_CTX_SIZE="1024", LLAMA_ARG_N_PARALLEL="3")
    props = server.ask("GET", "/props").json()
    assert (props["total_slots"], props["default_generation_settings"]["n_ctx"]) == (1, 1024)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--nope",), "error: invalid argument: --nope"),
        (("-c", "many"), 'error while handling argument "-c": stoi'),
        (("-ctk", "q3_0"), 'error while handling argument "-ctk": Unsupported cache type: q3_0'),
        (("-m", "{folder}/none.gguf"), "failed to open GGUF file '{folder}/none.gguf' (No such file or directory)"),
        (("-m", "{folder}/junk.gguf"), "invalid magic characters: 'junk', expected 'GGUF'"),
        (("-m", "{folder}/cut.gguf"), "data is not within the file bounds, model is corrupted or incomplete"),
        (
            ("-m", "{model}", "--port", "{taken}"),
            "couldn't bind HTTP server socket, hostname: 127.0.0.1, port: {taken}",
        ),
        (("-m", "{model}", "-ctv", "q8_0", "-fa", "off"), "quantized V cache requires flash_attn to be enabled"),
    ],
)
def test_a_start_that_fails_says_why_and_exits_with_1(
    llama_server: Path, llama_model: Path, tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    """The cause stands on stderr in llama.cpp's own words."""
    (tmp_path / "junk.gguf").write_text("junk" * 100)
    (tmp_path / "cut.gguf").write_bytes(llama_model.read_bytes()[:-100])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        known = {"folder": tmp_path, "model": llama_model, "taken": taken.getsockname()[1]}
        given = [argument.format(**known) for argument in arguments]
        port = () if "--port" in given else ("--port", "0")
        done = run(llama_server, *port, *given)
    assert (done.returncode, done.stdout) == (1, "")
    assert line.format(**known) in done.stderr


def test_help_and_version_need_no_model(llama_server: Path) -> None:
    """Both exit with 0."""
    shown, version = run(llama_server, "--help"), run(llama_server, "--version")
    assert (shown.returncode, version.returncode) == (0, 0)
    assert "--kv-unified" in shown.stdout
    assert version.stderr.startswith("version: ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(launch: Launch, number: int) -> None:
    """Exit code 0, and the port is free again."""
    server = launch()
    port = server.port
    assert server.stop(number) == 0
    assert not accepts(port)


def test_it_ends_only_when_the_last_client_has_left(launch: Launch) -> None:
    """A stream that is being read falls silent and holds the process; closing it lets the process go."""
    server = launch()
    with server.streaming(10, max_tokens=8000, ignore_eos=True) as stream:
        stream.readline()
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "cleaning up before exit" in server.log, seconds=PATIENCE)
        assert server.process.poll() is None
    assert server.process.wait(PATIENCE) == 0
