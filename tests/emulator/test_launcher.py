"""The start: log lines in their order, failures with their texts and exit codes, signals."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.emulator.conftest import LIMITS, Emulator

SMALL = ("--model-id", "Qwen/Qwen2.5-0.5B", "--gpu", "L4")
LAUNCHER, ROUTER = "text_generation_launcher: ", "text_generation_router"


def in_order(texts: list[str], expected: list[str]) -> None:
    """Each expected line, whole or in part, in this order."""
    at = 0
    for text in expected:
        found = next((index for index in range(at, len(texts)) if text in texts[index]), None)
        assert found is not None, (text, texts[at : at + 30])
        at = found + 1


def test_the_lines_of_a_start_come_in_tgis_order(launch: Callable[..., Emulator]) -> None:
    """From the options to `Connected`, with targets and source lines."""
    running = launch(*SMALL, "--max-total-tokens", "2048", "--max-input-tokens", "1024")
    assert running.stop() == 0
    in_order(
        running.texts(),
        [
            f"{LAUNCHER}Args {{",
            f"{LAUNCHER}Using attention flashinfer - Prefix caching true",
            f"{LAUNCHER}Default `max_batch_prefill_tokens` to 32768",
            f"{LAUNCHER}Using default cuda graphs [1, 2, 4, 8, 16, 32]",
            f"download: {LAUNCHER}Starting check and download process for Qwen/Qwen2.5-0.5B",
            "Files are already present on the host. Skipping download.",
            f"download: {LAUNCHER}Successfully downloaded weights for Qwen/Qwen2.5-0.5B",
            f"shard-manager: {LAUNCHER}Starting shard rank=0",
            "Using prefill chunking = True",
            "Server started at unix:///tmp/text-generation-server-0",
            f"shard-manager: {LAUNCHER}Shard ready in ",
            f"{LAUNCHER}Starting Webserver",
            f"{ROUTER}_v3: backends/v3/src/lib.rs:125: Warming up model",
            f"{LAUNCHER}KV-cache blocks: ",
            "Cuda Graphs are enabled for sizes [32, 16, 8, 4, 2, 1]",
            f"{ROUTER}_v3: backends/v3/src/lib.rs:137: Setting max batch total tokens to ",
            "`waiting_served_ratio` and `max_waiting_tokens` will be ignored.",
            "Using backend V3",
            "Using config Some(Qwen2)",
            f"{ROUTER}::server: router/src/server.rs:2302: Connected",
            "Terminating webserver",
            "signal received, starting graceful shutdown",
            "webserver terminated",
            "Shutting down shards",
            "shard terminated rank=0",
        ],
    )


def test_json_lines_have_the_forms_of_both_programs(launch: Callable[..., Emulator]) -> None:
    """The launcher nests the message under `fields`, the router does not."""
    running = launch(*SMALL, *LIMITS, "--json-output")
    running.stop()
    lines = [json.loads(line) for line in running.lines]
    shard = next(line for line in lines if line.get("fields", {}).get("message") == "Starting shard")
    assert shard["span"] == {"rank": 0, "name": "shard-manager"}
    connected = next(line for line in lines if line.get("message") == "Connected")
    assert (connected["target"], connected["line_number"]) == ("text_generation_router::server", 2302)


def test_colours_are_on_unless_both_variables_say_no(launch: Callable[..., Emulator]) -> None:
    """NO_COLOR is the launcher's, LOG_COLORIZE=1 the router's; each switches off its own lines only."""
    running = launch(*SMALL, *LIMITS, env={"NO_COLOR": "1", "LOG_COLORIZE": ""})
    running.stop()
    coloured = {("router" in line) for line in running.lines if "\x1b[" in line}
    assert coloured == {True}


def test_a_level_hides_what_is_below(launch: Callable[..., Emulator]) -> None:
    """LOG_LEVEL=warn hides `Connected` and the budget, as it does in TGI."""
    running = launch(*SMALL, *LIMITS, env={"LOG_LEVEL": "warn"})
    running.stop()
    assert running.lines
    assert all(" WARN " in line for line in running.lines)


def test_two_shards_are_told_twice(launch: Callable[..., Emulator]) -> None:
    """Per rank and per process."""
    running = launch(*SMALL, *LIMITS, "--num-shard", "2")
    running.stop()
    text = "\n".join(running.texts())
    assert "Sharding model on 2 processes" in text
    assert text.count("Starting shard rank=") == text.count("Shard ready in ") == 2


FAILURES: list[tuple[str, list[str], dict[str, str], str, list[str]]] = [
    (
        "both names of one limit",
        ["--max-input-tokens", "64", "--max-input-length", "64"],
        {},
        'ArgumentValidation("Both `max_input_tokens` (64) and `max_input_length` (64) are set. Please define only'
        ' `max_input_tokens` as `max_input_length is deprecated for naming consistency.")',
        ["Using attention"],
    ),
    ("no shard", [], {"NUM_SHARD": "0"}, 'ArgumentValidation("`num_shard` cannot be < 1")', ["Using attention"]),
    (
        "one device for many shards",
        ["--sharded", "true"],
        {"CUDA_VISIBLE_DEVICES": "0"},
        'NotEnoughCUDADevices("`sharded` is true but only found 1 CUDA devices")',
        ["Parsing num_shard from"],
    ),
    (
        "input not below total",
        ["--max-input-tokens", "128", "--max-total-tokens", "128"],
        {},
        'ArgumentValidation("`max_input_tokens`(128) must be < `max_total_tokens`(128)")',
        ["Default `max_batch_prefill_tokens` to"],
    ),
    (
        "total above the batch",
        ["--max-total-tokens", "128", "--max-batch-total-tokens", "100"],
        {},
        'ArgumentValidation("`max_total_tokens` must be <= `max_batch_total_tokens`. Given: 128 and 100")',
        ["Using default cuda graphs"],
    ),
    (
        "a model that does not fit",
        ["--model-id", "Qwen/Qwen2.5-72B"],
        {},
        "ShardCannotStart",
        ["Shard complete standard error output:", "CUDA out of memory.", "Shard 0 failed to start", "Shutting down"],
    ),
    (
        "heads that do not divide",
        ["--num-shard", "4"],
        {},
        "ShardCannotStart",
        ["`num_heads` must be divisible by `num_shards`", "Shard 0 failed to start"],
    ),
    (
        "no room for what is asked",
        ["--model-id", "meta-llama/Llama-3.1-8B", "--max-input-tokens", "100000", "--max-total-tokens", "131072",
         "--max-batch-prefill-tokens", "4096"],
        {},
        "WebserverFailed",
        ["Warming up model", "Method Warmup encountered an error.", "Server error: ", "Error: Backend(Warmup(",
         "Webserver Crashed", "Shutting down shards", "shard terminated"],
    ),
    (
        "prefill above the budget",
        ["--model-id", "bigscience/bloom-560m", "--max-batch-total-tokens", "1000"],
        {},
        "WebserverFailed",
        [
            "Setting max batch total tokens to 1000",
            'Error: ArgumentValidation("`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`.'
            ' Given: 2048 and 1000")',
            "Webserver Crashed",
        ],
    ),
    (
        "an empty batch",
        ["--max-batch-size", "0"],
        {},
        "WebserverFailed",
        ['Error: ArgumentValidation("`max_batch_size` must be > 0")', "Webserver Crashed"],
    ),
    (
        "an unknown model",
        ["--model-id", "nobody/nothing-7b"],
        {},
        "DownloadError",
        ["Starting check and download process for nobody/nothing-7b", "Download encountered an error: "],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "environment", "error", "lines"), [case[1:] for case in FAILURES], ids=[case[0] for case in FAILURES]
)
def test_a_failure_ends_with_tgis_text_and_1(
    launch: Callable[..., Emulator],
    arguments: list[str],
    environment: dict[str, str],
    error: str,
    lines: list[str],
) -> None:
    """Each failure: the lines before it, the line on stderr, the exit code."""
    model = () if "--model-id" in arguments else SMALL
    running = launch(*model, *arguments, env=environment, wait=False)
    assert running.ended() == 1
    assert running.stderr == f"Error: {error}\n"
    in_order(running.texts(), lines)


def test_no_device_variable_is_a_panic(launch: Callable[..., Emulator]) -> None:
    """SHARDED=true where no variable names a device: 101, as Rust's panics end."""
    running = launch(*SMALL, env={"SHARDED": "true"}, wait=False)
    assert running.ended() == 101
    assert "CUDA_VISIBLE_DEVICES/NVIDIA_VISIBLE_DEVICES/ZE_AFFINITY_MASK are not set" in running.stderr


