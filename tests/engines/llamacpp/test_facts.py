"""What a start of llama.cpp allows, tells a prober, and warns of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.catalog.limits import Limits
from harness.catalog.models import EngineChoice, Model
from harness.engines import engine_named
from harness.engines.base import EngineFacts, EngineInfo, Invocation
from harness.engines.llamacpp.failures import explain
from harness.engines.llamacpp.log import LlamaCppLog
from tests.engines.llamacpp.test_log import B9538, B11549, DETAILED, read

ENGINE = engine_named("llamacpp")
CHAT = Model("chat", "/srv/chat.gguf", engine=EngineChoice("llamacpp", "b11347"))


def info(each: int = 5120, slots: int = 6) -> EngineInfo:
    limits = Limits(max_input_tokens=each - 1, max_total_tokens=each, max_batch_size=slots)
    return EngineInfo("llamacpp", "b11549", "chat", False, limits)


def with_args(*args: str, **environment: str) -> Invocation:
    return Invocation(args, environment)


@pytest.mark.parametrize(
    ("told", "log", "start", "pool", "batch"),
    [
        (info(), read(B11549), with_args("--ctx-size", "30000", "--parallel", "6"), 30720, 2048),
        (info(), read(B11549), with_args("-np", "6", "-b", "512"), 30720, 512),
        (info(7168, 4), read(B9538), with_args(), 7168, 2048),
        (info(8192, 4), read(B9538), with_args("-c", "30000"), 30208, 2048),
        (info(8192, 4), read(B9538), with_args(LLAMA_ARG_CTX_SIZE="30000", LLAMA_ARG_BATCH="64"), 30208, 64),
        (info(16384, 4), read(DETAILED), with_args(), 24576, 1024),
        # a log that tells nothing, as with -lv 1: what it was started with decides how the slots share
        (info(2048, 4), LlamaCppLog(), with_args("-np", "4", "-c", "8192"), 8192, 2048),
        (info(8192, 4), LlamaCppLog(), with_args("-np", "4", "-c", "8192", "-kvu"), 8192, 2048),
        (info(8192, 4), LlamaCppLog(), with_args(), 8192, 2048),
    ],
)
def test_limits_in_force(told: EngineInfo, log: LlamaCppLog, start: Invocation, pool: int, batch: int) -> None:
    """/props tells the slots; the pool follows from the log and the command line."""
    limits = ENGINE.limits_in_force(told, log, start)
    assert (limits.max_batch_total_tokens, limits.max_batch_prefill_tokens) == (pool, batch)
    assert (limits.max_total_tokens, limits.max_batch_size) == (
        told.limits.max_total_tokens,
        told.limits.max_batch_size,
    )
    assert limits.max_input_tokens == (told.limits.max_total_tokens or 0) - 1


def test_router_has_no_limits() -> None:
    """Neither its pages nor its log tell slots."""
    nothing = EngineInfo("llamacpp", None, None, False, Limits())
    limits = ENGINE.limits_in_force(nothing, LlamaCppLog(), with_args())
    assert limits.max_batch_total_tokens is None


def facts(log: LlamaCppLog, told: EngineInfo, start: Invocation, model: Model = CHAT) -> EngineFacts:
    return ENGINE.facts(told, log, ENGINE.limits_in_force(told, log, start), Limits(), model)


def test_facts_of_split_slots() -> None:
    """Shares of their own, any of which can be filled to its last token."""
    told = facts(read(B11549), info(), with_args("-np", "6"))
    assert (told.kind, told.budget, told.block_size, told.rows, told.split) == ("pool", 30720, 256, 6, True)
    assert told.usable == 30720
    assert (told.max_input_tokens, told.max_total_tokens, told.prefill_tokens) == (5119, 5120, 2048)
    assert told.max_concurrent_requests is None  # it lets requests wait without limit
    assert told.prefix_caching


def test_facts_of_one_cache() -> None:
    """The pool is shared, and larger than one request may be."""
    told = facts(read(DETAILED), info(16384, 4), with_args())
    assert (told.budget, told.rows, told.split, told.max_total_tokens) == (24576, 4, False, 16384)
    assert ENGINE.on_full_cache == "ends answers"


def test_prefix_cache_may_be_switched_off() -> None:
    """By the entry's own argument."""
    model = replace(CHAT, engine=replace(CHAT.engine, args=("--no-cache-prompt",)))
    assert not facts(read(B11549), info(), with_args("-np", "6"), model).prefix_caching


@pytest.mark.parametrize(("args", "slots"), [((), 4), (("-np", "7"), 7), (("--parallel", "-1"), 4)])
def test_requests_at_once(args: tuple[str, ...], slots: int) -> None:
    """As many as slots, which are four unless told."""
    assert ENGINE.concurrent(with_args(*args)) == slots
    assert ENGINE.concurrent(with_args(LLAMA_ARG_N_PARALLEL="9")) == 9


@pytest.mark.parametrize(
    ("lines", "stage", "cause"),
    [
        (["E failed to allocate buffer for kv cache"], "warm-up", "memory"),
        (["E failed to allocate compute pp buffers"], "warm-up", "memory"),
        (["E error loading model: unable to allocate CUDA0 buffer"], "load", "other"),
        (["E n_seq_max must be <= 256"], "load", "argument"),
        (["E couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 1"], "load", "missing"),
        (["E GGML_ASSERT(x) failed"], "load", "other"),
    ],
)
def test_what_a_failed_start_means(lines: list[str], stage: str, cause: str) -> None:
    """Whether other limits can help: no limit makes weights smaller."""
    log = read("I srv    load_model: loading model '/srv/chat.gguf'")
    meaning = ENGINE.failed_start(explain(lines, 1), log)
    assert (meaning.stage, meaning.cause) == (stage, cause)


def cautions(log: LlamaCppLog, told: EngineInfo, start: Invocation) -> str:
    limits = ENGINE.limits_in_force(told, log, start)
    return "\n".join(ENGINE.cautions(limits, log, start))


def test_one_cache_for_all_is_told() -> None:
    """Because one request more may end all others."""
    said = cautions(read(B9538), info(7168, 4), with_args())
    assert "4 slots draw on one cache of 7,168 tokens" in said
    assert "every running answer ends" in said
    assert cautions(read(B11549), info(), with_args("-c", "30720", "-np", "6")) == ""


def test_slots_smaller_than_asked_for_are_told() -> None:
    """llama.cpp cuts them to what the model was trained for, and keeps the memory."""
    said = cautions(read(B11549), info(), with_args("-c", "60000", "-np", "6"))
    assert "slots of 10,000 tokens were asked for, and each has 5,120" in said


def test_layers_on_the_cpu_are_told() -> None:
    """Some of them, or all."""
    assert "4 of 29 layers run on the CPU" in cautions(read(DETAILED), info(16384, 4), with_args())
    broken = read(B11549)
    broken.feed("ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected")
    assert "on the CPU: no CUDA-capable device" in cautions(broken, info(), with_args("-np", "6"))
