"""SGLang from its first line to its end: the log, starts that fail."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.emulator.conftest import Emulator
from tests.emulator.faces.conftest import (
    MODEL,
    chat,
    failing,
    said,
)
from tests.emulator.faces.told import sglang_told

SIGKILL = -9  # of itself, when its scheduler's process fails


def test_the_log_of_a_start_tells_all_limits(sglang: Emulator) -> None:
    """In one line; no level in it, and the time in brackets."""
    pool, log = sglang_told(), said(sglang, "ready to roll")
    limits = (
        f"max_total_num_tokens={pool.tokens}, chunked_prefill_size=4096, max_prefill_tokens=16384,"
        f" max_running_requests={pool.rows}, context_len=2048, available_gpu_mem="
    )
    assert re.search(rf"^\[\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\] {re.escape(limits)}\d+\.\d\d GB$", log, re.M)
    order = ["server_args=ServerArgs(", "Load weight begin. avail mem=", "Load weight end. ", "KV Cache is allocated. "]
    order += ["Memory pool end. ", limits, "Application startup complete.", "The server is fired up and ready to roll!"]
    places = [log.index(text) for text in order]
    assert places == sorted(places)
    assert f"#tokens: {pool.tokens}, K size: " in log


# Arguments; exit code; what the end of the start says.
PATH = ("--model-path", MODEL)
FAILURES = [
    (("--port", "1"), 2, "sglang serve: error: the following arguments are required: --model-path/--model"),
    ((*PATH, "--foo", "1"), 2, "sglang serve: error: unrecognized arguments: --foo 1"),
    ((*PATH, "--dtype", "bf16"), 2, "error: argument --dtype: invalid choice: 'bf16'"),
    ((*PATH, "--cuda-graph-max-bs", "8"), 2, "ambiguous option: --cuda-graph-max-bs could match"),
    (("--model-path", "no/such"), 1, "is not a local folder and is not a valid model identifier listed on"),
    ((*PATH, "--context-length", "65536"), 1, "User-specified context_length (65536) is greater than the derived"),
    ((*PATH, "--page-size", "64", "--chunked-prefill-size", "100"), 1, "must be divisible by page_size"),
    ((*PATH, "--tp-size", "4"), SIGKILL, "AssertionError: 14 is not divisible by 4"),
    (("--model-path", "meta-llama/Llama-3.1-8B"), SIGKILL, "Loaded weights leave no GPU memory for the KV cache under"),
    (("--model-path", "Qwen/Qwen2.5-14B"), SIGKILL, "torch.OutOfMemoryError: CUDA out of memory."),
]


@pytest.mark.parametrize(("arguments", "code", "text"), FAILURES, ids=lambda value: str(value)[:40])
def test_a_start_fails_in_sglangs_words(arguments: tuple[str, ...], code: int, text: str) -> None:
    """The parser with 2, the front end with 1; a scheduler's death kills all, its cause first."""
    found, log = failing("sglang", *arguments, "--gpu", "L4", plain=True)
    assert (found, text in log) == (code, True), log[-2000:]
    if code == SIGKILL:
        assert log.index("Scheduler hit an exception: ") < log.index("Received sigquit from a child process.")


def test_a_taken_port_fails_after_the_model(sglang: Emulator) -> None:
    """In uvicorn's words, exit code 1."""
    code, log = failing("sglang", "--port", str(sglang.port))
    assert code == 1
    assert f"error while attempting to bind on address ('127.0.0.1', {sglang.port}): address already in use" in log
    assert "Memory pool end." in log


def test_an_end_drains_without_limit(begin: Callable[..., Emulator]) -> None:
    """A stream is read to its end; then exit code 0."""
    server = begin("sglang", speed="5")
    with server.open() as wire:
        wire.send("POST", "/v1/chat/completions", chat(most=100, ignore_eos=True, stream=True))
        wire.until(b"data: ")
        server.process.terminate()
        wire.until(b"[DONE]")
    assert server.ended() == 0
    assert "Gracefully exiting... " in server.stderr
