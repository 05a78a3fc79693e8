"""llama.cpp from its first line to its end: the log, sizes, a model's file, starts that fail."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.emulator.conftest import Emulator
from tests.emulator.faces.conftest import LLAMACPP, chat, failing, said
from tests.emulator.faces.llamacpp.head import HEAD, gguf
from tests.waiting import until


def test_the_log_of_a_start_tells_slots_only(llamacpp: Emulator) -> None:
    """Nothing of the cache at the default verbosity, all on stderr, with the time since the start."""
    log = said(llamacpp, "model loaded")
    assert all(re.match(r"\d+\.\d\d\.\d{3}\.\d{3} [IWE] ", line) for line in log.splitlines())
    slots = "initializing, n_slots = 4, n_ctx_slot = 2048, kv_unified = 'false'"
    order = ["initializing ...", "build_info: b11549-emulated", "loading model", slots, "model loaded"]
    places = [log.index(text) for text in order]
    assert places == sorted(places)
    assert "cells" not in log
    assert llamacpp.lines == []


# Arguments; what the pool's line says; slots and what one may use; whether they share.
SIZES = [
    ((), " 32768 cells,  24 layers,  4/1 seqs", 4, 32768, True),
    (("-c", "65536"), " 65536 cells,  24 layers,  4/1 seqs", 4, 32768, True),
    (("-np", "4"), " 32768 cells,  24 layers,  4/4 seqs", 4, 32768, False),
    (("-np", "4", "--kv-unified"), " 32768 cells,  24 layers,  4/1 seqs", 4, 32768, True),
    (("-c", "4096", "-np", "3"), "  1536 cells,  24 layers,  3/3 seqs", 3, 1536, False),
    (("--kv-unified-per-slot", "1024", "-np", "3"), "  1024 cells,  24 layers,  3/3 seqs", 3, 1024, False),
]


@pytest.mark.parametrize(
    ("arguments", "cells", "slots", "context", "unified"), SIZES, ids=lambda value: str(value)[:30]
)
def test_the_pool_is_cut_by_context_and_slots(
    arguments: tuple[str, ...], cells: str, slots: int, context: int, unified: bool, launch: Callable[..., Emulator]
) -> None:
    """With -lv 4 the log tells the pool; pages tell what a slot may use."""
    server = launch("-hf", LLAMACPP, *arguments, "-lv", "4", "--gpu", "H100", face="llamacpp")
    until(lambda: server.ask("GET", "/health").status == 200)
    said(server, f"MiB ({cells})")
    told = f"n_slots = {slots}, n_ctx_slot = {context}, kv_unified = '{str(unified).lower()}'"
    said(server, told)
    props = server.ask("GET", "/props").json()
    assert (props["total_slots"], props["default_generation_settings"]["n_ctx"]) == (slots, context)


def test_variables_count_where_no_argument_does(launch: Callable[..., Emulator]) -> None:
    """LLAMA_ARG_*, switches among them."""
    environment = {"LLAMA_ARG_CTX_SIZE": "4096", "LLAMA_ARG_N_PARALLEL": "2", "LLAMA_ARG_ENDPOINT_METRICS": "1"}
    server = launch("-hf", LLAMACPP, "-np", "4", "--gpu", "L4", face="llamacpp", env=environment)
    until(lambda: server.ask("GET", "/health").status == 200)
    said(server, "n_slots = 4, n_ctx_slot = 1024")
    assert server.ask("GET", "/metrics").status == 200


def test_the_port_is_open_before_the_model_is_there(launch: Callable[..., Emulator]) -> None:
    """All routes say 503 then, and nobody says that it listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ("--port", str(port), "--gpu", "L4", "--boot-seconds", "60s")
    server = launch("-hf", LLAMACPP, *options, face="llamacpp", wait=False)
    server.port = port
    said(server, "loading model")
    for path in ("/health", "/v1/models", "/nothing"):
        reply = server.ask("GET", path)
        told = {"message": "Loading model", "type": "unavailable_error", "code": 503}
        assert (reply.status, reply.json()["error"]) == (503, told)
    assert not server.listens
    assert server.stop() == -15


