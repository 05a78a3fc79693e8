"""What a start of SGLang tells a prober, and what it says is in force."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.catalog.limits import Limits
from harness.catalog.models import EngineChoice, Model
from harness.engines import engine_named
from harness.engines.base import EngineInfo, Invocation
from harness.engines.sglang.log import SglangLog
from tests.engines.sglang.test_log import read

SGLANG = engine_named("sglang")
MODEL = Model("own", "acme/own-model", engine=EngineChoice("sglang", "0.5.23"))
NOTHING: dict[str, object] = {}


def info(limits: Limits | None = None, raw: dict[str, object] = NOTHING) -> EngineInfo:
    return EngineInfo("sglang", "0.5.23", "acme/own-model", False, limits or Limits(), raw)


def test_log_alone_tells_the_limits() -> None:
    """Without a page that tells them: the one line of the log, and the queue that it was started with."""
    limits = SGLANG.limits_in_force(info(), read("0.5.23"), Invocation(("--max-queued-requests", "40")))
    assert limits == Limits(
        max_input_tokens=5995,
        max_total_tokens=6000,
        max_batch_prefill_tokens=4096,
        max_batch_total_tokens=92345,
        max_batch_size=2048,
        max_concurrent_requests=2088,
    )


def test_what_it_came_to_goes_before_what_was_asked() -> None:
    """The page repeats the number of running requests that was given, the log says how many there will be."""
    limits = SGLANG.limits_in_force(info(Limits(max_batch_size=5000)), read("0.5.3"), Invocation())
    assert limits.max_batch_size == 64


def test_facts_of_a_pool() -> None:
    """The pool in whole pages; prompts in one piece where chunks are off."""
    log = read("0.5.23")
    limits = SGLANG.limits_in_force(info(), log, Invocation())
    facts = SGLANG.facts(info(raw={"page_size": 64}), log, limits, Limits(), MODEL)
    assert (facts.kind, facts.budget, facts.block_size) == ("pool", 92345 // 64 * 64, 64)
    assert (facts.max_total_tokens, facts.max_input_tokens, facts.rows) == (6000, 5995, 2048)
    assert (facts.chunking, facts.prefix_caching, facts.max_concurrent_requests) == (True, True, None)
    whole = read("0.5.3")
    limits = SGLANG.limits_in_force(info(), whole, Invocation())
    model = replace(MODEL, engine=replace(MODEL.engine, args=("--disable-radix-cache",)))
    facts = SGLANG.facts(info(), whole, limits, Limits(), model)
    assert (facts.chunking, facts.prefix_caching, facts.block_size) == (False, False, 1)


def test_context_that_the_cache_cannot_hold_is_told() -> None:
    """SGLang only warns of it."""
    log = read("0.4.6")
    limits = SGLANG.limits_in_force(info(), log, Invocation())
    (caution,) = SGLANG.cautions(limits, log, Invocation())
    assert "5,000" in caution
    assert (
        SGLANG.cautions(SGLANG.limits_in_force(info(), read("0.5.3"), Invocation()), read("0.5.3"), Invocation()) == ()
    )


@pytest.mark.parametrize(
    ("phase", "line", "stage", "cause"),
    [
        (
            "warming up",
            "Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static=0.5.",
            "warm-up",
            "memory",
        ),
        ("warming up", "Capture cuda graph failed: CUDA out of memory.", "warm-up", "memory"),
        ("loading", "Load weight begin.\ntorch.OutOfMemoryError: CUDA out of memory.", "load", "memory"),
        ("starting", "sglang serve: error: unrecognized arguments: --x", "launch", "argument"),
        ("starting", "chunked_prefill_size must be divisible by page_size", "limits", "argument"),
        ("loading", "No CUDA devices found via torch.cuda.", "load", "missing"),
        ("loading", "Received sigquit from a child process.", "load", "other"),
    ],
)
def test_failed_start_says_what_can_help(phase: str, line: str, stage: str, cause: str) -> None:
    """Whether other limits help, and how far it came."""
    log = SglangLog()
    log.enter(phase)
    failed = SGLANG.failed_start(SGLANG.explain(line.split("\n"), 137), log)
    assert (failed.stage, failed.cause) == (stage, cause)


def test_requests_at_once_are_those_that_run_and_wait() -> None:
    """What the autoscaler goes by."""
    args = ("--max-running-requests", "32", "--max-queued-requests", "8")
    assert SGLANG.concurrent(Invocation(args)) == 40
    assert SGLANG.concurrent(Invocation()) == 2048


def test_what_moves_memory_has_to_stay() -> None:
    """Limits that were found hold only beside the arguments that they were found with."""
    args = ("--page-size", "64", "--tool-call-parser", "qwen", "--disable-cuda-graph")
    model = replace(MODEL, kv_cache_dtype="fp8_e4m3", engine=replace(MODEL.engine, args=args))
    assert SGLANG.memory_flags(model) == {
        "--kv-cache-dtype": "fp8_e4m3",
        "--page-size": "64",
        "--disable-cuda-graph": "",
    }