def test_a_wrong_option_ends_with_2_and_says_nothing_on_stdout(launch: Callable[..., Emulator]) -> None:
    """clap's refusals, and the emulator's own for its own files."""
    for arguments in (["--nope"], ["--scenario", "/nowhere.yaml"], ["--boot-seconds", "soon"], ["--gpu", "L5"]):
        running = launch(*arguments, wait=False)
        assert (running.ended(), running.lines) == (2, [])
        assert running.stderr.startswith("error: ")


def test_a_taken_port_is_noticed_after_connected(launch: Callable[..., Emulator]) -> None:
    """`Connected` is no sign that the port could be bound."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        running = launch("--port", str(port), *SMALL, *LIMITS, wait=False)
        assert running.ended() == 1
    assert running.stderr == "Error: WebserverFailed\n"
    in_order(
        running.texts(),
        [
            "Connected",
            f"Failed to bind to 127.0.0.1:{port}: Address already in use (os error 98)",
            'Error: WebServer(Axum(Os { code: 98, kind: AddrInUse, message: "Address already in use" }))',
            "Webserver Crashed",
        ],
    )


def test_the_port_is_bound_only_after_warm_up(launch: Callable[..., Emulator]) -> None:
    """Until then connections are refused: there is no phase that answers 503."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = launch("--port", str(port), *SMALL, *LIMITS, "--boot-seconds", "0.1,0.2,0.6", wait=False)
    while not any("Warming up model" in line for line in running.lines):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        time.sleep(0.02)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert running._bound.wait(20)
    assert running.ask("GET", "/health").status == 200