def test_a_model_is_served_from_its_file(tmp_path: Path, launch: Callable[..., Emulator]) -> None:
    """Under its path, with its own context."""
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(**HEAD) + bytes(5000))
    server = launch("-m", str(path), "-lv", "4", "--gpu", "L4", face="llamacpp")
    until(lambda: server.ask("GET", "/health").status == 200)
    said(server, "(  8192 cells,   2 layers,  4/1 seqs), K (f16):    2.00 MiB")
    (card,) = server.ask("GET", "/v1/models").json()["data"]
    assert (card["id"], card["meta"]["n_vocab"], card["meta"]["n_ctx"]) == (str(path), 300, 8192)
    assert server.post("/v1/completions", {"prompt": "a b c", "max_tokens": 3}).status == 200


# Arguments; what it says.
FAILURES = [
    (("--foo",), "error: invalid argument: --foo\n"),
    (("-c", "many"), 'error while handling argument "-c": stoi'),
    (("-c",), 'error while handling argument "-c": expected value for argument'),
    (("-np", "0"), 'error while handling argument "-np": error: invalid value for n_parallel'),
    (("-ctk", "q3_0"), 'error while handling argument "-ctk": Unsupported cache type: q3_0'),
    (("--api-key-file", "/nope"), "error: failed to open file '/nope'"),
    (("-m", "/tmp/none.gguf"), "gguf_init_from_file: failed to open GGUF file '/tmp/none.gguf'"),
    (("-m", __file__), "gguf_init_from_reader: invalid magic characters: '\"\"\"l', expected 'GGUF'"),
    (("-m", "/dev/null"), "gguf_init_from_reader: failed to read magic"),
    (("-ctv", "q8_0", "-fa", "off"), "llama_init_from_model: quantized V cache requires flash_attn to be enabled"),
    (("-c", "4000000", "-np", "1", "--fit", "off"), "failed to allocate buffer for kv cache"),
    (("-hf", "Qwen/Qwen2.5-72B-Instruct-GGUF:F16", "--fit", "off"), "unable to allocate CUDA0 buffer"),
]


@pytest.mark.parametrize(("arguments", "text"), FAILURES, ids=lambda value: str(value)[:40])
def test_a_start_fails_in_llamacpps_words(arguments: tuple[str, ...], text: str) -> None:
    """Always exit code 1; what is no argument's mistake ends in one line that says so."""
    model = () if {"-m", "-hf"} & set(arguments) else ("-hf", LLAMACPP)
    code, log = failing("llamacpp", "--gpu", "L4", *model, *arguments, plain=True)
    assert (code, text in log) == (1, True), log
    if not log.startswith("error") and "--api-key-file" not in arguments:
        assert log.rstrip().endswith("exiting due to model loading error")


def test_too_large_a_context_is_made_to_fit_unless_it_was_asked_for(launch: Callable[..., Emulator]) -> None:
    """Without -c it shrinks and says so; with -c the layers that find no room are left on the host."""
    model = ("-hf", "Qwen/Qwen2.5-14B-Instruct-GGUF:Q8_0", "-np", "4", "-lv", "4", "--gpu", "L4")
    for more, line in (
        ((), r"context size reduced from 131072 to \d+ -> need less memory in total"),
        (("-c", "131072"), "was unable to fit model into device memory"),
    ):
        server = launch(*model, *more, face="llamacpp")
        until(lambda: server.ask("GET", "/health").status == 200)  # noqa: B023
        log = said(server, "model loaded")
        assert re.search(line, log), log
        found = re.search(r"offloaded (\d+)/49 layers to GPU", log)
        assert found is not None
        assert (found[1] == "49") == (not more)


def test_a_taken_port_fails_before_the_model(llamacpp: Emulator) -> None:
    """With the one line that names it."""
    code, log = failing("llamacpp", "--port", str(llamacpp.port))
    assert code == 1
    assert f"couldn't bind HTTP server socket, hostname: 127.0.0.1, port: {llamacpp.port}" in log
    assert log.rstrip().endswith("exiting due to HTTP server error")


def test_an_end_waits_for_whoever_reads(begin: Callable[..., Emulator]) -> None:
    """The stream falls silent, and the process ends when its client is gone."""
    server = begin("llamacpp", speed="1")
    with server.open() as wire:
        wire.send("POST", "/v1/chat/completions", chat(most=1500, ignore_eos=True, stream=True))
        wire.until(b"data: ")
        server.process.terminate()
        said(server, "cleaning up before exit...")
        wire.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            wire.until(b"[DONE]")
        assert server.process.poll() is None
    assert server.ended() == 0
