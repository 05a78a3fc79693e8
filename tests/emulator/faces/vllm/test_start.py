"""vLLM from its first line to its end: the log, starts that fail, a dead engine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.catalog.gpus import find_gpu
from harness.catalog.shapes import shapes
from harness.simulator.laws import Machine, Pool, vllm_pool
from tests.emulator.conftest import Emulator
from tests.emulator.faces.conftest import (
    MODEL,
    chat,
    failing,
    said,
)
from tests.emulator.faces.told import VLLM, vllm_told


def test_the_log_of_a_start_tells_the_pool(vllm: Emulator) -> None:
    """Lines in vLLM's form; the size that the law gives, the null block counted; ready in uvicorn's words."""
    pool = vllm_told()
    said(vllm, "GPU KV cache size")
    log = said(vllm, "Application startup complete.")
    assert re.search(
        r"^\(APIServer pid=\d+\) INFO \d\d-\d\d \d\d:\d\d:\d\d \[api_utils.py:391\] vLLM server", log, re.M
    )
    for text in (
        "Using max model len 2048",
        "Chunked prefill is enabled with max_num_batched_tokens=2048.",
        f"Available KV cache memory: {round(pool.available_bytes / 2**30, 2)} GiB",
        f"GPU KV cache size: {pool.tokens:,} tokens, Maximum concurrency for 2,048 tokens per request: "
        f"{pool.tokens / 2048:.2f}x",
    ):
        assert text in log
    assert re.search(r"^\(APIServer pid=\d+\) INFO:     Application startup complete\.$", log, re.M)


# Arguments; exit code; what the end of the start says.
FAILURES = [
    ((MODEL, "--foo", "3"), 2, "vllm serve: error: unrecognized arguments: --foo 3"),
    ((MODEL, "--dtype", "bf16"), 2, "vllm serve: error: argument --dtype: invalid choice: 'bf16'"),
    ((MODEL, "--max-num-seqs", "x"), 2, "argument --max-num-seqs: invalid int value: 'x'"),
    ((MODEL, "--max-model-len", "8x"), 2, "invalid human_readable_int_or_auto value: '8x'"),
    (("no/such",), 1, "Invalid repository ID or local directory specified: 'no/such'."),
    ((MODEL, "--max-model-len", "65536"), 1, "User-specified max_model_len (65536) is greater than the derived"),
    ((MODEL, "--quantization", "eetq"), 1, "Unknown quantization method: eetq. Must be one of ['awq'"),
    ((MODEL, "--tensor-parallel-size", "4"), 1, "heads (14) must be divisible by tensor parallel size (4)."),
    ((MODEL, "-tp", "2", "--gpus", "1"), 1, "World size (2) is larger than the number of available GPUs (1)"),
    ((MODEL, "--max-num-batched-tokens", "128", "--max-num-seqs", "256"), 1, "(128) must be greater than or equal to"),
    (
        (MODEL, "--max-model-len", "4096", "--no-enable-chunked-prefill"),
        1,
        "(2048) is smaller than max_model_len (4096)",
    ),
    ((MODEL, "--dtype", "bfloat16", "--gpu", "T4"), 1, "Bfloat16 is only supported on GPUs with compute capability"),
    (("meta-llama/Llama-3.1-8B",), 1, "the estimated maximum model length is "),
    (("meta-llama/Llama-3.1-8B", "--gpu-memory-utilization", "0.7"), 1, "No available memory for the cache blocks."),
    (("Qwen/Qwen2.5-14B",), 1, "torch.OutOfMemoryError: CUDA out of memory."),
]


@pytest.mark.parametrize(("arguments", "code", "text"), FAILURES, ids=lambda value: str(value)[:40])
def test_a_start_fails_in_vllms_words(arguments: tuple[str, ...], code: int, text: str) -> None:
    """The parser's own mistakes with 2, all others with 1; an engine's failure is named before its consequence."""
    gpu = () if "--gpu" in arguments else ("--gpu", "L4")
    found, log = failing("vllm", *arguments, *gpu, plain=True)
    assert (found, text in log) == (code, True), log[-2000:]
    if "EngineCore failed to start." in log:
        assert log.index("EngineCore failed") < log.index("Engine core initialization failed. See root cause above.")


def test_the_length_that_a_failure_names_starts(launch: Callable[..., Emulator]) -> None:
    """One token more does not."""
    model = "meta-llama/Llama-3.1-8B"
    _, log = failing("vllm", model, "--gpu", "L4", plain=True)
    longest = int(log.split("estimated maximum model length is ")[1].split(".")[0])
    plan = replace(VLLM, machine=Machine(shapes()["Llama-3.1-8B"], find_gpu("L4")), max_model_len=longest)
    assert isinstance(vllm_pool(plan), Pool)
    assert failing("vllm", model, "--gpu", "L4", "--max-model-len", str(longest + 1), plain=True)[0] == 1
    running = launch(model, "--gpu", "L4", "--max-model-len", "auto", face="vllm")
    said(running, f"reduced from 131072 to {longest} to fit")


def test_a_taken_port_fails_before_the_model(vllm: Emulator) -> None:
    """With Python's own error, exit code 1."""
    code, log = failing("vllm", "--port", str(vllm.port))
    assert (code, "OSError: [Errno 98] Address already in use" in log) == (1, True)
    assert "Loading model" not in log


def test_a_dead_engine_is_unhealthy_and_then_ends(begin: Callable[..., Emulator], scenario: Callable[..., str]) -> None:
    """Open requests get 500, /health 503, and the server ends in order, as it does."""
    fault = {"kind": "crash", "after_requests": 0, "signal": 9}
    server = begin("vllm", "--scenario", scenario(faults=[fault]), speed="2")
    reply = server.post("/v1/chat/completions", chat())
    assert reply.status == 500
    assert reply.json()["error"]["message"] == "The server had an error while processing your request."
    assert server.ask("GET", "/health").status == 503
    assert server.ended() == 0
    assert "EngineCore encountered a fatal error." in "\n".join(server.lines)


def test_an_end_aborts_or_drains(begin: Callable[..., Emulator]) -> None:
    """At once by default; with --shutdown-timeout a stream is read to its end first."""
    for arguments, whole in (((), False), (("--shutdown-timeout", "30"), True)):
        server = begin("vllm", *arguments, speed="5")
        with server.open() as wire:
            wire.send("POST", "/v1/chat/completions", chat(most=100, ignore_eos=True, stream=True))
            wire.until(b"data: ")
            server.process.terminate()
            try:
                wire.until(b"[DONE]")
                finished = True
            except (EOFError, ConnectionError):
                finished = False
        assert (finished, server.ended()) == (whole, 0)