PHASES = [
    ("Starting check and download process", "5,0,0", ["Terminating download", "download terminated"]),
    ("Using prefill chunking", "0,5,0", ["Shutting down shards", "Terminating shard rank=0", "shard terminated"]),
    ("Warming up model", "0,0,5", ["Shutting down shards", "shard terminated rank=0"]),
]


@pytest.mark.parametrize(("line", "boot", "expected"), PHASES)
def test_a_signal_ends_every_phase_of_a_start_with_0(
    launch: Callable[..., Emulator], line: str, boot: str, expected: list[str]
) -> None:
    """SIGTERM in download, loading and warm-up."""
    running = launch(*SMALL, *LIMITS, "--boot-seconds", boot, wait=False)
    while not any(line in each for each in running.lines):
        time.sleep(0.01)
    assert running.stop(signal.SIGTERM) == 0
    in_order(running.texts(), expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_open_answers_are_finished_and_nobody_else_is_let_in(launch: Callable[..., Emulator], number: int) -> None:
    """A stream under way comes to its end, new connections are refused at once, the exit code is 0."""
    running = launch(*SMALL, *LIMITS)
    with running.open() as wire, running.open():  # the second stays idle and does not hold it up
        wire.send("POST", "/generate_stream", {"inputs": "a", "parameters": {"max_new_tokens": 60}})
        wire.head()
        wire.chunk()
        running.process.send_signal(number)
        while not any("starting graceful shutdown" in line for line in running.lines):
            time.sleep(0.01)
        with pytest.raises(ConnectionRefusedError):
            running.ask("GET", "/health")
        count = 1
        while wire.chunk():
            count += 1
    assert count == 60
    assert running.ended() == 0


def test_what_does_not_finish_in_time_is_cut(launch: Callable[..., Emulator], scenario: Callable[..., str]) -> None:
    """After the graceful timeout the body breaks off without an error event; the exit code is still 0."""
    faults = [{"kind": "hang", "after_requests": 0}]
    running = launch(*SMALL, *LIMITS, "-g", "0", "--scenario", scenario(faults=faults))
    with running.open() as wire:
        wire.send("POST", "/generate_stream", {"inputs": "a", "parameters": {"max_new_tokens": 6}})
        assert wire.head()[0] == 200
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises((EOFError, ConnectionResetError)):
            wire.chunk()
    assert running.ended() == 0
    in_order(running.texts(), ["Killing webserver", "webserver killed", "Shutting down shards"])


def test_the_truth_is_told_in_a_file_only(launch: Callable[..., Emulator], tmp_path: Path) -> None:
    """--truth: what the world is like and what the server can hold, which /info does not say."""
    truth = tmp_path / "truth.json"
    running = launch(*SMALL, *LIMITS, "--truth", str(truth))
    told: dict[str, Any] = json.loads(truth.read_text())
    line = next(text for text in running.texts() if "Setting max batch total tokens to" in text)
    assert line.endswith(str(told["max_batch_total_tokens"]))
    assert told["usable_tokens"] == told["max_batch_total_tokens"] - 1
    assert "max_batch_total_tokens" not in running.ask("GET", "/info").json()


def test_a_different_world_has_another_budget(launch: Callable[..., Emulator], scenario: Callable[..., str]) -> None:
    """Memory that others hold is missing from the budget, to the byte."""
    budgets = []
    for world in ({}, {"used_by_others": 2 * 2**30}):
        running = launch(*SMALL, *LIMITS, "--scenario", scenario(world=world))
        line = next(text for text in running.texts() if "Setting max batch total tokens to" in text)
        budgets.append(int(line.rsplit(" ", 1)[1]))
    assert budgets[0] - budgets[1] == pytest.approx(2 * 2**30 / 12288, abs=1)


def test_a_local_directory_serves_its_own_configuration(launch: Callable[..., Emulator], tmp_path: Path) -> None:
    """A directory with config.json is a model; without a chat template chats are refused."""
    config = {
        "model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4,
        "num_key_value_heads": 4, "num_hidden_layers": 2, "vocab_size": 1000, "max_position_embeddings": 512,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    running = launch("--model-id", str(tmp_path), "--gpu", "L4")
    info = running.ask("GET", "/info").json()
    assert (info["model_id"], info["max_total_tokens"], info["max_input_tokens"]) == (str(tmp_path), 512, 511)
    assert info["docker_label"] == "harness-emulator"
    chat = running.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})
    assert (chat.status, chat.json()["error"]) == (422, "Template error: template not found")


def test_padded_models_obey_the_batch_budget(launch: Callable[..., Emulator]) -> None:
    """Nothing is measured for them: the option counts."""
    running = launch("--model-id", "bigscience/bloom-560m", "--gpu", "L4", "--max-batch-total-tokens", "5000")
    in_order(
        running.texts(),
        ["Model does not support automatic max batch total tokens", "Setting max batch total tokens to 5000"],
    )
